//! TLS, for clients and between members, as etcd's (`client/pkg/transport`).
//!
//! ```text
//!   TlsSettings (flags) ── Side (files, kept up to date) ──┬─> Acceptor ── accept ──> stream, PeerIdentity
//!     self_signed (auto-tls) ──┘                           └─> Connector ── connect ──> stream
//! ```
//!
//! Every handshake looks whether a file has changed and takes what it holds now, authorities and revocations included;
//! a bad file leaves the last good one in use. Handshakes run on a thread of their own ([`super::aside`]).
//!
//! **Invariant:** who a certificate names is told to the services in one way alone: a [`PeerIdentity`] in the
//! extensions of each request.
//! **Invariant:** no session is resumed: each connection is judged anew.

mod accept;
mod certificate;
mod dial;
mod files;
mod fingerprint;
mod first_byte;
mod identity;
mod inspect;
mod judge;
mod kept;
mod protocol;
mod san;
mod self_signed;
mod settings;
mod side;
mod words;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tls_test;

pub use self::accept::{Accepted, Acceptor, Endpoint, Rejected};
pub use self::dial::{Connector, NotAgreed};
pub use self::fingerprint::{Fingerprint, NoFingerprint};
pub use self::first_byte::FirstByte;
pub use self::identity::{Encrypted, PeerIdentity};
pub use self::inspect::{Facts, Usage, check_chain, check_pair, read_certificates};
pub use self::protocol::{Protocol, Version};
pub use self::self_signed::self_signed;
pub use self::settings::TlsSettings;
pub use self::side::Side;
pub use self::words::tls_cause;
