//! Answers to ranges, kept to answer serializable ones again (etcd `server/proxy/grpcproxy/cache`).
//!
//! ```text
//!   read ── begin: which turn is it? ── ask a member ── keep, if the turn is still the same
//!   write ── forget what it touches, next turn ── ask a member ── forget, next turn
//! ```
//!
//! **Invariant:** only a serializable range is answered from here, for whoever asked for it with the same token, at most
//! [`LIFETIME`] after a member said so, and never with what a write through this proxy has since replaced.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use tokio::time::Instant;

use super::upstream::Caller;

/// So many answers are kept (etcd's `DefaultMaxEntries`).
const ENTRIES_MAX: usize = 2048;

/// Longer answers are not: this bounds the whole to 128 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// So long an answer is given again. etcd keeps it until a write through the same proxy touches it, be it for ever.
pub(super) const LIFETIME: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    kept: HashMap<Asked, Entry>,
    /// Who was used when, for who has to go.
    used: BTreeMap<u64, Asked>,
    clock: u64,
    turn: u64,
    compacted: i64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    caller: Caller,
    /// As a serializable one.
    request: RangeRequest,
}

struct Entry {
    response: RangeResponse,
    since: Instant,
    used: u64,
}

/// The turn in which a read began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn(u64);

/// What the cache knows of a serializable range.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    Answer(RangeResponse),
    /// Its revision is compacted.
    Compacted,
    Nothing,
}

fn asked(caller: &Caller, request: &RangeRequest) -> Asked {
    let request = RangeRequest { serializable: true, ..request.clone() };
    Asked { caller: caller.clone(), request }
}

impl Cache {
    pub(super) fn begin(&self) -> Turn {
        Turn(self.0.lock().turn)
    }

    pub(super) fn get(&self, caller: &Caller, request: &RangeRequest) -> Known {
        let asked = asked(caller, request);
        let entries = &mut *self.0.lock();
        if request.revision > 0 && request.revision < entries.compacted {
            entries.remove(&asked);
            return Known::Compacted;
        }
        match entries.kept.get(&asked) {
            Some(entry) if entry.since.elapsed() <= LIFETIME => {}
            Some(_) => {
                entries.remove(&asked);
                return Known::Nothing;
            }
            None => return Known::Nothing,
        }
        let clock = entries.tick();
        let entry = entries.kept.get_mut(&asked).expect("it was there under the same lock");
        let before = std::mem::replace(&mut entry.used, clock);
        let response = entry.response.clone();
        entries.used.remove(&before);
        entries.used.insert(clock, asked);
        Known::Answer(response)
    }

    /// Keeps the answer to a read, unless something was written since it began.
    pub(super) fn add(
        &self,
        began: Turn,
        caller: &Caller,
        request: &RangeRequest,
        response: &RangeResponse,
        bytes: usize,
    ) {
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
        let asked = asked(caller, request);
        let entries = &mut *self.0.lock();
        if entries.turn != began.0 || (request.revision > 0 && request.revision < entries.compacted)
        {
            return;
        }
        entries.remove(&asked);
        if entries.kept.len() == ENTRIES_MAX
            && let Some((_, oldest)) = entries.used.pop_first()
        {
            entries.kept.remove(&oldest);
        }
        let used = entries.tick();
        entries.used.insert(used, asked.clone());
        let entry = Entry { response: response.clone(), since: Instant::now(), used };
        entries.kept.insert(asked, entry);
    }

    /// Forgets what any of these ranges touches; an empty end is that of a single key. Reads that are under way are
    /// not kept.
    pub(super) fn forget(&self, ranges: &[(Bytes, Bytes)]) {
        let entries = &mut *self.0.lock();
        entries.turn += 1;
        if entries.kept.is_empty() {
            return;
        }
        let touched: Vec<Asked> = entries
            .kept
            .keys()
            // What was asked for at a revision stays true.
            .filter(|asked| asked.request.revision == 0)
            .filter(|Asked { request, .. }| {
                ranges.iter().any(|(key, end)| meet((key, end), (&request.key, &request.range_end)))
            })
            .cloned()
            .collect();
        touched.iter().for_each(|asked| entries.remove(asked));
    }

    /// Revisions below this one are not served any more.
    pub(super) fn compact(&self, revision: i64) {
        let entries = &mut *self.0.lock();
        entries.turn += 1;
        entries.compacted = entries.compacted.max(revision);
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().kept.len()
    }
}

impl Entries {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn remove(&mut self, asked: &Asked) {
        if let Some(entry) = self.kept.remove(asked) {
            self.used.remove(&entry.used);
        }
    }
}

/// Whether two ranges have a key in common; of an end, empty is a single key and `\0` has no limit.
fn meet((a, a_end): (&[u8], &[u8]), (b, b_end): (&[u8], &[u8])) -> bool {
    let reaches = |key: &[u8], end: &[u8], other: &[u8]| match end {
        [] => key == other,
        [0] => key <= other,
        _ => key <= other && other < end,
    };
    reaches(a, a_end, b) || reaches(b, b_end, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> RangeRequest {
        RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
    }

    fn answer(count: i64) -> RangeResponse {
        RangeResponse { count, ..RangeResponse::default() }
    }

    fn keep(cache: &Cache, request: &RangeRequest, count: i64) {
        let caller = Caller::default();
        cache.add(cache.begin(), &caller, request, &answer(count), 1);
    }

    fn known(cache: &Cache, request: &RangeRequest) -> Option<i64> {
        match cache.get(&Caller::default(), request) {
            Known::Answer(response) => Some(response.count),
            Known::Compacted => Some(-1),
            Known::Nothing => None,
        }
    }

    fn write(cache: &Cache, key: &'static str, end: &'static str) {
        cache.forget(&[(key.into(), end.into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_given_again_until_it_is_old() {
        let cache = Cache::default();
        let linearizable = range("a", "");
        keep(&cache, &linearizable, 7);
        let serializable = RangeRequest { serializable: true, ..linearizable };
        assert_eq!(known(&cache, &serializable), Some(7));
        assert_eq!(known(&cache, &range("b", "")), None);
        tokio::time::advance(LIFETIME + Duration::from_millis(1)).await;
        assert_eq!(known(&cache, &serializable), None);
        assert_eq!(cache.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_forgets_what_it_touches_and_nothing_else() {
        let cache = Cache::default();
        let at = RangeRequest { revision: 5, ..range("a", "") };
        for (request, count) in [(range("a", ""), 1), (range("a", "c"), 2), (range("c", "\0"), 3)] {
            keep(&cache, &request, count);
        }
        keep(&cache, &at, 4);
        write(&cache, "b", "");
        assert_eq!(known(&cache, &range("a", "c")), None);
        assert_eq!(known(&cache, &range("a", "")), Some(1));
        write(&cache, "a", "\0");
        assert_eq!(
            (known(&cache, &range("a", "")), known(&cache, &range("c", "\0"))),
            (None, None)
        );
        assert_eq!(known(&cache, &at), Some(4));
        cache.compact(6);
        assert_eq!(known(&cache, &at), Some(-1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_a_write_overtook_is_not_kept() {
        let cache = Cache::default();
        let caller = Caller::default();
        let began = cache.begin();
        write(&cache, "a", "");
        cache.add(began, &caller, &range("a", ""), &answer(1), 1);
        assert_eq!(known(&cache, &range("a", "")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_with_other_tokens_are_not_answered_alike() {
        let cache = Cache::default();
        keep(&cache, &range("a", ""), 1);
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("token", "x.1".parse().unwrap());
        assert_eq!(cache.get(&Caller::of(&metadata), &range("a", "")), Known::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_used_for_longest_goes_first() {
        let cache = Cache::default();
        let at = |revision| RangeRequest { revision, ..range("a", "") };
        for revision in 1..=ENTRIES_MAX as i64 {
            keep(&cache, &at(revision), revision);
        }
        assert_eq!(known(&cache, &at(1)), Some(1));
        keep(&cache, &at(5000), 5000);
        assert_eq!((known(&cache, &at(1)), known(&cache, &at(2))), (Some(1), None));
        assert_eq!(cache.len(), ENTRIES_MAX);
    }
}
