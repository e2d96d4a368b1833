//! Bytes a second, over all transfers of a group.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Hands out time slots: what asks for more than the rate waits its turn.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Pace { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(None) }
    }

    /// Waits until `bytes` may go.
    pub(super) async fn wait(&self, bytes: usize) {
        let turn = self.book(Instant::now(), bytes);
        tokio::time::sleep_until(turn).await;
    }

    fn book(&self, now: Instant, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock();
        let turn = free_at.map_or(now, |at| at.max(now));
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let takes = bytes as f64 / self.bytes_per_second as f64;
        *free_at = Some(turn + Duration::from_secs_f64(takes));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_given_at_the_rate_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.book(start, 500), after(0));
        assert_eq!(pace.book(start, 500), after(500));
        assert_eq!(pace.book(after(600), 100), after(1000));
        assert_eq!(pace.book(after(5000), 100), after(5000));
        assert_eq!(pace.book(after(5000), 100), after(5100));
    }
}
