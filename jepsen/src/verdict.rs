//! What a run proved: valid, invalid, or nothing.
//!
//! **Invariant:** a fault of the harness is never an outcome of the member: it makes the run unknown, and unknown
//! is not a pass.

use std::process::ExitCode;

/// The exit code of a run is its verdict.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every claim was checked and held.
    Valid,
    /// A claim failed; the lines say which and how to see it again.
    Invalid(Vec<String>),
    /// The run could not be judged.
    Unknown(String),
}

impl Verdict {
    /// Valid without findings.
    pub(crate) fn of(findings: Vec<String>) -> Self {
        if findings.is_empty() { Self::Valid } else { Self::Invalid(findings) }
    }

    /// Prints the verdict; 0 valid, 1 invalid, 2 unknown.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Valid => {
                println!("verdict: valid");
                ExitCode::SUCCESS
            }
            Self::Invalid(findings) => {
                for finding in findings {
                    println!("{finding}");
                }
                println!("verdict: invalid ({} findings)", findings.len());
                ExitCode::from(1)
            }
            Self::Unknown(why) => {
                println!("verdict: unknown: {why}");
                ExitCode::from(2)
            }
        }
    }
}
