//! How many requests and bytes stand between two log indexes: entries pack any number of them.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// A new mark is set after so much; between marks it is reckoned evenly.
const MARK_BYTES: u64 = 256 << 10;
const MARK_REQUESTS: u64 = 256;

/// What was applied up to an index, since some beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    index: u64,
    bytes: u64,
    requests: u64,
}

/// Sizes of the log's entries, by stretches.
#[derive(Debug, Default)]
pub(crate) struct Sizes(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    /// Ascending in all three.
    set: VecDeque<Mark>,
    last: Mark,
}

impl Sizes {
    /// Of a log that holds (`from`, `to`] of `bytes` together, whose requests nobody has counted: a request of few
    /// bytes is assumed, so that rather fewer are kept than were asked for.
    pub(crate) fn of_log(from: u64, to: u64, bytes: u64) -> Sizes {
        const REQUEST_BYTES: u64 = 256;
        let first = Mark { index: from, ..Mark::default() };
        let requests = (to.saturating_sub(from)).max(bytes / REQUEST_BYTES);
        let last = Mark { index: to.max(from), bytes, requests };
        Sizes(Mutex::new(Marks { set: VecDeque::from([first, last]), last }))
    }

    /// Entry `index` was applied.
    pub(crate) fn applied(&self, index: u64, bytes: u64, requests: u64) {
        let mut marks = self.0.lock();
        let last = marks.last;
        marks.last = Mark {
            index: index.max(last.index),
            bytes: last.bytes + bytes,
            requests: last.requests + requests,
        };
        let now = marks.last;
        let due = marks.set.back().is_none_or(|mark| {
            now.bytes - mark.bytes >= MARK_BYTES || now.requests - mark.requests >= MARK_REQUESTS
        });
        if due {
            marks.set.push_back(now);
        }
    }

    /// The log up to `index` is gone.
    pub(crate) fn purged(&self, index: u64) {
        let mut marks = self.0.lock();
        while marks.set.get(1).is_some_and(|next| next.index <= index) {
            marks.set.pop_front();
        }
    }

    /// Bytes of the entries after `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let marks = self.0.lock();
        marks.last.bytes.saturating_sub(marks.at(index).bytes)
    }

    /// The lowest index whose followers up to `end` are no more than so many requests and bytes.
    pub(crate) fn back_from(&self, end: u64, requests: u64, bytes: u64) -> u64 {
        let marks = self.0.lock();
        let from = marks.at(end);
        let fits = |index| {
            let mark = marks.at(index);
            from.bytes.saturating_sub(mark.bytes) <= bytes
                && from.requests.saturating_sub(mark.requests) <= requests
        };
        let (mut low, mut high) = (marks.set.front().map_or(end, |mark| mark.index.min(end)), end);
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { high = middle } else { low = middle + 1 }
        }
        high
    }
}

impl Marks {
    fn at(&self, index: u64) -> Mark {
        let after = self.set.partition_point(|mark| mark.index <= index);
        let above = self.set.get(after).copied().unwrap_or(self.last);
        let Some(below) = after.checked_sub(1).and_then(|at| self.set.get(at).copied()) else {
            return Mark { index, ..self.set.front().copied().unwrap_or_default() };
        };
        if above.index <= below.index || index >= above.index {
            return if index >= above.index { above } else { below };
        }
        let share = |low: u64, high: u64| {
            let span = u128::from(high - low) * u128::from(index - below.index);
            let part = span / u128::from(above.index - below.index);
            low + u64::try_from(part).expect("a share is no more than the whole")
        };
        Mark {
            index,
            bytes: share(below.bytes, above.bytes),
            requests: share(below.requests, above.requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_found_by_requests_and_by_bytes() {
        let sizes = Sizes::default();
        // A hundred requests of a kilobyte in each entry.
        for index in 1..=1000 {
            sizes.applied(index, 100 << 10, 100);
        }
        let near = |found: u64, wanted: u64| {
            assert!(found.abs_diff(wanted) <= 3, "{found} is not about {wanted}");
        };
        near(sizes.back_from(1000, 5000, u64::MAX), 950);
        near(sizes.back_from(600, 5000, u64::MAX), 550);
        near(sizes.back_from(1000, u64::MAX, 10 << 20), 898);
        assert_eq!(sizes.back_from(1000, 0, 0), 1000);
        near(sizes.bytes_after(990) / (100 << 10), 10);
        assert_eq!(sizes.bytes_after(1000), 0);
        assert_eq!(sizes.bytes_after(5000), 0);
    }

    #[test]
    fn marks_go_with_the_log_and_stay_few() {
        let sizes = Sizes::default();
        for index in 1..=100_000 {
            sizes.applied(index, 300, 1);
        }
        assert!(sizes.0.lock().set.len() < 500);
        sizes.purged(90_000);
        assert!(sizes.0.lock().set.len() < 50);
        assert!(sizes.bytes_after(90_000).abs_diff(3_000_000) < 300_000);
    }

    #[test]
    fn a_log_found_at_the_start_counts_evenly() {
        let sizes = Sizes::of_log(1000, 2000, 1 << 20);
        assert_eq!(sizes.bytes_after(1500), 1 << 19);
        sizes.applied(2001, 1 << 20, 1);
        assert_eq!(sizes.bytes_after(1500), (1 << 19) + (1 << 20));
        assert_eq!(sizes.bytes_after(0), 2 << 20);
    }
}
