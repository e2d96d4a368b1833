//! RangeStream: one range in chunks that adapt to the size of what they carry (etcd 3.7
//! `server/etcdserver/v3_server.go`, `rangeStream`).
//!
//! Every chunk has `kvs`; header, `more` and `count` come with the last. The revision is pinned by the first slice,
//! and with it what compaction keeps, however slowly the client takes the chunks.

use std::sync::Arc;

use futures::stream;
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::state_machine::{Cursor, Row, show_rows};

use crate::keyspace::RangeChunks;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::state::State;
use crate::storage::StoreView;
use crate::support::failpoints::failpoint;

/// Keys in the first chunk.
const FIRST_CHUNK_KEYS: usize = 10;
/// Keys looked at under the machine's lock at once, counting what a limit left out.
const SLICE_ROWS: usize = 1024;

/// A stream under way.
pub(super) struct Chunks {
    state: Arc<State>,
    request: pb::RangeRequest,
    cursor: Option<Cursor>,
    /// Keys still allowed by the limit.
    left: usize,
    /// Keys in the next chunk.
    keys: usize,
    /// A chunk should come near this many bytes.
    target_bytes: usize,
    count: i64,
    revision: i64,
    done: bool,
}

/// The one message of a stream that only counts.
pub(super) fn counted(response: pb::RangeResponse) -> RangeChunks {
    let message = pb::RangeResponse {
        header: response.header,
        count: response.count,
        ..pb::RangeResponse::default()
    };
    Box::pin(stream::iter([Ok(wrap(message))]))
}

/// A response in chunks of about so many bytes.
pub(super) fn cut(mut response: pb::RangeResponse, target_bytes: usize) -> RangeChunks {
    let mut chunks = Vec::new();
    let (mut kvs, mut bytes) = (Vec::new(), 0);
    for kv in std::mem::take(&mut response.kvs) {
        let more = kv.encoded_len();
        if bytes > 0 && bytes + more > target_bytes {
            let kvs = std::mem::take(&mut kvs);
            chunks.push(Ok(wrap(pb::RangeResponse { kvs, ..pb::RangeResponse::default() })));
            bytes = 0;
        }
        bytes += more;
        kvs.push(kv);
    }
    chunks.push(Ok(wrap(pb::RangeResponse { kvs, ..response })));
    Box::pin(stream::iter(chunks))
}

fn wrap(response: pb::RangeResponse) -> pb::RangeStreamResponse {
    pb::RangeStreamResponse { range_response: Some(response) }
}

impl Chunks {
    pub(super) fn new(
        state: Arc<State>,
        mut request: pb::RangeRequest,
        target_bytes: usize,
    ) -> Self {
        let left = match usize::try_from(request.limit) {
            Ok(limit) if limit > 0 => limit,
            Ok(_) | Err(_) => usize::MAX,
        };
        // As in etcd, where a negative limit is the first chunk's too, and bounds nothing.
        let keys = if request.limit < 0 { usize::MAX } else { FIRST_CHUNK_KEYS };
        // The limit is kept here; the index is asked for rows a chunk at a time.
        request.limit = 0;
        Chunks {
            state,
            request,
            cursor: None,
            left,
            keys,
            target_bytes,
            count: 0,
            revision: 0,
            done: false,
        }
    }

    /// Makes the first chunk at once, so that a refusal answers the call and not the stream.
    pub(super) async fn into_stream(mut self) -> Result<RangeChunks, KeyspaceError> {
        let first = self.next().await?;
        let rest = stream::unfold(self, |mut chunks| async move {
            if chunks.done {
                return None;
            }
            failpoint!(wait beforeRangeStreamChunk);
            let chunk = chunks.next().await;
            chunks.done |= chunk.is_err();
            Some((chunk, chunks))
        });
        let first = stream::iter([Ok(first)]);
        Ok(Box::pin(futures::StreamExt::chain(first, rest)))
    }

    async fn next(&mut self) -> Result<pb::RangeStreamResponse, KeyspaceError> {
        let (rows, view) = self.pick().await?;
        let given = rows.len();
        let mut response =
            pb::RangeResponse { kvs: self.show(rows, view).await?, ..pb::RangeResponse::default() };
        self.left -= given;
        self.done = self.cursor.is_none() || self.left == 0;
        if self.done {
            let remaining = self.count_rest().await?;
            response.more = remaining > 0;
            response.count = self.count + remaining;
            response.header = Some(pb::ResponseHeader {
                revision: self.revision,
                ..pb::ResponseHeader::default()
            });
        }
        self.adapt(response.encoded_len());
        Ok(wrap(response))
    }

    /// The rows of one chunk, as many as wanted unless the range ends, and the view that has their values: that of
    /// the last slice, which saw that the stream's revision is not compacted there.
    async fn pick(&mut self) -> Result<(Vec<Row>, StoreView), KeyspaceError> {
        let wanted = self.keys.min(self.left);
        let mut rows = Vec::new();
        loop {
            let (slice, view) = {
                let now = self.state.machine.read();
                let some = (wanted - rows.len()).min(SLICE_ROWS);
                (now.select(&self.request, self.cursor.as_ref(), some)?, now.view())
            };
            self.revision = slice.revision;
            self.count += slice.count;
            self.cursor = slice.next;
            rows.extend(slice.rows);
            if rows.len() >= wanted || self.cursor.is_none() {
                return Ok((rows, view));
            }
            tokio::task::yield_now().await;
        }
    }

    async fn show(
        &self,
        rows: Vec<Row>,
        view: StoreView,
    ) -> Result<Vec<quorate_core::api::pb::mvccpb::KeyValue>, KeyspaceError> {
        if rows.iter().all(|row| row.hot.is_some()) || self.request.keys_only {
            return Ok(show_rows(&self.request, &rows, &view)?);
        }
        let request = self.request.clone();
        let read = move || show_rows(&request, &rows, &view);
        Ok(self.state.blocking.run(read).await?)
    }

    /// Keys after the last chunk that the limit left out.
    async fn count_rest(&mut self) -> Result<i64, KeyspaceError> {
        self.request.count_only = true;
        let mut remaining = 0;
        while let Some(cursor) = self.cursor.take() {
            let slice = {
                let machine = self.state.machine.read();
                machine.select(&self.request, Some(&cursor), SLICE_ROWS)?
            };
            remaining += slice.count;
            self.cursor = slice.next;
            tokio::task::yield_now().await;
        }
        Ok(remaining)
    }

    fn adapt(&mut self, bytes: usize) {
        if bytes < self.target_bytes / 2 {
            self.keys = self.keys.saturating_mul(2);
        } else if bytes > self.target_bytes.saturating_mul(2) {
            self.keys = (self.keys / 2).max(1);
        }
    }
}
