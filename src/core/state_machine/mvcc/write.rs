//! One write transaction: all its changes share one main revision and are ordered by sub.
//!
//! **Invariant:** whoever calls [`WriteTxn::put`] or [`WriteTxn::delete_range`] has checked the request; from the
//! first change on nothing can be refused.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::api::batch::RevisionRecord;
use crate::api::ids::{LeaseId, Revision};
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::Corrupt;
use crate::api::view::View;

use super::super::changes::Changes;
use super::super::lease::LeaseBook;
use super::Mvcc;
use super::index::Live;
use super::range::header;
use super::span::Span;
use super::values::Values;

/// A transaction under way. [`WriteTxn::end`] makes its revision the current one.
pub(crate) struct WriteTxn<'a, V> {
    pub(crate) mvcc: &'a mut Mvcc,
    pub(crate) leases: &'a mut LeaseBook,
    pub(crate) changes: &'a mut Changes,
    pub(crate) view: &'a V,
    /// Changes made so far: the next one's sub.
    sub: i64,
}

impl<'a, V: View> WriteTxn<'a, V> {
    pub(crate) fn begin(
        mvcc: &'a mut Mvcc,
        leases: &'a mut LeaseBook,
        changes: &'a mut Changes,
        view: &'a V,
    ) -> Self {
        WriteTxn { mvcc, leases, changes, view, sub: 0 }
    }

    /// The main revision that its changes get.
    fn target(&self) -> i64 {
        self.mvcc.revision + 1
    }

    /// The revision its reads see: its own changes included.
    pub(crate) fn now(&self) -> i64 {
        self.mvcc.revision + i64::from(self.sub > 0)
    }

    /// The value of a live key as this transaction sees it.
    pub(crate) fn value(&self, key: &[u8], live: &Live) -> Result<Arc<KeyValue>, Corrupt> {
        Values::applying(self.view, &self.changes.revisions).read(
            key,
            live.at.revision,
            live.hot.as_ref(),
        )
    }

    /// Ends it; says the revision that stands now.
    pub(crate) fn end(self) -> i64 {
        self.mvcc.revision = self.now();
        self.mvcc.revision
    }

    /// Writes one key (etcd `server/etcdserver/txn/put.go`).
    pub(crate) fn put(&mut self, put: &pb::PutRequest) -> Result<pb::PutResponse, Corrupt> {
        let prior = self.mvcc.index.newest(&put.key);
        let mut prev_kv = None;
        let mut value = put.value.clone();
        let mut lease = put.lease;
        if let Some(live) = &prior {
            if put.ignore_lease {
                lease = live.lease;
            }
            if put.ignore_value || put.prev_kv {
                let kv = self.value(&put.key, live)?;
                if put.ignore_value {
                    value = kv.value.clone();
                }
                prev_kv = put.prev_kv.then(|| kv.as_ref().clone());
            }
        }
        self.write(&put.key, &value, lease, prior);
        Ok(pb::PutResponse { header: header(self.now()), prev_kv })
    }

    fn write(&mut self, key: &Bytes, value: &Bytes, lease: i64, prior: Option<Live>) {
        let revision = Revision::new(self.target(), self.sub);
        let (create_revision, version) = prior
            .as_ref()
            .map_or((revision.main, 1), |live| (live.at.create_revision, live.at.version + 1));
        let (key, value) = compact_copy(key, value);
        let kv = Arc::new(KeyValue {
            key,
            create_revision,
            mod_revision: revision.main,
            version,
            value,
            lease,
        });
        let old_lease = prior.as_ref().map_or(0, |live| live.lease);
        // Created in this transaction, if again: etcd's create events have no prev_kv.
        let is_create = create_revision == revision.main;
        let prev = if is_create { None } else { self.before(&kv.key, prior) };
        self.mvcc.index.put(revision, &kv);
        if old_lease != lease {
            self.leases.detach(LeaseId(old_lease), &kv.key);
            self.leases.attach(LeaseId(lease), &kv.key);
        }
        self.record(revision, false, kv, prev);
    }

    /// Where the key stood before this transaction: what etcd reads as `prev_kv` of an event
    /// (`server/etcdserver/api/v3rpc/watch.go`).
    fn before(&self, key: &[u8], prior: Option<Live>) -> Option<Revision> {
        if self.sub == 0 {
            return prior.map(|live| live.at.revision);
        }
        let before = self.mvcc.index.get(key, self.mvcc.revision)?;
        Some(before.revision)
    }

    fn record(
        &mut self,
        revision: Revision,
        tombstone: bool,
        kv: Arc<KeyValue>,
        prev: Option<Revision>,
    ) {
        self.changes.revision(RevisionRecord { revision, tombstone, kv, prev });
        self.sub += 1;
    }

    /// Deletes keys (etcd `server/etcdserver/txn/delete.go`); none is no change and no new revision.
    pub(crate) fn delete_range(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Corrupt> {
        let span = Span::new(&request.key, &request.range_end);
        let mut keys: Vec<Bytes> = Vec::new();
        self.mvcc.index.visit(&span, None, |key, index| {
            if index.is_alive() {
                keys.push(Bytes::copy_from_slice(key));
            }
            ControlFlow::Continue(())
        });
        let mut prev_kvs = Vec::new();
        if request.prev_kv {
            for key in &keys {
                let live = self.mvcc.index.newest(key).expect("found alive just now");
                prev_kvs.push(self.value(key, &live)?.as_ref().clone());
            }
        }
        let deleted = keys.len() as i64;
        for key in keys {
            self.delete(key);
        }
        Ok(pb::DeleteRangeResponse { header: header(self.now()), deleted, prev_kvs })
    }

    /// Deletes one key if it is alive.
    pub(crate) fn delete(&mut self, key: Bytes) {
        let Some(live) = self.mvcc.index.newest(&key) else {
            return;
        };
        let revision = Revision::new(self.target(), self.sub);
        self.leases.detach(LeaseId(live.lease), &key);
        let prev = self.before(&key, Some(live));
        self.mvcc.index.tombstone(&key, revision);
        let kv = Arc::new(KeyValue { key, mod_revision: revision.main, ..KeyValue::default() });
        self.record(revision, true, kv, prev);
    }
}

/// Key and value in one allocation of their own: a slice of the request would keep the whole log entry in memory
/// for as long as one value of it is hot.
fn compact_copy(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut both = BytesMut::with_capacity(key.len() + value.len());
    both.extend_from_slice(key);
    both.extend_from_slice(value);
    let value = both.split_off(key.len()).freeze();
    (both.freeze(), value)
}
