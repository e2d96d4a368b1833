//! When a cut falls: after a number of calls that change something, counted from the start or from a call on a path
//! with a given name.
//!
//! ```text
//!  armed {pattern "base-", matching 3, then 2}
//!  write journal/1.seg · write base-7 · write base-7 · sync base-7 · sync dir · write journal/1.seg
//!                        1              2              3             1          2 = refused: the power is off
//! ```

/// Set before a life; it springs once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trap {
    armed: Option<Armed>,
}

/// What a trap waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Armed {
    /// A part of a path.
    pub(crate) pattern: String,
    /// So many changing calls on such paths first,
    pub(crate) matching: u64,
    /// then so many on any. The last of all is the first to be refused.
    pub(crate) then: u64,
}

// === impl Trap ===

impl Trap {
    pub(crate) fn arm(&mut self, armed: Armed) {
        self.armed = Some(armed);
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = None;
    }

    /// That the paths of the next call matter.
    pub(crate) fn wants_paths(&self) -> bool {
        self.armed.as_ref().is_some_and(|armed| armed.matching > 0)
    }

    /// Counts a changing call; true when it springs.
    pub(crate) fn step(&mut self, paths: &[String]) -> bool {
        let Some(armed) = &mut self.armed else {
            return false;
        };
        if armed.matching > 0 {
            if !paths.iter().any(|path| path.contains(&armed.pattern)) {
                return false;
            }
            armed.matching -= 1;
        } else {
            armed.then = armed.then.saturating_sub(1);
        }
        let sprung = armed.matching == 0 && armed.then == 0;
        if sprung {
            self.disarm();
        }
        sprung
    }
}
