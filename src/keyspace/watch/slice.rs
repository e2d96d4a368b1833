//! A stretch of history, read once and matched by key: many lagging watchers share it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::ids::Revision;
use quorate_core::api::refusal::Corrupt;

use super::event::Event;
use super::history::History;
use super::range::{End, KeyRange};

/// Every event of the main revisions `from..=to`.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) from: i64,
    pub(super) to: i64,
    events: Vec<Arc<Event>>,
    by_key: BTreeMap<Bytes, Vec<usize>>,
}

impl Slice {
    /// Reads about `max_bytes` of history from the main revision `from` on, never beyond `upto`.
    pub(super) fn read(
        history: &dyn History,
        from: i64,
        upto: i64,
        max_bytes: usize,
    ) -> Result<Slice, Corrupt> {
        let records = history.scan(Revision::new(from, 0), max_bytes)?;
        let to = match records.last() {
            Some(last) => last.revision.main.min(upto),
            None => upto,
        };
        let published = records.into_iter().filter(|record| record.revision.main <= upto);
        let events = published.map(|record| Arc::new(Event::scanned(record)));
        Ok(Slice::of(from, to, events.collect()))
    }

    /// The slice of events at hand.
    pub(super) fn of(from: i64, to: i64, events: Vec<Arc<Event>>) -> Slice {
        let mut by_key: BTreeMap<Bytes, Vec<usize>> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            by_key.entry(event.key().clone()).or_default().push(at);
        }
        Slice { from, to, events, by_key }
    }

    /// The events of `range` from the main revision `cursor` on, in order.
    pub(super) fn matching(&self, range: &KeyRange, cursor: i64) -> Vec<Arc<Event>> {
        let first = self.events.partition_point(|event| event.revision() < cursor);
        let mut found: Vec<usize> = match range {
            KeyRange::One(key) => self.by_key.get(key).cloned().unwrap_or_default(),
            KeyRange::Span { start, end } => {
                let end = match end {
                    End::Before(end) => Bound::Excluded(end.clone()),
                    End::Infinity => Bound::Unbounded,
                };
                let keys = self.by_key.range((Bound::Included(start.clone()), end));
                let mut found: Vec<usize> = keys.flat_map(|(_, at)| at.iter().copied()).collect();
                found.sort_unstable();
                found
            }
        };
        found.retain(|at| *at >= first);
        let events = found.into_iter().map(|at| Arc::clone(&self.events[at]));
        events.collect()
    }
}

/// The slices read last: when many clients come back at once, they read the same stretch.
#[derive(Debug, Default)]
pub(super) struct SliceCache {
    slices: VecDeque<Arc<Slice>>,
}

/// Slices kept.
const KEPT: usize = 8;

impl SliceCache {
    /// A slice that holds the main revision `from`.
    pub(super) fn find(&self, from: i64) -> Option<Arc<Slice>> {
        let holds = |slice: &&Arc<Slice>| slice.from <= from && from <= slice.to;
        let holding = self.slices.iter().filter(holds);
        holding.max_by_key(|slice| slice.to).map(Arc::clone)
    }

    /// Keeps a slice, in the place of the oldest.
    pub(super) fn keep(&mut self, slice: Arc<Slice>) {
        if self.slices.len() == KEPT {
            self.slices.pop_front();
        }
        self.slices.push_back(slice);
    }

    /// Forgets all, because history was replaced.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
    }
}
