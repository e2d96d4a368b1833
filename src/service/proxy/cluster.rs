//! Who serves: to clients the proxy answers for the cluster, with itself or with all proxies that registered under one
//! prefix (etcd `server/proxy/grpcproxy/{cluster,register}.go`).
//!
//! ```text
//!   --resolver-prefix ── register: lease, prefix/address = {Op, Addr, Metadata} ── kept alive, else anew
//!                    └── follow: what stands below the prefix ──> MemberList
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, Member, MemberListRequest, MemberListResponse, PutRequest, RangeRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use quorate_core::api::pb::mvccpb::event::EventType;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::caller::Caller;
use super::kv::{Kv, decode};
use super::namespace::Namespace;
use crate::service::upstream::paths::{KEEP_ALIVE, LEASE_GRANT, LEASE_REVOKE, MEMBER_LIST, WATCH};
use crate::service::upstream::{Broken, Repeat, Upstream};

/// Between two attempts to register, or to follow (etcd's `registerRetryRate` and `resolveRetryRate`).
const REST: Duration = Duration::from_secs(1);

/// Where a proxy stands among others.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    /// `--resolver-prefix`.
    pub prefix: String,
    /// `--resolver-ttl`.
    pub ttl_s: i64,
}

/// What the proxy tells of the cluster.
pub(super) struct Cluster {
    upstream: Upstream,
    kv: Arc<Kv>,
    names: Namespace,
    /// `--advertise-client-url`; empty if members answer for themselves.
    advertised: String,
    hostname: String,
    resolver: Option<Resolver>,
    registered: RwLock<BTreeMap<Bytes, Registered>>,
}

/// What stands below the prefix (etcd `client/v3/naming/endpoints/internal/update.go`).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Registered {
    op: u8,
    addr: String,
    metadata: serde_json::Value,
}

/// What [`Registered::metadata`] holds, as text.
#[derive(Debug, Deserialize, Serialize)]
struct Meta {
    #[serde(default)]
    name: String,
}

impl Cluster {
    pub(super) fn new(
        upstream: Upstream,
        kv: Arc<Kv>,
        names: Namespace,
        advertised: String,
        resolver: Option<Resolver>,
    ) -> Cluster {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.trim_end().to_owned();
        let registered = RwLock::default();
        Cluster { upstream, kv, names, advertised, hostname, resolver, registered }
    }

    /// The members, as clients are to reach them.
    pub(super) async fn members(
        &self,
        metadata: &MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        if self.advertised.is_empty() {
            let path = PathAndQuery::from_static(MEMBER_LIST);
            return self.upstream.unary(&path, metadata, message, Repeat::Freely).await;
        }
        let mut members = self.proxies()?;
        if members.is_empty() {
            members.push(member(&self.hostname, &self.advertised));
        }
        Ok(MemberListResponse { header: None, members }.encode_to_vec().into())
    }

    fn proxies(&self) -> Result<Vec<Member>, Status> {
        let registered = self.registered.read();
        let proxy = |registered: &Registered| {
            let text = registered.metadata.as_str().unwrap_or_default();
            let meta: Meta =
                serde_json::from_str(text).map_err(|why| Status::unknown(why.to_string()))?;
            Ok(member(&meta.name, &registered.addr))
        };
        registered.values().map(proxy).collect()
    }

    /// Registers this proxy, and registers it again whenever its lease is lost. Does not return.
    pub(super) async fn register(&self) {
        let Some(resolver) = &self.resolver else { return std::future::pending().await };
        loop {
            match self.register_once(resolver).await {
                Ok(()) => {
                    tracing::warn!("session expired; possible network partition or server restart");
                    tracing::warn!("creating a new session to rejoin");
                }
                Err(why) => {
                    tracing::warn!(error = why.message(), "failed to create a session");
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Returns once the registration is lost.
    async fn register_once(&self, resolver: &Resolver) -> Result<(), Status> {
        let none = MetadataMap::new();
        let grant = LeaseGrantRequest { ttl: resolver.ttl_s, id: 0 }.encode_to_vec().into();
        let path = PathAndQuery::from_static(LEASE_GRANT);
        let granted = self.upstream.unary(&path, &none, grant, Repeat::Never).await?;
        let granted: LeaseGrantResponse = decode(granted)?;
        let meta = serde_json::to_string(&Meta { name: self.hostname.clone() });
        let registered = Registered {
            op: 0,
            addr: self.advertised.clone(),
            metadata: meta.map_err(|why| Status::unknown(why.to_string()))?.into(),
        };
        let value =
            serde_json::to_vec(&registered).map_err(|why| Status::unknown(why.to_string()))?;
        let put = PutRequest {
            key: format!("{}/{}", resolver.prefix, self.advertised).into(),
            value: value.into(),
            lease: granted.id,
            ..PutRequest::default()
        };
        if let Err(why) = self.kv.put_own(put).await {
            self.revoke(granted.id).await;
            return Err(why);
        }
        let (addr, ttl) = (&self.advertised, resolver.ttl_s);
        tracing::info!(addr, "lease-ttl" = ttl, "registered session with lease");
        self.keep(granted.id, Duration::from_secs(granted.ttl.max(1).unsigned_abs())).await;
        Ok(())
    }

    /// Takes a lease back, and the key if it was written after all.
    async fn revoke(&self, id: i64) {
        let path = PathAndQuery::from_static(LEASE_REVOKE);
        let revoke = LeaseRevokeRequest { id }.encode_to_vec().into();
        let none = MetadataMap::new();
        if let Err(why) = self.upstream.unary(&path, &none, revoke, Repeat::Never).await {
            tracing::debug!(error = why.message(), "a lease is left to its time");
        }
    }

    /// Keeps a lease alive as long as that can be done.
    async fn keep(&self, id: i64, ttl: Duration) {
        let mut lost = tokio::time::Instant::now() + ttl;
        while tokio::time::Instant::now() < lost {
            match self.renew(id).await {
                Some(0) => return,
                Some(_) => lost = tokio::time::Instant::now() + ttl,
                None => {}
            }
            tokio::time::sleep(ttl / 3).await;
        }
    }

    /// The time that a lease has from now on, 0 if it is gone; `None` if nobody said so.
    async fn renew(&self, id: i64) -> Option<i64> {
        let (requests, sent) = mpsc::channel(1);
        requests.try_send(LeaseKeepAliveRequest { id }).expect("the channel has just been made");
        let asked = async {
            let opened = self.upstream.converse(KEEP_ALIVE, MetadataMap::new(), sent).await.ok();
            let mut responses: tonic::Streaming<LeaseKeepAliveResponse> = opened?;
            responses.message().await.ok().flatten()
        };
        let answered = tokio::time::timeout(REST, asked).await.ok().flatten();
        answered.map(|response| response.ttl)
    }

    /// Keeps the list of those who are registered. Does not return.
    pub(super) async fn follow(&self) {
        let Some(resolver) = &self.resolver else { return std::future::pending().await };
        loop {
            if let Err(why) = self.follow_once(&format!("{}/", resolver.prefix)).await {
                let (prefix, error) = (&resolver.prefix, why.message());
                tracing::warn!(prefix, error, "failed to establish endpoint watch");
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn follow_once(&self, prefix: &str) -> Result<(), Status> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        // All keys that begin with the prefix: it ends with a slash.
        let mut end = prefix.as_bytes().to_vec();
        end.last_mut().into_iter().for_each(|slash| *slash += 1);
        let range_end = Bytes::from(end);
        let range =
            RangeRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
        let found = self.kv.range(&MetadataMap::new(), range).await?;
        let read = |value: &[u8]| serde_json::from_slice::<Registered>(value).ok();
        let known =
            found.kvs.iter().filter_map(|pair| Some((pair.key.clone(), read(&pair.value)?)));
        *self.registered.write() = known.collect();
        let mut create = WatchCreateRequest {
            key,
            range_end,
            start_revision: found.header.map_or(0, |header| header.revision) + 1,
            ..WatchCreateRequest::default()
        };
        self.names.enter(&mut create.key, &mut create.range_end);
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (requests, sent) = mpsc::channel(1);
        requests.try_send(create).expect("the channel has just been made");
        let metadata = Caller::default().metadata();
        let opened = self.upstream.converse::<_, WatchResponse>(WATCH, metadata, sent).await;
        let mut responses = opened.map_err(Broken::into_status)?;
        while let Some(response) = responses.next().await {
            let mut response = response?;
            if response.canceled {
                return Err(Status::aborted(response.cancel_reason));
            }
            self.names.leave_events(&mut response.events);
            let mut registered = self.registered.write();
            for event in response.events {
                let is_put = event.r#type() == EventType::Put;
                let Some(pair) = event.kv else { continue };
                match read(&pair.value).filter(|_| is_put) {
                    Some(new) => drop(registered.insert(pair.key, new)),
                    None if is_put => {}
                    None => drop(registered.remove(&pair.key)),
                }
            }
        }
        Ok(())
    }
}

fn member(name: &str, url: &str) -> Member {
    Member { name: name.to_owned(), client_ur_ls: vec![url.to_owned()], ..Member::default() }
}

/// The client URLs of the members that serve, as a member tells them (etcd `client/v3/client.go`, `Sync`).
pub(super) async fn endpoints(upstream: &Upstream) -> Result<Vec<String>, Status> {
    let path = PathAndQuery::from_static(MEMBER_LIST);
    let request = MemberListRequest { linearizable: true }.encode_to_vec().into();
    let none = MetadataMap::new();
    let answer = upstream.unary(&path, &none, request, Repeat::Freely).await?;
    let listed: MemberListResponse = decode(answer)?;
    let serving = listed.members.into_iter().filter(|m| !m.name.is_empty() && !m.is_learner);
    Ok(serving.flat_map(|member| member.client_ur_ls).collect())
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;
    use crate::service::upstream::UpstreamSettings;
    use crate::service::upstream::fake::Fake;
    use crate::service::upstream::paths::PUT;
    use crate::support::metrics::Metrics;

    #[tokio::test]
    async fn a_registration_that_is_refused_leaves_no_lease_behind() {
        let member = Fake::start(|path| match path {
            LEASE_GRANT => {
                let granted = LeaseGrantResponse { id: 7, ttl: 60, ..Default::default() };
                Ok(granted.encode_to_vec().into())
            }
            PUT => Err(Status::permission_denied("no")),
            _ => Ok(Bytes::new()),
        });
        let member = member.await;
        let settings = UpstreamSettings::default();
        let upstream = Upstream::new(settings, std::slice::from_ref(&member.address)).unwrap();
        let names = Namespace::default();
        let figures = Figures::new(&Metrics::default());
        let kv = Arc::new(Kv::new(upstream.clone(), names.clone(), figures, false));
        let resolver = Resolver { prefix: "p".to_owned(), ttl_s: 60 };
        let cluster = Cluster::new(upstream, kv, names, "a:1".to_owned(), None);
        assert!(cluster.register_once(&resolver).await.is_err());
        assert_eq!(member.asked(), [LEASE_GRANT, PUT, LEASE_REVOKE]);
    }
}
