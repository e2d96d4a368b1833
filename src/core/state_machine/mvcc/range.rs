//! Range: rows are picked from the index in slices, values are fetched by the caller without holding the machine.
//!
//! ```text
//!   RangeWork::new(request)
//!        │  step(&machine, rows)   under the shared lock, bounded; again until done
//!        ▼
//!   rows (key facts, hot values) ── finish(&view)   no lock: sort, cut to limit, fetch cold values, strip
//!        ▼
//!   RangeResponse
//! ```
//!
//! etcd's order of work (`server/etcdserver/txn/range.go`): fetch, filter, sort, cut, strip. Filters and all sorts
//! but the one by value need only what the index knows, so only what is answered is fetched.

use std::cmp::Ordering;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::ids::Revision;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::{Corrupt, Refusal};
use crate::api::view::View;

use super::super::StateMachine;
use super::Mvcc;
use super::key_index::{At, KeyIndex};
use super::pins::Pin;
use super::span::Span;
use super::values::Values;

/// A slice looks at this many keys a row before it yields, dead keys and rows past the limit included.
const VISITS_PER_ROW: usize = 16;
/// And at this many at least.
const VISITS_MIN: usize = 4096;

/// One key that a range found. `Debug` tells no value.
#[derive(Clone)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// Where its value was written.
    pub revision: Revision,
    /// The main revision that created it.
    pub create_revision: i64,
    /// Puts since then, from 1.
    pub version: i64,
    /// The key-value, when it is in memory; else [`View::key_value`] has it at `revision`.
    pub hot: Option<Arc<KeyValue>>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("hot", &self.hot.is_some())
            .finish_non_exhaustive()
    }
}

/// Where a range goes on. Its pin keeps what it reads from being compacted away.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The main revision it reads at, fixed by its first slice.
    at: i64,
    /// The current revision when it started, for the header.
    current: i64,
    next_key: Bytes,
    /// Rows given so far, towards the limit.
    taken: i64,
    pin: Arc<Pin>,
}

impl Cursor {
    /// The main revision it reads at.
    pub fn read_revision(&self) -> i64 {
        self.at
    }
}

/// A bounded part of a range's answer.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Rows in key order that passed the request's filters; empty for `count_only`.
    pub rows: Vec<Row>,
    /// Keys this slice saw alive, which its rows may be fewer than.
    pub count: i64,
    /// The current revision when the range started: its header's.
    pub revision: i64,
    /// Where to go on; `None` at the end of the range.
    pub next: Option<Cursor>,
    /// No later slice has rows: those left only count.
    pub rows_done: bool,
    /// Keep it until the rows' values have been fetched.
    pub pin: Arc<Pin>,
}

impl StateMachine {
    /// Picks up to `max_rows` rows from the index, starting or going on at `resume`.
    ///
    /// Rows are as etcd fetches them: in key order, one beyond the limit so that `more` can be told, without that
    /// bound when the request sorts or filters. Sorting and cutting is [`RangeWork`]'s.
    pub fn select(
        &self,
        request: &pb::RangeRequest,
        resume: Option<&Cursor>,
        max_rows: usize,
    ) -> Result<Slice, Refusal> {
        let (at, current, pin, taken) = match resume {
            Some(cursor) => (cursor.at, cursor.current, self.keep_pin(cursor)?, cursor.taken),
            None => {
                let at = self.mvcc.read_revision(request.revision)?;
                let pin = Arc::new(self.mvcc.pins.pin(at));
                (at, self.mvcc.revision, pin, 0)
            }
        };
        let mut walk = Walk::new(request, at, taken);
        walk.rows_max = max_rows.max(1);
        walk.visits_left = VISITS_MIN.max(max_rows.saturating_mul(VISITS_PER_ROW));
        let next_key = walk.run(&self.mvcc, resume.map(|cursor| cursor.next_key.as_ref()));
        let rows_done = next_key.is_none() || walk.taken >= walk.fetch_limit;
        Ok(Slice {
            count: walk.count,
            revision: current,
            next: next_key.map(|next_key| Cursor {
                at,
                current,
                next_key,
                taken: walk.taken,
                pin: Arc::clone(&pin),
            }),
            rows_done,
            pin,
            rows: walk.rows,
        })
    }
}

impl StateMachine {
    /// The cursor's pin, or one of this machine's own if another has taken the place of the one it began on.
    fn keep_pin(&self, cursor: &Cursor) -> Result<Arc<Pin>, Refusal> {
        if self.mvcc.pins.owns(&cursor.pin) {
            return Ok(Arc::clone(&cursor.pin));
        }
        let at = self.mvcc.read_revision(cursor.at)?;
        Ok(Arc::new(self.mvcc.pins.pin(at)))
    }
}

impl Mvcc {
    /// The main revision that a range asking for `asked` reads at, outside a txn: 0 or less is the newest.
    fn read_revision(&self, asked: i64) -> Result<i64, Refusal> {
        if asked > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if asked <= 0 {
            return Ok(self.revision);
        }
        if asked < self.compact_revision {
            return Err(Refusal::Compacted);
        }
        Ok(asked)
    }

    /// Answers a range inside a txn whose reads see main revision `now`. The revision asked for was checked.
    pub(crate) fn range_in_txn<V: View>(
        &self,
        request: &pb::RangeRequest,
        now: i64,
        values: &Values<'_, V>,
    ) -> Result<pb::RangeResponse, Corrupt> {
        let at = if request.revision <= 0 { now } else { request.revision };
        let mut walk = Walk::new(request, at, 0);
        walk.run(self, None);
        assemble(request, walk.rows, walk.count, now, values)
    }

    /// Rows of a range inside a txn that need the view, for prefetching.
    pub(crate) fn cold_in_range(
        &self,
        request: &pb::RangeRequest,
        max: usize,
        cold: &mut Vec<Revision>,
    ) {
        if is_index_only(request) {
            return;
        }
        let at = if request.revision <= 0 { self.revision } else { request.revision };
        let mut walk = Walk::new(request, at, 0);
        walk.rows_max = max;
        walk.visits_left = VISITS_MIN.max(max);
        walk.run(self, None);
        let rows = walk.rows.iter().filter(|row| row.hot.is_none());
        cold.extend(rows.map(|row| row.revision));
    }
}

/// One pass over a request's keys.
struct Walk<'r> {
    request: &'r pb::RangeRequest,
    at: i64,
    /// Rows wanted in all, over every slice.
    fetch_limit: i64,
    taken: i64,
    rows_max: usize,
    visits_left: usize,
    rows: Vec<Row>,
    count: i64,
}

impl<'r> Walk<'r> {
    /// A pass without bounds; a slice sets its own.
    fn new(request: &'r pb::RangeRequest, at: i64, taken: i64) -> Self {
        Walk {
            request,
            at,
            fetch_limit: fetch_limit(request),
            taken,
            rows_max: usize::MAX,
            visits_left: usize::MAX,
            rows: Vec::new(),
            count: 0,
        }
    }

    /// Walks on from `from`; the key to go on at when a bound stopped it.
    fn run(&mut self, mvcc: &Mvcc, from: Option<&[u8]>) -> Option<Bytes> {
        let span = Span::new(&self.request.key, &self.request.range_end);
        let mut stopped = None;
        mvcc.index.visit(&span, from, |key, index| {
            if self.visits_left == 0 {
                stopped = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            self.visits_left -= 1;
            let Some(found) = index.get(self.at) else {
                return ControlFlow::Continue(());
            };
            let wanted = self.taken < self.fetch_limit;
            if wanted && self.rows.len() == self.rows_max {
                stopped = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            self.count += 1;
            if wanted && passes(self.request, &found) {
                self.taken += 1;
                self.rows.push(row(key, index, found));
            }
            ControlFlow::Continue(())
        });
        stopped
    }
}

fn row(key: &[u8], index: &KeyIndex, found: At) -> Row {
    let hot = index.hot_at(found.revision).cloned();
    let key = match &hot {
        Some(kv) => kv.key.clone(),
        None => Bytes::copy_from_slice(key),
    };
    Row {
        key,
        revision: found.revision,
        create_revision: found.create_revision,
        version: found.version,
        hot,
    }
}

/// Rows that etcd fetches: one past the limit, all when it must sort or filter, none to count only.
fn fetch_limit(request: &pb::RangeRequest) -> i64 {
    if request.count_only {
        return 0;
    }
    if request.limit <= 0 || !is_default_order(request) || has_revision_filters(request) {
        return i64::MAX;
    }
    request.limit.saturating_add(1)
}

fn passes(request: &pb::RangeRequest, found: &At) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (max == 0 || value <= max) && (min == 0 || value >= min);
    within(found.revision.main, request.min_mod_revision, request.max_mod_revision)
        && within(found.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Rows come in key order, so these need no sort before the limit is applied. That NONE counts here whatever the
/// target is etcd's own: the first keys are fetched, and only they are sorted.
pub(crate) fn is_default_order(request: &pb::RangeRequest) -> bool {
    request.sort_order == SortOrder::None as i32
        || (request.sort_order == SortOrder::Ascend as i32
            && request.sort_target == SortTarget::Key as i32)
}

pub(crate) fn has_revision_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// No value is needed to answer: etcd 3.7 leaves out the lease too then.
fn is_index_only(request: &pb::RangeRequest) -> bool {
    request.count_only || (request.keys_only && request.sort_target != SortTarget::Value as i32)
}

/// A Range on its way, slice by slice.
#[derive(Debug)]
pub struct RangeWork {
    request: pb::RangeRequest,
    rows: Vec<Row>,
    count: i64,
    revision: i64,
    next: Option<Cursor>,
    pin: Option<Arc<Pin>>,
}

impl RangeWork {
    /// A request whose shape [`super::super::check::check_range`] has accepted.
    pub fn new(request: pb::RangeRequest) -> RangeWork {
        RangeWork { request, rows: Vec::new(), count: 0, revision: 0, next: None, pin: None }
    }

    /// Picks up to `max_rows` more rows. `true` when all are picked.
    pub fn step(&mut self, machine: &StateMachine, max_rows: usize) -> Result<bool, Refusal> {
        let slice = machine.select(&self.request, self.next.as_ref(), max_rows)?;
        if self.rows.is_empty() {
            self.rows = slice.rows;
        } else {
            self.rows.extend(slice.rows);
        }
        self.count += slice.count;
        self.revision = slice.revision;
        self.pin = Some(slice.pin);
        self.next = slice.next;
        Ok(self.next.is_none())
    }

    /// Some values will be read through the view: rather not where io must not block.
    pub fn is_cold(&self) -> bool {
        !is_index_only(&self.request) && self.rows.iter().any(|row| row.hot.is_none())
    }

    /// Sorts, cuts to the limit, fetches what is cold and strips what was not asked for.
    pub fn finish(self, view: &impl View) -> Result<pb::RangeResponse, Corrupt> {
        let values = Values::committed(view);
        assemble(&self.request, self.rows, self.count, self.revision, &values)
    }
}

/// The key-values of rows as `request` wants them shown, in the rows' order: for streams, which neither sort nor
/// filter.
pub fn show_rows(
    request: &pb::RangeRequest,
    rows: &[Row],
    view: &impl View,
) -> Result<Vec<KeyValue>, Corrupt> {
    let values = Values::committed(view);
    rows.iter().map(|row| show(request, row, &values)).collect()
}

fn assemble<V: View>(
    request: &pb::RangeRequest,
    mut rows: Vec<Row>,
    count: i64,
    current: i64,
    values: &Values<'_, V>,
) -> Result<pb::RangeResponse, Corrupt> {
    if request.sort_target == SortTarget::Value as i32 && !is_index_only(request) {
        for row in &mut rows {
            row.hot = Some(values.read(&row.key, row.revision, row.hot.as_ref())?);
        }
    }
    sort(request, &mut rows);
    let mut more = false;
    if let Ok(limit) = usize::try_from(request.limit)
        && limit > 0
        && rows.len() > limit
    {
        rows.truncate(limit);
        more = true;
    }
    let kvs = rows.iter().map(|row| show(request, row, values));
    Ok(pb::RangeResponse {
        header: header(current),
        kvs: kvs.collect::<Result<_, Corrupt>>()?,
        more,
        count,
    })
}

fn show<V: View>(
    request: &pb::RangeRequest,
    row: &Row,
    values: &Values<'_, V>,
) -> Result<KeyValue, Corrupt> {
    if is_index_only(request) {
        return Ok(KeyValue {
            key: row.key.clone(),
            create_revision: row.create_revision,
            mod_revision: row.revision.main,
            version: row.version,
            ..KeyValue::default()
        });
    }
    let kv = values.read(&row.key, row.revision, row.hot.as_ref())?;
    let mut kv = kv.as_ref().clone();
    if request.keys_only {
        kv.value = Bytes::new();
    }
    Ok(kv)
}

/// etcd's order, with ties kept in key order both ways: a stable sort, and for DESCEND the comparison reversed, not
/// the result.
fn sort(request: &pb::RangeRequest, rows: &mut [Row]) {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let compare = |a: &Row, b: &Row| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
        SortTarget::Value => value(a).cmp(value(b)),
    };
    if request.sort_order == SortOrder::Descend as i32 {
        rows.sort_by(|a, b| compare(b, a));
    } else if target != SortTarget::Key {
        rows.sort_by(|a, b| -> Ordering { compare(a, b) });
    }
}

fn value(row: &Row) -> &[u8] {
    row.hot.as_ref().map_or(&[], |kv| kv.value.as_ref())
}

/// A header as the core fills it: the service adds who and when.
pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}
