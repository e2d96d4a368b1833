//! `Observe`: the leader of an election, and each change of its value or of who leads.
//!
//! ```text
//!   oldest key? ── none: watch the prefix for the first put ──┐
//!        └──────────── one ───────────────────────────────────┴─> told ── watch that key ── puts: told
//!        ^──────────────────────────────────────────────────────────────── deleted ──┘
//! ```
//!
//! What was put while nobody looked may be missed; the latest value never is. Whatever fails ends the stream without an
//! error, as in etcd: the caller asks again.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::Stream;
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchResponse};
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::pb::mvccpb::event::EventType;
use quorate_core::api::pb::v3electionpb::LeaderResponse;
use tonic::Status;

use super::{Store, below, oldest, revision};
use crate::keyspace::watch::WatchStream;

/// One caller's view of an election.
pub(super) struct Observer {
    store: Store,
    prefix: Bytes,
    /// On the leader's key, once there is one.
    watch: Option<WatchStream>,
    waiting: VecDeque<LeaderResponse>,
}

impl Observer {
    pub(super) fn new(store: Store, prefix: Bytes) -> Self {
        Observer { store, prefix, watch: None, waiting: VecDeque::new() }
    }

    pub(super) fn leaders(self) -> impl Stream<Item = Result<LeaderResponse, Status>> + Send {
        futures::stream::unfold(self, |mut this| async move {
            let told = this.next().await?;
            Some((Ok(told), this))
        })
    }

    async fn next(&mut self) -> Option<LeaderResponse> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Some(told);
            }
            let Some(watch) = &mut self.watch else { return self.find().await };
            let response = watch.next().await.ok()?;
            if response.canceled {
                return None;
            }
            self.take(response);
        }
    }

    /// Queues the puts of one response; a delete sends us back to look who leads now.
    fn take(&mut self, response: WatchResponse) {
        let header = self.complete(response.header);
        for event in response.events {
            if event.r#type() == EventType::Delete {
                self.watch = None;
                return;
            }
            self.waiting.push_back(LeaderResponse { header, kv: event.kv });
        }
    }

    async fn find(&mut self) -> Option<LeaderResponse> {
        let found = self.store.range(oldest(&self.prefix)).await.ok()?;
        let (header, kv) = match found.kvs.into_iter().next() {
            Some(kv) => (found.header, kv),
            None => self.first_put(revision(found.header.as_ref())).await?,
        };
        let since = revision(header.as_ref()) + 1;
        self.watch = Some(self.store.watch(kv.key.clone(), Bytes::new(), since).await.ok()?);
        Some(LeaderResponse { header, kv: Some(kv) })
    }

    /// The first put below the prefix from `since` on, with a header of its revision.
    async fn first_put(&mut self, since: i64) -> Option<(Option<ResponseHeader>, KeyValue)> {
        let range = below(&self.prefix);
        let mut watch = self.store.watch(range.key, range.range_end, since).await.ok()?;
        loop {
            let response = watch.next().await.ok()?;
            if response.canceled {
                return None;
            }
            let header = self.complete(response.header);
            let put = response.events.into_iter().find(|e| e.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                let revision = kv.mod_revision;
                return Some((header.map(|header| ResponseHeader { revision, ..header }), kv));
            }
        }
    }

    /// Who and when: watches fill the revision alone.
    fn complete(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        let revision = revision(header.as_ref());
        Some(ResponseHeader { revision, ..self.store.keyspace.header() })
    }
}
