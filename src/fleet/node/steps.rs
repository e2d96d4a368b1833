//! Places where a test ends a node as a crash would: nothing after them is done, and nothing is undone. Or holds it for
//! as long as something else is to come in between.
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
    #[cfg(test)]
    held_at: parking_lot::Mutex<Option<&'static str>>,
    #[cfg(test)]
    held: tokio::sync::Notify,
    #[cfg(test)]
    goes_on: tokio::sync::Notify,
}

impl Steps {
    /// Ends here, if a test asked for it: by never going on.
    pub(super) async fn reach(&self, step: &'static str) -> Result<(), FleetError> {
        #[cfg(test)]
        if self.is_the_end(step) {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        #[cfg(test)]
        if self.is_held(step) {
            self.held.notify_one();
            self.goes_on.notified().await;
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

    #[cfg(test)]
    fn is_held(&self, step: &'static str) -> bool {
        self.held_at.lock().take_if(|held| *held == step).is_some()
    }

    /// The next one waits at this step until [`Steps::go_on`].
    #[cfg(test)]
    pub(super) fn hold_at(&self, step: &'static str) {
        *self.held_at.lock() = Some(step);
    }

    /// Returns once somebody waits there.
    #[cfg(test)]
    pub(super) async fn held(&self) {
        self.held.notified().await;
    }

    #[cfg(test)]
    pub(super) fn go_on(&self) {
        self.goes_on.notify_one();
    }
}
