//! The newest events, kept for a moment: a watcher whose queue was full for a while reads what it missed here and not
//! from the store, and the last step from history to the present is taken here, under the hub's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;

/// The most events kept.
const MAX_EVENTS: usize = 4096;

/// The most bytes of keys and values kept.
const MAX_BYTES: usize = 4 << 20;

/// Published events without a gap: every event above `missing` up to the newest.
#[derive(Debug)]
pub(super) struct Tail {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    missing: i64,
}

impl Tail {
    /// A tail that begins after `revision`.
    pub(super) fn after(revision: i64) -> Tail {
        Tail { events: VecDeque::new(), bytes: 0, missing: revision }
    }

    /// Adds the events of one main revision.
    pub(super) fn push(&mut self, revision: &[Arc<Event>]) {
        for event in revision {
            self.bytes += event.size();
            self.events.push_back(Arc::clone(event));
        }
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.drop_oldest_revision();
        }
    }

    fn drop_oldest_revision(&mut self) {
        let Some(oldest) = self.events.front().map(|event| event.revision()) else {
            return;
        };
        while let Some(event) = self.events.front()
            && event.revision() == oldest
        {
            self.bytes -= event.size();
            self.events.pop_front();
        }
        self.missing = oldest;
    }

    /// Every event from the main revision `from` on, or `None` if some are no longer here.
    pub(super) fn from(&self, from: i64) -> Option<impl ExactSizeIterator<Item = &Arc<Event>>> {
        if from <= self.missing {
            return None;
        }
        let first = self.events.partition_point(|event| event.revision() < from);
        Some(self.events.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::batch::RevisionRecord;
    use quorate_core::api::ids::Revision;
    use quorate_core::api::pb::mvccpb::KeyValue;

    use super::*;

    fn revision(main: i64, subs: i64) -> Vec<Arc<Event>> {
        let event = |sub| {
            Arc::new(Event::published(&RevisionRecord {
                revision: Revision::new(main, sub),
                tombstone: false,
                kv: Arc::new(KeyValue {
                    key: "k".into(),
                    mod_revision: main,
                    ..KeyValue::default()
                }),
                prev: None,
            }))
        };
        (0..subs).map(event).collect()
    }

    #[test]
    fn old_revisions_leave_whole_and_are_owned_up_to() {
        let mut tail = Tail::after(1);
        assert!(tail.from(1).is_none());
        assert_eq!(tail.from(2).map(|events| events.len()), Some(0));

        let wide = MAX_EVENTS as i64 / 2;
        for main in 2..=4 {
            tail.push(&revision(main, wide));
        }

        assert!(tail.from(2).is_none(), "revision 2 made room for 4");
        assert_eq!(tail.from(3).map(|events| events.len()), Some(MAX_EVENTS));
        assert_eq!(tail.from(4).map(|events| events.len()), Some(MAX_EVENTS / 2));
        assert_eq!(tail.from(5).map(|events| events.len()), Some(0));
    }
}
