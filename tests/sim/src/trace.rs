//! What happened, in order, with simulated times: the thing that two runs of one seed must share.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Lines of one run; clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Mutex<String>>>);

impl Trace {
    /// One that keeps what it is told.
    pub fn kept() -> Trace {
        Trace(Some(Arc::default()))
    }

    /// Adds a line, stamped with the simulated time of this life.
    pub fn line(&self, since_start: std::time::Duration, text: impl FnOnce() -> String) {
        let Some(lines) = &self.0 else { return };
        let mut lines = lines.lock().expect("no writer panics");
        writeln!(lines, "{:>9} us  {}", since_start.as_micros(), text())
            .expect("a string takes it");
    }

    /// All of it; nothing, unless it is kept.
    pub fn text(&self) -> String {
        self.0
            .as_ref()
            .map(|lines| lines.lock().expect("no writer panics").clone())
            .unwrap_or_default()
    }
}
