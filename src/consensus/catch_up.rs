//! A member that was away takes in what it missed at a pace.
//!
//! ```text
//!   append whose entries were all committed without this member --> taken at once, answered when its bytes are due
//!   append with one that was not                                --> answered at once: it is level again
//!   the other's window of unanswered bytes --> it sends no faster than it is answered
//! ```
//!
//! Whoever waits for a commit waits for nobody's catching up, but shares machine and disk with it: what comes in at
//! full speed is written several times over, and the syncs of the others stand behind that.
//!
//! **Invariant:** only a member that was away is held to a pace, and only while commits go on without it: else writers
//! wait for it, or there are none.
//! **Invariant:** the pace doubles as long as the log grows away from the member, so that it does get level.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Without an append for so long a member was away.
const AWAY: Duration = Duration::from_secs(1);

/// And it has missed something if so many entries at least came meanwhile.
const MISSED: u64 = 100;

/// How often it is looked at whether the member comes nearer.
const LOOK: Duration = Duration::from_secs(1);

/// Nothing was committed for so long: nobody commits without this member.
const STILL: Duration = Duration::from_millis(100);

/// The pace of one group.
#[derive(Debug)]
pub(crate) struct CatchUp {
    bytes_per_second: f64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the last append came.
    at: Option<Instant>,
    stretch: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    bytes_per_second: f64,
    /// When everything so far is due.
    due: Instant,
    /// The commit index, and when it rose last.
    committed: u64,
    rose: Instant,
    /// At the last look: when it was, and how many entries were missing.
    looked: Instant,
    missing: u64,
}

impl CatchUp {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        CatchUp { bytes_per_second: bytes_per_second as f64, seen: Mutex::default() }
    }

    /// When an append of `bytes` that ends with entry `last` is to be answered, the leader having committed up to
    /// `committed`; `None`: at once.
    pub(crate) fn due(&self, last: u64, committed: u64, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let mut seen = self.seen.lock();
        let away = seen.at.replace(now).is_none_or(|at| now.duration_since(at) > AWAY);
        let going = if away { None } else { seen.stretch };
        seen.stretch = None;
        let missing = committed.checked_sub(last)?;
        let going = going.or_else(|| {
            let begun = || self.begin(now, committed, missing);
            (away && missing >= MISSED).then(begun)
        });
        let mut going = going?;
        if committed > going.committed {
            (going.committed, going.rose) = (committed, now);
        }
        let held = now.duration_since(going.rose) <= STILL;
        if held {
            going.keep_near(now, missing);
            let takes = Duration::from_secs_f64(bytes as f64 / going.bytes_per_second);
            going.due = going.due.max(now) + takes;
        }
        seen.stretch = Some(going);
        held.then_some(going.due)
    }

    fn begin(&self, now: Instant, committed: u64, missing: u64) -> Stretch {
        let bytes_per_second = self.bytes_per_second;
        Stretch { bytes_per_second, due: now, committed, rose: now, looked: now, missing }
    }
}

impl Stretch {
    fn keep_near(&mut self, now: Instant, missing: u64) {
        if now.duration_since(self.looked) >= LOOK {
            if missing >= self.missing {
                self.bytes_per_second *= 2.0;
            }
            (self.looked, self.missing) = (now, missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Takes in entries of a mebibyte up to `level`, which the commit index is `grown` beyond after each millisecond.
    async fn catch_up(level: u64, grown: impl Fn(u64) -> u64) -> (CatchUp, Duration) {
        let catch_up = CatchUp::new(32 << 20);
        let begun = Instant::now();
        for last in 1..=level {
            let committed = 1000 + grown(begun.elapsed().as_millis() as u64);
            match catch_up.due(last, committed, MIB) {
                Some(due) => tokio::time::sleep_until(due).await,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        (catch_up, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn entries_that_were_committed_without_it_come_at_a_pace() {
        let (catch_up, took) = catch_up(64, |millis| millis / 50).await;
        let took = took.as_secs_f64();
        assert!((1.9..2.1).contains(&took), "64 MiB in {took} s");
        assert_eq!(catch_up.due(5000, 4000, MIB), None, "nobody has committed that yet");
        assert_eq!(catch_up.due(5001, 6000, MIB), None, "it was not away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_commits_wait_for_is_not_held() {
        let (_, took) = catch_up(640, |_| 0).await;
        assert!(took < Duration::from_secs(1), "640 MiB in {took:?}");
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
        // A hundred entries of a mebibyte a second.
        let (_, took) = catch_up(4000, |millis| millis / 10).await;
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
