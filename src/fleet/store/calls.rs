//! What a store is written over: etcd's calls, by whatever way they reach a keyspace.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use quorate_core::api::pb::etcdserverpb as pb;

use super::error::StoreError;

/// The responses of one watcher, the one that says `created` first. Dropped, it is cancelled.
pub type WatchResponses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, StoreError>> + Send>>;

/// etcd's calls. Each is answered once; a call that is dropped may or may not have taken effect. Each ends by itself
/// within some seconds, with [`StoreError::Unavailable`] if nobody could answer.
#[async_trait]
pub trait Calls: Debug + Send + Sync + 'static {
    /// Range.
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError>;

    /// Put.
    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, StoreError>;

    /// DeleteRange.
    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, StoreError>;

    /// Txn.
    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError>;

    /// LeaseGrant, under an id that is drawn for it.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<pb::LeaseGrantResponse, StoreError>;

    /// One keep-alive: the TTL in seconds from some moment after the call on; 0 for a lease that is gone.
    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, StoreError>;

    /// LeaseRevoke: [`StoreError::LeaseGone`] if there is none.
    async fn lease_revoke(&self, lease: i64) -> Result<(), StoreError>;

    /// One watcher, made when its first response comes.
    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchResponses, StoreError>;
}

/// Where the keys that begin with `prefix` end; `\0`, all that follow, if there is no such key.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Everything below `prefix`.
pub(super) fn below(prefix: &[u8]) -> pb::RangeRequest {
    // etcd's way to say "from the first key on".
    let key = if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix.to_vec().into() };
    pb::RangeRequest { key, range_end: end_of(prefix), ..Default::default() }
}

/// `key` alone.
pub(super) fn one(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key, ..Default::default() }
}

/// The revision that a header tells.
pub(super) fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(end_of(b"a/"), "a0");
        assert_eq!(end_of(b"a\xff"), "b");
        assert_eq!(end_of(b"\xff\xff"), "\0");
        let all = below(b"");
        assert_eq!((&all.key[..], &all.range_end[..]), (&b"\0"[..], &b"\0"[..]));
    }
}
