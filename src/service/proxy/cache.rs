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
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_core::api::pb::mvccpb::KeyValue;
use tokio::time::Instant;

use super::caller::Caller;

/// So many answers are kept (etcd's `DefaultMaxEntries`).
const ENTRIES_MAX: usize = 2048;

/// Longer answers are not.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is kept takes about so much room at most.
const BYTES_MAX: usize = 128 << 20;

/// So long an answer is given again. etcd keeps it until a write through the same proxy touches it, be it for ever.
pub(super) const LIFETIME: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    kept: HashMap<Asked, Entry>,
    /// Who was used when, for who has to go.
    used: BTreeMap<u64, Asked>,
    bytes: usize,
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
    touched: Instant,
    bytes: usize,
}

/// About how much room an entry takes. What was asked is kept twice.
fn room(asked: &Asked, response: &RangeResponse, bytes: usize) -> usize {
    let pairs = response.kvs.len() * size_of::<KeyValue>();
    let twice = size_of::<Asked>() + asked.caller.len() + asked.request.encoded_len();
    2 * twice + size_of::<Entry>() + bytes + pairs
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
        entries.sweep();
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
        entry.touched = Instant::now();
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
        entries.sweep();
        entries.remove(&asked);
        let bytes = room(&asked, response, bytes);
        while entries.kept.len() == ENTRIES_MAX || entries.bytes + bytes > BYTES_MAX {
            if !entries.remove_oldest() {
                return;
            }
        }
        let (used, now) = (entries.tick(), Instant::now());
        entries.used.insert(used, asked.clone());
        entries.bytes += bytes;
        let entry = Entry { response: response.clone(), since: now, used, touched: now, bytes };
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

    /// Nothing is known any more. Reads that are under way are not kept.
    pub(super) fn clear(&self) {
        let entries = &mut *self.0.lock();
        *entries = Entries { clock: entries.clock, turn: entries.turn + 1, ..Entries::default() };
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
            self.bytes -= entry.bytes;
        }
    }

    /// Whether there was one.
    fn remove_oldest(&mut self) -> bool {
        let Some((_, asked)) = self.used.pop_first() else { return false };
        if let Some(entry) = self.kept.remove(&asked) {
            self.bytes -= entry.bytes;
        }
        true
    }

    /// Takes away what has not been used for so long that it cannot be told any more.
    fn sweep(&mut self) {
        while let Some((_, asked)) = self.used.first_key_value()
            && self.kept.get(asked).is_none_or(|entry| entry.touched.elapsed() > LIFETIME)
        {
            self.remove_oldest();
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

    #[tokio::test(start_paused = true)]
    async fn long_requests_count_as_long_answers_do() {
        let cache = Cache::default();
        let key = Bytes::from(vec![b'k'; 60 << 10]);
        for revision in 1..=ENTRIES_MAX as i64 {
            let request = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
            cache.add(cache.begin(), &Caller::default(), &request, &answer(1), 60 << 10);
        }
        assert!(cache.len() <= (128 << 20) / (120 << 10), "{}", cache.len());
        assert!(cache.len() > 100, "{}", cache.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_to_be_told_is_not_kept() {
        let cache = Cache::default();
        for key in ["a", "b", "c"] {
            keep(&cache, &range(key, ""), 1);
        }
        tokio::time::advance(LIFETIME + Duration::from_millis(1)).await;
        keep(&cache, &range("d", ""), 1);
        assert_eq!(cache.len(), 1);
    }
}
