//! Standing in line: waiting for those who came before, and leaving.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::mvccpb::event::EventType;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tracing::instrument::WithSubscriber as _;

use super::{Store, below, passed_on, revision};
use crate::keyspace::watch::{WatchError, WatchStream};
use crate::service::status::{owned, stopped};
use quorate_core::api::refusal::Refusal;

/// Callers that leave at once beyond this many leave their keys to their leases.
const LEAVERS_MAX: usize = 4096;

impl Store {
    /// Returns once no key below `prefix` that was made at `newest` or before is left. One key is watched at a time, the
    /// last of them: whoever goes wakes one waiter.
    pub(super) async fn wait_until_gone(&self, prefix: &Bytes, newest: i64) -> Result<(), Status> {
        let last = pb::RangeRequest {
            limit: 1,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            max_create_revision: newest,
            ..below(prefix)
        };
        loop {
            let found = self.range(last.clone()).await?;
            let Some(before) = found.kvs.first() else { return Ok(()) };
            let since = revision(found.header.as_ref());
            self.wait_until_deleted(before.key.clone(), since).await?;
        }
    }

    async fn wait_until_deleted(&self, key: Bytes, since: i64) -> Result<(), Status> {
        let mut watch = self.watch(key, Bytes::new(), since).await?;
        loop {
            let response = watch.next().await.map_err(watch_ended)?;
            if response.compact_revision != 0 {
                let compacted = owned(Refusal::Compacted.into());
                return Err(Status::new(Code::Unknown, compacted.message()));
            }
            if response.canceled {
                return Err(Status::unknown(response.cancel_reason));
            }
            if response.events.iter().any(|event| event.r#type() == EventType::Delete) {
                return Ok(());
            }
        }
    }

    /// A stream with one watcher, if the client may read there.
    pub(super) async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Result<WatchStream, Status> {
        let permitted = self.keyspace.require_watchable(&key, &range_end).await;
        permitted.map_err(|why| passed_on(&why))?;
        let create =
            pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
        let mut watch = self.keyspace.watch();
        let request_union = Some(RequestUnion::CreateRequest(create));
        watch.request(pb::WatchRequest { request_union });
        Ok(watch)
    }

    /// Deletes `key` if it is still the one that was made at `create_revision`.
    pub(super) async fn leave(
        &self,
        key: &Bytes,
        create_revision: i64,
    ) -> Result<pb::TxnResponse, Status> {
        let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
        let then = vec![Operation::RequestDeleteRange(delete)];
        self.if_created_at(key, create_revision, then, Vec::new()).await
    }
}

fn watch_ended(error: WatchError) -> Status {
    match error {
        WatchError::Closed => Status::new(Code::Unknown, stopped().message()),
        WatchError::Corrupt(_) => {
            Status::new(Code::Unknown, owned(Refusal::CorruptCluster.into()).message())
        }
    }
}

/// The tasks that delete the keys of callers that went away. They end by themselves, with the request timeout at the latest.
#[derive(Clone, Default)]
pub(super) struct Leavers(Arc<Mutex<JoinSet<()>>>);

/// A place in the line. Dropped while its caller still waits, it is given up.
pub(super) struct Place {
    store: Store,
    key: Bytes,
    create_revision: i64,
    kept: bool,
}

impl Place {
    pub(super) fn new(store: &Store, key: Bytes, create_revision: i64) -> Place {
        Place { store: store.clone(), key, create_revision, kept: false }
    }

    /// The key stays, whoever asked for it has been answered or has deleted it.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    /// Still there, and the same?
    pub(super) async fn check(&self) -> Result<Option<pb::RangeResponse>, Status> {
        let request = pb::RangeRequest { key: self.key.clone(), ..Default::default() };
        let found = self.store.range(request).await?;
        let same = found.kvs.first().is_some_and(|kv| kv.create_revision == self.create_revision);
        Ok(same.then_some(found))
    }

    /// Gives the place up before the caller hears why.
    pub(super) async fn give_up(self) {
        if let Err(why) = self.store.leave(&self.key, self.create_revision).await {
            tracing::debug!(error = why.message(), "a key was left to its lease");
        }
        self.keep();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut tasks = self.store.leavers.0.lock();
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= LEAVERS_MAX {
            tracing::warn!("too many callers went away at once: a key was left to its lease");
            return;
        }
        let (store, key, revision) = (self.store.clone(), self.key.clone(), self.create_revision);
        let leave = async move {
            if let Err(why) = store.leave(&key, revision).await {
                tracing::debug!(error = why.message(), "a key was left to its lease");
            }
        };
        tasks.spawn_on(leave.with_current_subscriber(), &runtime);
    }
}
