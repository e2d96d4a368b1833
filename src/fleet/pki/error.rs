//! What can be wrong with certificates and keys. No text has a part of a key in it.

use std::io;
use std::path::PathBuf;

use super::super::seal::SealError;

/// Why something about certificates is refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was given, or stands in a file, cannot be used.
    #[error("{what}: {why}")]
    Unfit {
        /// Which certificate, key or authority.
        what: String,
        /// In Go's words where TLS has any.
        why: String,
    },
    /// There is no certificate of this name.
    #[error("no certificate is named {0:?}; there are server, peer, client and member-api")]
    NoSuchName(String),
    /// This node has no certificate of this name.
    #[error("this node has no {0} certificate")]
    NotHere(&'static str),
    /// A name that a certificate is to be valid for is neither a host name nor an address.
    #[error("{0:?} is neither a host name nor an address")]
    Host(String),
    /// A certificate signing request.
    #[error("the certificate signing request is refused: {0}")]
    Request(String),
    /// Nothing can be signed: the key is with whoever supplied the authority.
    #[error("the key of the authority is kept elsewhere: supply certificates that it has signed")]
    KeyElsewhere,
    /// The seed names no plan that is open.
    #[error("the seed belongs to no open plan: plan again")]
    NoPlan,
    /// The plan was for other certificates.
    #[error("the plan does not cover the {0} certificate: plan again")]
    NotPlanned(&'static str),
    /// A validity that is no time to come.
    #[error("the certificates would have to be valid for at least a minute")]
    TooShort,
    /// An authority is on its way in already.
    #[error("a change of the authority is under way already")]
    UnderWay,
    /// No authority is on its way in.
    #[error("no new authority has been announced")]
    NothingAnnounced,
    /// Certificates could not be made.
    #[error("making a certificate: {0}")]
    Make(String),
    /// The sealed key.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl PkiError {
    /// A constructor for what is unfit.
    pub(super) fn unfit(what: impl Into<String>, why: impl Into<String>) -> PkiError {
        PkiError::Unfit { what: what.into(), why: why.into() }
    }
}

impl From<rcgen::Error> for PkiError {
    fn from(why: rcgen::Error) -> Self {
        PkiError::Make(why.to_string())
    }
}
