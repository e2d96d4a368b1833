//! Why a command did not do what it was asked for, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused, or failed; the reason is on standard error |
//! | 2 | the command line is wrong, or a file it names |
//! | 3 | the time was up; what was asked for may still be done |
//! | 4 | no daemon answers |

use std::path::PathBuf;

use crate::support::go::duration::GoDuration;

/// Why not. The text is for people and holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The node, or this program, says no.
    #[error("{0}")]
    Failed(String),
    /// The node cannot answer this now, and may soon.
    #[error("{0}")]
    NotNow(String),
    /// What was given is wrong.
    #[error("{0}")]
    Usage(String),
    /// The time was up.
    #[error(
        "no answer within {after}: {doing} may still go on; `quorate status` shows how things stand"
    )]
    TimedOut {
        /// What was waited for.
        doing: String,
        /// For how long.
        after: GoDuration,
    },
    /// It was waited for readiness, and in vain.
    #[error("the fleet is not ready after {after}: {why}")]
    NotReady {
        /// For how long.
        after: GoDuration,
        /// What was seen last.
        why: String,
    },
    /// The node says that its time was up.
    #[error("{0}")]
    NodeTimedOut(String),
    /// Nobody listens.
    #[error(
        "no daemon answers on {} ({why})\nstart one with: quorate daemon --state-dir {}",
        socket.display(),
        socket.parent().unwrap_or(socket).display()
    )]
    Unreachable {
        /// Where it would.
        socket: PathBuf,
        /// What the system says.
        why: String,
    },
}

impl Failure {
    pub(super) fn failed(why: impl Into<String>) -> Failure {
        Failure::Failed(why.into())
    }

    pub(super) fn usage(why: impl Into<String>) -> Failure {
        Failure::Usage(why.into())
    }

    /// Whether the same question may be answered a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Failure::NotNow(_)
            | Failure::TimedOut { .. }
            | Failure::NodeTimedOut(_)
            | Failure::Unreachable { .. } => true,
            Failure::Failed(_) | Failure::Usage(_) | Failure::NotReady { .. } => false,
        }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::NotNow(_) => 1,
            Failure::Usage(_) => 2,
            Failure::TimedOut { .. } | Failure::NotReady { .. } | Failure::NodeTimedOut(_) => 3,
            Failure::Unreachable { .. } => 4,
        }
    }
}
