//! Places where a test ends a node as a crash would: nothing after them is done, and nothing is undone.
//!
//! **Invariant:** outside of tests a step is nothing at all.

use crate::fleet::error::FleetError;

/// Where a node may be ended, and whether it is to be.
#[derive(Debug, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    crash_at: parking_lot::Mutex<Option<&'static str>>,
    #[cfg(test)]
    crashed: tokio::sync::Notify,
}

impl Steps {
    /// Ends here, if a test asked for it: by never going on.
    pub(super) async fn reach(&self, step: &'static str) -> Result<(), FleetError> {
        #[cfg(test)]
        if self.is_the_end(step) {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        tracing::debug!(step, "reached");
        Ok(())
    }

    #[cfg(test)]
    fn is_the_end(&self, step: &'static str) -> bool {
        *self.crash_at.lock() == Some(step)
    }

    /// Returns once it has ended.
    #[cfg(test)]
    pub(super) async fn crashed(&self) {
        self.crashed.notified().await;
    }

    /// Ends at this step from now on.
    #[cfg(test)]
    pub(super) fn crash_at(&self, step: &'static str) {
        *self.crash_at.lock() = Some(step);
    }
}
