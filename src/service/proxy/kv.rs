//! Ranges, puts, deletes, transactions and compactions, on their way to the members and back (etcd
//! `server/proxy/grpcproxy/kv.go`).
//!
//! ```text
//!   Range, serializable ── cache? ── yes: answered here
//!                                └── no: a member, and kept        other Range ── a member, and kept
//!   Put, DeleteRange, Txn ── forget ── a member ── forget
//! ```
//!
//! **Invariant:** a linearizable range is answered by a member, each time.

use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use quorate_core::api::pb::etcdserverpb::request_op::Request;
use quorate_core::api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use quorate_core::api::refusal::Refusal;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::cache::{Cache, Known};
use super::caller::Caller;
use super::figures::Figures;
use super::namespace::Namespace;
use crate::service::status::{no_message, owned};
use crate::service::upstream::paths::{COMPACT, DELETE, PUT, RANGE, TXN};
use crate::service::upstream::{Repeat, Upstream};

/// A member that is behind is asked again at most so often before the whole cluster is asked.
const ORDER_TRIES: usize = 5;

/// The KV service of a proxy.
pub(super) struct Kv {
    upstream: Upstream,
    names: Namespace,
    cache: Cache,
    figures: Figures,
    /// Serializable reads must not go back (`--experimental-serializable-ordering`).
    ordered: bool,
    told: Mutex<Told>,
}

/// What members have said.
#[derive(Default)]
struct Told {
    /// Whose members they are; 0 for nobody's yet.
    cluster: u64,
    /// The newest revision.
    revision: i64,
}

pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|_| no_message())
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

impl Kv {
    pub(super) fn new(upstream: Upstream, names: Namespace, figures: Figures, ordered: bool) -> Kv {
        let (cache, told) = (Cache::default(), Mutex::default());
        Kv { upstream, names, cache, figures, ordered, told }
    }

    /// Answers one call of the service.
    pub(super) async fn call(
        &self,
        path: &PathAndQuery,
        metadata: &MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let answered = match path.as_str() {
            RANGE => {
                let request = decode(message)?;
                self.range(metadata, request).await.map(|response| encode(&response))
            }
            PUT => self.put(metadata, message).await,
            DELETE => self.delete(metadata, message).await,
            TXN => self.txn(metadata, message).await,
            COMPACT => self.compact(metadata, message).await,
            _ => self.upstream.unary(path, metadata, message, Repeat::Never).await,
        };
        self.figures.cache_keys.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
        answered
    }

    async fn ask(
        &self,
        path: &'static str,
        metadata: &MetadataMap,
        message: Bytes,
        repeat: Repeat,
    ) -> Result<Bytes, Status> {
        self.upstream.unary(&PathAndQuery::from_static(path), metadata, message, repeat).await
    }

    /// A range, as clients ask for it.
    pub(super) async fn range(
        &self,
        metadata: &MetadataMap,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        let caller = Caller::of(metadata);
        if request.serializable {
            match self.cache.get(&caller, &request) {
                Known::Answer(response) if self.is_in_order(response.header.as_ref()) => {
                    self.figures.cache_hits.inc();
                    return Ok(response);
                }
                Known::Compacted => {
                    self.figures.cache_hits.inc();
                    return Err(owned(Refusal::Compacted.into()));
                }
                Known::Answer(_) | Known::Nothing => self.figures.cache_misses.inc(),
            }
        }
        let began = self.cache.begin();
        let (response, bytes) = self.range_of_members(metadata, request.clone()).await?;
        self.cache.add(began, &caller, &request, &response, bytes);
        Ok(response)
    }

    /// The answer of a member, and how long it is.
    async fn range_of_members(
        &self,
        metadata: &MetadataMap,
        mut request: RangeRequest,
    ) -> Result<(RangeResponse, usize), Status> {
        self.check_key(&request.key)?;
        self.names.enter(&mut request.key, &mut request.range_end);
        let mut tries = ORDER_TRIES;
        loop {
            let message = encode(&request);
            let answer = self.ask(RANGE, metadata, message, Repeat::Freely).await?;
            let bytes = answer.len();
            let mut response: RangeResponse = decode(answer)?;
            self.recognize(response.header.as_ref());
            if request.serializable && !self.is_in_order(response.header.as_ref()) {
                tries -= 1;
                // All members together know what any of them has told.
                request.serializable = tries > 0;
                continue;
            }
            self.note(response.header.as_ref());
            self.names.leave_range(&mut response);
            return Ok((response, bytes));
        }
    }

    fn is_in_order(&self, header: Option<&ResponseHeader>) -> bool {
        !self.ordered || header.is_some_and(|header| header.revision >= self.told.lock().revision)
    }

    /// What was known of a cluster is of no use with another one, restored behind the same addresses.
    fn recognize(&self, header: Option<&ResponseHeader>) {
        let Some(header) = header else { return };
        let told = &mut *self.told.lock();
        if told.cluster == header.cluster_id {
            return;
        }
        if told.cluster != 0 {
            self.cache.clear();
        }
        *told = Told { cluster: header.cluster_id, revision: 0 };
    }

    fn note(&self, header: Option<&ResponseHeader>) {
        self.recognize(header);
        if let Some(header) = header {
            let told = &mut *self.told.lock();
            told.revision = told.revision.max(header.revision);
        }
    }

    /// Below a prefix, no key would be one.
    fn check_key(&self, key: &[u8]) -> Result<(), Status> {
        let no_key = !self.names.is_empty() && key.is_empty();
        if no_key { Err(owned(Refusal::EmptyKey.into())) } else { Ok(()) }
    }

    async fn put(&self, metadata: &MetadataMap, message: Bytes) -> Result<Bytes, Status> {
        let mut request: PutRequest = decode(message.clone())?;
        self.check_key(&request.key)?;
        let touched = [(request.key.clone(), Bytes::new())];
        let mut no_end = Bytes::new();
        self.names.enter(&mut request.key, &mut no_end);
        let message = if self.names.is_empty() { message } else { encode(&request) };
        let answer = self.write(PUT, metadata, message, &touched).await?;
        let mut response: PutResponse = decode(answer.clone())?;
        self.note(response.header.as_ref());
        if self.names.is_empty() {
            return Ok(answer);
        }
        self.names.leave_put(&mut response);
        Ok(encode(&response))
    }

    async fn delete(&self, metadata: &MetadataMap, message: Bytes) -> Result<Bytes, Status> {
        let mut request: DeleteRangeRequest = decode(message)?;
        self.check_key(&request.key)?;
        let touched = [(request.key.clone(), request.range_end.clone())];
        self.names.enter(&mut request.key, &mut request.range_end);
        let answer = self.write(DELETE, metadata, encode(&request), &touched).await?;
        let mut response: DeleteRangeResponse = decode(answer)?;
        self.note(response.header.as_ref());
        self.names.leave_delete(&mut response);
        Ok(encode(&response))
    }

    async fn txn(&self, metadata: &MetadataMap, message: Bytes) -> Result<Bytes, Status> {
        let mut request: TxnRequest = decode(message)?;
        let answer = self.txn_of_members(metadata, &mut request).await?;
        let mut response: TxnResponse = decode(answer)?;
        self.note(response.header.as_ref());
        self.names.leave_txn(&mut response);
        Ok(encode(&response))
    }

    async fn txn_of_members(
        &self,
        metadata: &MetadataMap,
        request: &mut TxnRequest,
    ) -> Result<Bytes, Status> {
        let mut touched = Vec::new();
        collect_writes(request, &mut touched);
        self.names.enter_txn(request);
        let message = encode(request);
        if touched.is_empty() {
            return self.ask(TXN, metadata, message, Repeat::Freely).await;
        }
        self.write(TXN, metadata, message, &touched).await
    }

    /// Before the write: nobody is told any more what it replaces. After it: nothing that was read meanwhile is kept.
    async fn write(
        &self,
        path: &'static str,
        metadata: &MetadataMap,
        message: Bytes,
        touched: &[(Bytes, Bytes)],
    ) -> Result<Bytes, Status> {
        self.cache.forget(touched);
        let _forgets = Forgets { cache: &self.cache, touched };
        self.ask(path, metadata, message, Repeat::Never).await
    }

    async fn compact(&self, metadata: &MetadataMap, message: Bytes) -> Result<Bytes, Status> {
        let request: CompactionRequest = decode(message.clone())?;
        let answer = self.ask(COMPACT, metadata, message, Repeat::Never).await?;
        self.cache.compact(request.revision);
        Ok(answer)
    }

    /// Puts a key of the proxy's own, below the namespace as clients' keys are.
    pub(super) async fn put_own(&self, request: PutRequest) -> Result<(), Status> {
        self.put(&MetadataMap::new(), encode(&request)).await.map(drop)
    }
}

/// Forgets what a write touched when that ends, be it that its client gave it up.
struct Forgets<'a> {
    cache: &'a Cache,
    touched: &'a [(Bytes, Bytes)],
}

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.cache.forget(self.touched);
    }
}

/// Every range that a transaction may write to, whichever way it goes.
fn collect_writes(request: &TxnRequest, into: &mut Vec<(Bytes, Bytes)>) {
    for RequestOp { request } in request.success.iter().chain(&request.failure) {
        match request {
            Some(Request::RequestPut(put)) => into.push((put.key.clone(), Bytes::new())),
            Some(Request::RequestDeleteRange(delete)) => {
                into.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(Request::RequestTxn(txn)) => collect_writes(txn, into),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use futures::FutureExt as _;

    use super::*;
    use crate::service::upstream::UpstreamSettings;
    use crate::service::upstream::fake::{Fake, mute};
    use crate::support::metrics::Metrics;

    fn kv(endpoint: &str, ordered: bool) -> Kv {
        let upstream = Upstream::new(UpstreamSettings::default(), &[endpoint.to_owned()]);
        let figures = Figures::new(&Metrics::default());
        Kv::new(upstream.unwrap(), Namespace::default(), figures, ordered)
    }

    fn serializable(key: &'static str, revision: i64) -> RangeRequest {
        RangeRequest { key: key.into(), serializable: true, revision, ..RangeRequest::default() }
    }

    #[tokio::test]
    async fn a_write_that_its_client_gave_up_forgets_as_one_that_was_answered() {
        let (mute, _listener) = mute();
        let kv = kv(&mute, false);
        let metadata = MetadataMap::new();
        let put = encode(&PutRequest { key: "a".into(), ..PutRequest::default() });
        let mut write = Box::pin(kv.put(&metadata, put));
        assert!(write.as_mut().now_or_never().is_none());
        let began = kv.cache.begin();
        drop(write);
        let caller = Caller::default();
        kv.cache.add(began, &caller, &serializable("a", 0), &RangeResponse::default(), 1);
        assert_eq!(kv.cache.get(&caller, &serializable("a", 0)), Known::Nothing);
    }

    #[tokio::test]
    async fn another_cluster_behind_the_same_address_begins_anew() {
        let revision = Arc::new(AtomicI64::new(100));
        let newest = Arc::clone(&revision);
        let member = Fake::start(move |_| {
            let revision = newest.load(Ordering::Relaxed);
            let cluster_id = if revision == 100 { 7 } else { 8 };
            let header = ResponseHeader { cluster_id, revision, ..ResponseHeader::default() };
            Ok(encode(&RangeResponse { header: Some(header), ..RangeResponse::default() }))
        });
        let member = member.await;
        let kv = kv(&member.address, true);
        let none = MetadataMap::new();
        kv.range(&none, serializable("a", 0)).await.unwrap();
        let compaction = CompactionRequest { revision: 50, ..CompactionRequest::default() };
        kv.compact(&none, encode(&compaction)).await.unwrap();
        assert!(kv.range(&none, serializable("a", 3)).await.is_err());
        assert_eq!(member.asked().len(), 2);
        revision.store(5, Ordering::Relaxed);
        kv.range(&none, serializable("b", 0)).await.unwrap();
        kv.range(&none, serializable("a", 3)).await.unwrap();
        kv.range(&none, serializable("a", 0)).await.unwrap();
        assert_eq!(member.asked().len(), 3, "each is asked for once");
    }
}
