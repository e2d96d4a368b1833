//! A member that was away takes in what it missed at a pace.
//!
//! ```text
//!   append whose entries were all committed without this member --> taken at once, answered when its bytes are due
//!   append with one that was not                                --> answered at once
//!   the other's window of unanswered bytes --> it sends no faster than it is answered
//! ```
//!
//! Whoever waits for a commit waits for nobody's catching up, but shares machine and disk with it: what comes in at
//! full speed is written several times over, and the syncs of the others stand behind that.
//!
//! **Invariant:** the pace doubles as long as the log grows away from the member, so that it does get level.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two appends of one catching-up: after more than this another has begun.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked at whether the member comes nearer.
const LOOK: Duration = Duration::from_secs(1);

/// The pace of one group.
#[derive(Debug)]
pub(crate) struct CatchUp {
    bytes_per_second: f64,
    stretch: Mutex<Option<Stretch>>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    bytes_per_second: f64,
    /// When everything so far is due.
    due: Instant,
    /// At the last look: when it was, and how many entries were missing.
    looked: Instant,
    missing: u64,
}

impl CatchUp {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        CatchUp { bytes_per_second: bytes_per_second as f64, stretch: Mutex::new(None) }
    }

    /// When an append of `bytes` that ends with entry `last` is to be answered, the leader having committed up to
    /// `committed`; `None`: at once.
    pub(crate) fn due(&self, last: u64, committed: u64, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let mut stretch = self.stretch.lock();
        if last > committed {
            *stretch = None;
            return None;
        }
        let missing = committed - last;
        let fresh =
            Stretch { bytes_per_second: self.bytes_per_second, due: now, looked: now, missing };
        let mut going = stretch.filter(|going| going.due + PAUSE > now).unwrap_or(fresh);
        if now.duration_since(going.looked) >= LOOK {
            if missing >= going.missing {
                going.bytes_per_second *= 2.0;
            }
            (going.looked, going.missing) = (now, missing);
        }
        let takes = Duration::from_secs_f64(bytes as f64 / going.bytes_per_second);
        going.due = going.due.max(now) + takes;
        *stretch = Some(going);
        Some(going.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn entries_that_were_committed_without_it_come_at_a_pace() {
        let catch_up = CatchUp::new(32 << 20);
        let begun = Instant::now();
        for last in 1..=64 {
            if let Some(due) = catch_up.due(last, 1000, MIB) {
                tokio::time::sleep_until(due).await;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((1.9..2.1).contains(&took), "64 MiB in {took} s");
        assert_eq!(catch_up.due(1001, 1000, MIB), None, "nobody has committed that yet");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_waited_for_together_are_due_one_after_the_other() {
        let catch_up = CatchUp::new(32 << 20);
        let begun = Instant::now();
        let due: Vec<_> = (1..=8).filter_map(|last| catch_up.due(last, 1000, MIB)).collect();
        let due: Vec<_> = due.iter().map(|due| (*due - begun).as_millis()).collect();
        assert_eq!(due, [31, 62, 93, 125, 156, 187, 218, 250]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_grows_faster_is_still_caught_up_with() {
        let catch_up = CatchUp::new(32 << 20);
        let (mut last, mut committed) = (0, 1000);
        let begun = Instant::now();
        // A hundred entries of a mebibyte a second.
        while last < committed {
            last += 1;
            committed = 1000 + begun.elapsed().as_millis() as u64 / 10;
            match catch_up.due(last, committed, MIB) {
                Some(due) => tokio::time::sleep_until(due).await,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "at {last} of {committed}");
        }
    }
}
