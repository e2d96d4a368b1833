//! Why there is no answer, or not the one that was hoped for.

use bytes::Bytes;

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody is there. Nothing was sent.
    #[error("{target} cannot be reached: {why}")]
    Unreachable {
        /// Who was asked.
        target: String,
        /// In Go's words.
        why: String,
    },
    /// One side does not take the other's certificate. Whatever was asked was not done.
    #[error("{target}: {why}")]
    Tls {
        /// Who was asked.
        target: String,
        /// In Go's words.
        why: String,
    },
    /// No answer in time; what was asked may have been done.
    #[error("{target} did not answer in time")]
    Deadline {
        /// Who was asked.
        target: String,
    },
    /// The connection ended before the answer did; what was asked may have been done.
    #[error("the connection to {target} broke: {why}")]
    Broken {
        /// Who was asked.
        target: String,
        /// What ended it.
        why: String,
    },
    /// The answer is longer than any should be.
    #[error("the answer of {target} is longer than 1 MiB")]
    TooLong {
        /// Who was asked.
        target: String,
    },
    /// Refused, or failed at the other side.
    #[error("{target} answered {status}")]
    Status {
        /// Who was asked.
        target: String,
        /// 300 and above.
        status: u16,
        /// What was said.
        body: Bytes,
    },
    /// The answer is not the JSON that was waited for.
    #[error("the answer is not what was expected, at line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The request cannot be put into HTTP.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl HttpError {
    /// Whether it is certain that the other side did nothing: who else might be asked, may be.
    pub fn nothing_was_done(&self) -> bool {
        match self {
            HttpError::Unreachable { .. } | HttpError::Tls { .. } | HttpError::Request(_) => true,
            HttpError::Deadline { .. }
            | HttpError::Broken { .. }
            | HttpError::TooLong { .. }
            | HttpError::Status { .. }
            | HttpError::NotJson { .. } => false,
        }
    }
}
