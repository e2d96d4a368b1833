//! What happened, in order, with simulated times: the thing that two runs of one seed must share.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Lines of one run; clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<String>>);

impl Trace {
    /// Adds a line, stamped with the simulated time of this life.
    pub fn line(&self, since_start: std::time::Duration, text: &str) {
        let mut lines = self.0.lock().expect("no writer panics");
        writeln!(lines, "{:>9} us  {text}", since_start.as_micros()).expect("a string takes it");
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.0.lock().expect("no writer panics").clone()
    }
}
