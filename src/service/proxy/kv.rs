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
use super::figures::Figures;
use super::namespace::Namespace;
use super::upstream::{Caller, Repeat, Upstream};
use crate::service::status::{no_message, owned};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// A member that is behind is asked again at most so often before the whole cluster is asked.
const ORDER_TRIES: usize = 5;

/// The KV service of a proxy.
pub(super) struct Kv {
    upstream: Upstream,
    names: Namespace,
    cache: Cache,
    figures: Figures,
    /// The newest revision that was told, where serializable reads must not go back
    /// (`--experimental-serializable-ordering`).
    told: Option<Mutex<i64>>,
}

pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|_| no_message())
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

impl Kv {
    pub(super) fn new(upstream: Upstream, names: Namespace, figures: Figures, ordered: bool) -> Kv {
        let told = ordered.then(Mutex::default);
        Kv { upstream, names, cache: Cache::default(), figures, told }
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
        let Some(told) = &self.told else { return true };
        header.is_some_and(|header| header.revision >= *told.lock())
    }

    fn note(&self, header: Option<&ResponseHeader>) {
        if let (Some(told), Some(header)) = (&self.told, header) {
            let mut told = told.lock();
            *told = header.revision.max(*told);
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
        let answer = self.ask(path, metadata, message, Repeat::Never).await;
        self.cache.forget(touched);
        answer
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
