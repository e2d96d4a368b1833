//! RangeStream: a Range told in chunks, at one revision (etcd `server/etcdserver/v3_server.go`, `rangeStream`).
//!
//! ```text
//!   StreamWork::new(request)
//!        │  step(&machine, rows)    under the shared lock; None: it only counted, call again
//!        ▼
//!   StreamChunk ── show_rows(&request, &chunk.rows, &view) ──> kvs      no lock
//!        └─ end: on the last chunk only: header revision, more, count
//! ```

use std::sync::Arc;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::{Corrupt, Refusal};
use crate::api::view::View;

use super::super::StateMachine;
use super::pins::Pin;
use super::range::{Cursor, Row, show};
use super::values::Values;

/// Rows of a stream's first chunk.
pub const FIRST_CHUNK_ROWS: usize = 10;

/// A RangeStream on its way.
#[derive(Debug)]
pub struct StreamWork {
    request: pb::RangeRequest,
    next: Option<Cursor>,
    /// Rows of the last chunk, while what the limit left out is being counted.
    held: Vec<Row>,
    given: i64,
    count: i64,
}

/// A chunk to send.
#[derive(Debug)]
pub struct StreamChunk {
    /// Its rows, in key order; none for `count_only` or an empty range.
    pub rows: Vec<Row>,
    /// What the last chunk tells beside its rows; `None` on all others.
    pub end: Option<StreamEnd>,
    /// Keep it until the rows' values have been fetched.
    pub pin: Arc<Pin>,
}

/// What a stream ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The current revision when the stream started, for the header.
    pub revision: i64,
    /// The limit left something out.
    pub more: bool,
    /// Keys in the range.
    pub count: i64,
}

impl StreamWork {
    /// A request that [`super::super::check::check_range_stream`] has accepted.
    pub fn new(request: pb::RangeRequest) -> StreamWork {
        StreamWork {
            request,
            next: None,
            held: Vec::new(),
            given: 0,
            count: 0,
        }
    }

    /// The request, for [`show_rows`].
    pub fn request(&self) -> &pb::RangeRequest {
        &self.request
    }

    /// Picks the next chunk, of at most `max_rows` rows. `None`: it counted keys that no chunk shows, and is not
    /// done. Not to be called after the last chunk.
    pub fn step(
        &mut self,
        machine: &StateMachine,
        max_rows: usize,
    ) -> Result<Option<StreamChunk>, Refusal> {
        let limit = match self.request.limit {
            _ if self.request.count_only => 0,
            limit if limit > 0 => limit,
            _ => i64::MAX,
        };
        let slice = machine.slice(&self.request, self.next.as_ref(), max_rows, limit)?;
        self.count += slice.count;
        self.given += slice.rows.len() as i64;
        self.held.extend(slice.rows);
        self.next = slice.next;
        let end = self.next.is_none().then_some(StreamEnd {
            revision: slice.revision,
            more: self.count > self.given && !self.request.count_only,
            count: self.count,
        });
        if end.is_none() && (slice.rows_done || self.held.is_empty()) {
            return Ok(None);
        }
        Ok(Some(StreamChunk {
            rows: std::mem::take(&mut self.held),
            end,
            pin: slice.pin,
        }))
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

/// Rows of the next chunk, after one of `last_rows` rows and `last_bytes` bytes: twice as many when it stayed under
/// half of `target_bytes`, half as many when it went over its double. etcd's target is `--max-request-bytes`.
pub fn next_chunk_rows(last_rows: usize, last_bytes: usize, target_bytes: usize) -> usize {
    let rows = if last_bytes < target_bytes / 2 {
        last_rows.saturating_mul(2)
    } else if last_bytes > target_bytes.saturating_mul(2) {
        last_rows / 2
    } else {
        last_rows
    };
    rows.max(1)
}

#[cfg(test)]
mod tests {
    use super::next_chunk_rows;

    #[test]
    fn chunks_grow_while_small_and_shrink_when_large() {
        assert_eq!(next_chunk_rows(10, 49, 100), 20);
        assert_eq!(next_chunk_rows(10, 50, 100), 10);
        assert_eq!(next_chunk_rows(10, 200, 100), 10);
        assert_eq!(next_chunk_rows(10, 201, 100), 5);
        assert_eq!(next_chunk_rows(1, 201, 100), 1);
    }
}
