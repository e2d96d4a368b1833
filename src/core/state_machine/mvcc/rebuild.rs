//! Building the index from all of history at once.
//!
//! Revisions come in revision order, which is no order of keys: inserted one by one, each of a million would miss the
//! processor's caches at every level of the tree. So they are sorted in helpings, and the tree is built in its order.
//!
//! ```text
//!   push ──> helping: rows, and their keys one after the other
//!     full ──> sorted by key ──┐
//!                              ├─merge──> sorted keys with their revisions
//!     what was there before ───┘              │
//!                                   finish ──> BTreeMap, filled from left to right
//! ```
//!
//! **Invariant:** the revisions of a key reach its [`KeyIndex`] in the order in which they came.
//! **Invariant:** a helping holds at most a quarter as many rows as there are sorted keys, or [`HELPING_ROWS`], so that
//! what is not merged yet costs little beside the index, and all merges together a few times what the last one does.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::iter::{Flatten, Peekable};
use std::vec::IntoIter;

use super::key_index::{KeyIndex, Packed};

/// A key, and all that the index knows of it.
type Entry = (Box<[u8]>, KeyIndex);

/// Rows of the smallest helping.
const HELPING_ROWS: usize = 128 << 10;
/// Rows of the largest.
const HELPING_ROWS_MAX: usize = 1 << 20;
/// A helping is full, too, when its keys average more bytes than this.
const KEY_BYTES: usize = 64;
/// Sorted keys of one piece.
const PIECE: usize = 4096;
/// So few keys are sorted by comparing them.
const FEW: usize = 16;
/// Keys that eight bytes, read so many times over, have not told apart are compared.
const DEPTH_MAX: usize = 32;

/// Collects revisions, in revision order, into what [`super::index::Index`] is filled with.
pub(crate) struct Builder {
    /// Rows of the smallest helping.
    helping_rows: usize,
    sorted: Sorted,
    rows: Vec<Row>,
    /// The rows' keys.
    keys: Vec<u8>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("sorted", &self.sorted.len)
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

/// Entries in key order, in pieces that are given back as they are read: a merge takes no memory of its own.
#[derive(Default)]
struct Sorted {
    pieces: Vec<Vec<Entry>>,
    len: usize,
}

type Entries = Peekable<Flatten<IntoIter<Vec<Entry>>>>;

/// A revision of the helping.
struct Row {
    /// Where its key begins; it ends where the next one begins.
    key_at: usize,
    packed: Packed,
    created: i64,
    version: i64,
    lease: i64,
}

/// A row while the helping is sorted.
struct Place {
    /// Eight bytes of the key, from where the keys begin to differ; the missing ones count as 0.
    word: u64,
    row: u32,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder::with_helpings(HELPING_ROWS)
    }

    fn with_helpings(helping_rows: usize) -> Builder {
        Builder { helping_rows, sorted: Sorted::default(), rows: Vec::new(), keys: Vec::new() }
    }

    /// Takes a revision, newer than all before it. `created` and `version` count if it is the first one of its key.
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        packed: Packed,
        created: i64,
        version: i64,
        lease: i64,
    ) {
        let rows = (self.sorted.len / 4).clamp(self.helping_rows, HELPING_ROWS_MAX);
        if self.rows.len() >= rows || self.keys.len() >= rows * KEY_BYTES {
            self.settle();
        }
        self.rows.push(Row { key_at: self.keys.len(), packed, created, version, lease });
        self.keys.extend_from_slice(key);
    }

    /// Every key with its revisions.
    pub(crate) fn finish(mut self) -> BTreeMap<Box<[u8]>, KeyIndex> {
        self.settle();
        let Builder { sorted, rows, keys, .. } = self;
        drop((rows, keys));
        let mut entries = Vec::with_capacity(sorted.len);
        for piece in sorted.pieces {
            entries.extend(piece);
        }
        // The standard library builds a map of sorted entries in one go, its nodes full.
        entries.into_iter().collect()
    }

    /// Merges the helping into what is sorted.
    fn settle(&mut self) {
        let order = self.order();
        let mut older = std::mem::take(&mut self.sorted).read();
        let mut merged = Sorted::default();
        for places in order.chunk_by(|a, b| self.key(a) == self.key(b)) {
            let key = self.key(&places[0]);
            let known = skip_to(&mut older, key, &mut merged);
            merged.push(self.entry(known, places));
        }
        older.for_each(|entry| merged.push(entry));
        self.sorted = merged;
        self.rows.clear();
        self.keys.clear();
    }

    /// What is `known` of a key, if anything, and its rows at `places`, of which there is one at least.
    fn entry(&self, known: Option<Entry>, places: &[Place]) -> Entry {
        let mut rows = places.iter().map(|place| &self.rows[place.row as usize]);
        let (key, mut index) = known.unwrap_or_else(|| {
            let first = rows.next().expect("a group of rows is never empty");
            let index =
                KeyIndex::new(first.packed, first.created, first.version, first.lease, None);
            (self.key(&places[0]).into(), index)
        });
        for row in rows {
            index.push(row.packed, row.lease, None);
        }
        (key, index)
    }

    /// The helping in key order, rows of one key as they came.
    fn order(&self) -> Vec<Place> {
        let rows = u32::try_from(self.rows.len()).expect("a helping is far smaller");
        let mut places: Vec<Place> = (0..rows).map(|row| Place { word: 0, row }).collect();
        self.sort(&mut places, 0, 0);
        places
    }

    /// Sorts `places`, whose keys agree in their first `from` bytes and whose rows ascend: by the eight bytes after
    /// what the keys share, then each group that is still equal.
    fn sort(&self, places: &mut [Place], from: usize, depth: usize) {
        if places.len() <= FEW || depth == DEPTH_MAX {
            self.compare(places, from);
            return;
        }
        let from = from + self.shared(places, from);
        for place in &mut *places {
            place.word = word(&self.key(place)[from..]);
        }
        places.sort_unstable_by_key(|place| (place.word, place.row));
        let next = from + size_of::<u64>();
        for group in places.chunk_by_mut(|a, b| a.word == b.word) {
            match group {
                [_] => {}
                _ if group.iter().all(|place| self.key(place).len() >= next) => {
                    self.sort(group, next, depth + 1);
                }
                _ => self.compare(group, from),
            }
        }
    }

    /// Sorts `places`, whose keys agree in their first `from` bytes, by comparing them.
    fn compare(&self, places: &mut [Place], from: usize) {
        let rest = |place: &Place| &self.key(place)[from..];
        places.sort_unstable_by(|a, b| rest(a).cmp(rest(b)).then(a.row.cmp(&b.row)));
    }

    /// How many bytes from `from` on all keys share.
    fn shared(&self, places: &[Place], from: usize) -> usize {
        let mut shared = places.first().map_or(&[][..], |place| &self.key(place)[from..]);
        for place in places {
            let key = &self.key(place)[from..];
            if !key.starts_with(shared) {
                let same = shared.iter().zip(key).take_while(|(a, b)| a == b).count();
                shared = &shared[..same];
            }
        }
        shared.len()
    }

    fn key(&self, place: &Place) -> &[u8] {
        let row = place.row as usize;
        let end = self.rows.get(row + 1).map_or(self.keys.len(), |next| next.key_at);
        &self.keys[self.rows[row].key_at..end]
    }
}

impl Sorted {
    fn push(&mut self, entry: Entry) {
        self.len += 1;
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(entry),
            Some(_) | None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(entry);
                self.pieces.push(piece);
            }
        }
    }

    fn read(self) -> Entries {
        self.pieces.into_iter().flatten().peekable()
    }
}

/// Moves what is before `key` to `merged`; gives what is known of `key` itself.
fn skip_to(older: &mut Entries, key: &[u8], merged: &mut Sorted) -> Option<Entry> {
    while let Some((first, _)) = older.peek() {
        match first.as_ref().cmp(key) {
            Ordering::Less => merged.push(older.next()?),
            Ordering::Equal => return older.next(),
            Ordering::Greater => break,
        }
    }
    None
}

fn word(bytes: &[u8]) -> u64 {
    if let Some(whole) = bytes.first_chunk() {
        return u64::from_be_bytes(*whole);
    }
    let mut padded = [0; size_of::<u64>()];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
#[path = "rebuild_test.rs"]
mod rebuild_test;
