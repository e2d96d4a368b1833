//! When a cut falls: after a number of calls that change something, of any file or of those with a given name.

/// Set before a life; it springs once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trap {
    armed: Option<Armed>,
}

#[derive(Debug, Clone)]
struct Armed {
    /// Parts of a name; empty counts every changing call.
    patterns: Vec<String>,
    calls_left: u64,
}

// === impl Trap ===

impl Trap {
    /// Springs at the `calls`-th call from now that changes a file whose path holds one of `patterns`.
    pub(crate) fn arm(&mut self, patterns: Vec<String>, calls: u64) {
        self.armed = Some(Armed { patterns, calls_left: calls });
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = None;
    }

    /// That the paths are worth finding out.
    pub(crate) fn wants_paths(&self) -> bool {
        self.armed.as_ref().is_some_and(|armed| !armed.patterns.is_empty())
    }

    /// Counts a call; true when it springs.
    pub(crate) fn step(&mut self, paths: &[String]) -> bool {
        let Some(armed) = &mut self.armed else {
            return false;
        };
        let matches = |path: &String| armed.patterns.iter().any(|part| path.contains(part));
        if !armed.patterns.is_empty() && !paths.iter().any(matches) {
            return false;
        }
        armed.calls_left = armed.calls_left.saturating_sub(1);
        let sprung = armed.calls_left == 0;
        if sprung {
            self.disarm();
        }
        sprung
    }
}
