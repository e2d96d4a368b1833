//! What happened on this node, for whoever watches it do something that takes its time.
//!
//! ```text
//!   publish ──> ring of the last events, numbered ──> each follower at its own pace
//!                    └─ older ones are dropped: a follower that needs them hears how many it lost
//! ```
//!
//! **Invariant:** a publisher never waits, and a follower gets every number once, in order, or hears of the gap.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::server::{Event, EventKind};
use crate::support::clock::{rfc3339, unix_micros};

/// How many events are kept.
const KEPT: usize = 1024;

/// The events of one daemon. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<VecDeque<Event>>,
    /// The last number that was given out.
    newest: watch::Sender<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        EventLog {
            shared: Arc::new(Shared {
                ring: Mutex::new(VecDeque::with_capacity(KEPT)),
                newest: watch::Sender::new(0),
            }),
        }
    }
}

impl EventLog {
    /// Tells everybody who follows; the number that it got. `metadata` must hold no secret.
    pub fn publish(&self, kind: EventKind, metadata: Value) -> u64 {
        let mut ring = self.shared.ring.lock();
        let sequence = *self.shared.newest.borrow() + 1;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Event { sequence, kind, timestamp: rfc3339(unix_micros()), metadata });
        self.shared.newest.send_replace(sequence);
        sequence
    }

    /// The number of the last event; 0: none yet.
    pub fn newest(&self) -> u64 {
        *self.shared.newest.borrow()
    }

    /// Follows from the event after number `after` on: those that are kept first. A number that was never given out, as
    /// of a daemon before this one, counts as none: everything that is kept is told.
    pub fn follow(&self, after: u64) -> Follower {
        let after = if after > self.newest() { 0 } else { after };
        Follower { log: self.clone(), newest: self.shared.newest.subscribe(), after }
    }

    fn next(&self, after: u64) -> Option<Event> {
        let ring = self.shared.ring.lock();
        let oldest = ring.front()?.sequence;
        if after + 1 < oldest {
            let lost = oldest - after - 1;
            return Some(Event {
                sequence: oldest - 1,
                kind: EventKind::Lost,
                timestamp: rfc3339(unix_micros()),
                metadata: json!({ "lost": lost }),
            });
        }
        let at = usize::try_from(after + 1 - oldest).ok()?;
        ring.get(at).cloned()
    }
}

/// One who follows.
#[derive(Debug)]
pub struct Follower {
    log: EventLog,
    newest: watch::Receiver<u64>,
    after: u64,
}

impl Follower {
    /// The next event; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.log.next(self.after) {
                self.after = event.sequence;
                return event;
            }
            let after = self.after;
            self.newest
                .wait_for(|newest| *newest > after)
                .await
                .expect("the log that this follower holds keeps the sender");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_gets_what_is_kept_and_then_what_comes() {
        let log = EventLog::default();
        assert_eq!(log.publish(EventKind::Lifecycle, json!(1)), 1);
        assert_eq!(log.publish(EventKind::Progress, json!(2)), 2);
        let mut follower = log.follow(1);
        assert_eq!(follower.next().await.sequence, 2);
        let waiting = tokio::spawn(async move { follower.next().await });
        log.publish(EventKind::Progress, json!(3));
        assert_eq!(waiting.await.unwrap().metadata, json!(3));
    }

    #[tokio::test]
    async fn a_follower_that_was_away_too_long_hears_how_much_it_lost() {
        let log = EventLog::default();
        for number in 0..KEPT + 10 {
            log.publish(EventKind::Progress, json!(number));
        }
        let mut follower = log.follow(3);
        let gap = follower.next().await;
        assert_eq!((gap.kind, gap.metadata), (EventKind::Lost, json!({ "lost": 7 })));
        assert_eq!(follower.next().await.sequence, 11);
    }

    #[tokio::test]
    async fn a_number_of_another_life_begins_with_what_is_kept() {
        let log = EventLog::default();
        log.publish(EventKind::Lifecycle, json!(1));
        assert_eq!(log.follow(99).next().await.sequence, 1);
    }
}
