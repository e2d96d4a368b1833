//! A store far away: etcd's calls over gRPC, to a cluster of etcd's or of ours, behind [`StateStore`].
//!
//! ```text
//!   Store ── Remote: token, time limit ── upstream: endpoints in turn, failover ──> members
//!              └── a token that is not known any more: logged in anew, asked once more
//! ```
//!
//! **Invariant:** a write that may have reached a member is not sent again here; who asked decides.
//!
//! [`StateStore`]: crate::fleet::store::StateStore

mod answer;
mod login;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use self::answer::{failed, is_stale};
pub use self::login::Login;
use self::login::Tokens;
use super::upstream::paths::{
    DELETE, KEEP_ALIVE, LEASE_GRANT, LEASE_REVOKE, PUT, RANGE, TXN, WATCH,
};
use super::upstream::{Broken, Repeat, Upstream, UpstreamSettings};
use crate::fleet::store::{Calls, Store, StoreError, WatchResponses};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings};

/// How long one call may take: as long as a member tries, with the default election timeout.
const CALL_MAX: Duration = Duration::from_secs(7);

/// A member that answers no ping is none; servers cut who pings more often (grpc-go's clients do not either).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a store is, and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct RemoteSettings {
    /// `host:port`, `http(s)://host:port`, or `unix(s)://path`; any of them may be down.
    pub endpoints: Vec<String>,
    /// TLS of endpoints without a scheme, and what is shown and trusted where there is one.
    pub tls: Option<Connector>,
    /// Who asks, where users are asked for.
    pub login: Option<Login>,
}

/// TLS for a client, from PEM files; an empty path is none. `None` if there is no file at all.
pub fn tls(cert: &str, key: &str, ca: &str) -> Result<Option<Connector>, String> {
    if [cert, key, ca].iter().all(|path| path.is_empty()) {
        return Ok(None);
    }
    let settings = TlsSettings {
        cert_file: cert.to_owned(),
        key_file: key.to_owned(),
        trusted_ca_file: ca.to_owned(),
        ..TlsSettings::default()
    };
    Ok(Some(Side::open(&settings, Protocol::default(), None)?.connector()))
}

/// A store over gRPC. Nothing is dialled before the first call; an endpoint that can be none is refused.
pub fn open(settings: RemoteSettings) -> Result<Store, String> {
    if settings.endpoints.is_empty() {
        return Err("there are no endpoints".to_owned());
    }
    let upstream = UpstreamSettings {
        tls: settings.tls,
        ping_interval: Some(PING_INTERVAL),
        ping_timeout: PING_TIMEOUT,
        ..UpstreamSettings::default()
    };
    let members = Upstream::new(upstream, &settings.endpoints)?;
    let tokens = settings.login.map(Tokens::new);
    Ok(Store::over(Arc::new(Remote { members, tokens })))
}

struct Remote {
    members: Upstream,
    /// `None` if nobody is to be logged in.
    tokens: Option<Tokens>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("endpoints", &self.members.endpoints())
            .finish_non_exhaustive()
    }
}

/// What goes with a call.
fn metadata(token: Option<&AsciiMetadataValue>) -> MetadataMap {
    let mut told = MetadataMap::new();
    if let Some(token) = token {
        told.insert("token", token.clone());
    }
    told
}

/// One message there, one back.
async fn unary<Q: Message, A: Message + Default>(
    members: &Upstream,
    path: &'static str,
    request: &Q,
    repeat: Repeat,
    mut metadata: MetadataMap,
) -> Result<A, Status> {
    let limit = format!("{}m", CALL_MAX.as_millis());
    metadata.insert("grpc-timeout", limit.parse().expect("digits and a letter"));
    let path = PathAndQuery::from_static(path);
    let message = request.encode_to_vec().into();
    let answer = members.unary(&path, &metadata, message, repeat).await?;
    A::decode(answer).map_err(|why| Status::internal(format!("the answer does not decode: {why}")))
}

impl Remote {
    async fn token(&self) -> Result<Option<AsciiMetadataValue>, Status> {
        match &self.tokens {
            Some(tokens) => tokens.current(&self.members).await,
            None => Ok(None),
        }
    }

    /// `call`, with a token if there are any; once more with a fresh one if that one is not known.
    async fn with_token<T, F>(&self, call: impl Fn(MetadataMap) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let token = self.token().await.map_err(|why| failed(&why))?;
        let answer = call(metadata(token.as_ref())).await;
        let (Err(why), Some(tokens)) = (&answer, &self.tokens) else {
            return answer.map_err(|why| failed(&why));
        };
        if !is_stale(why) {
            return Err(failed(why));
        }
        tokens.forget(token.as_ref()).await;
        let token = self.token().await.map_err(|why| failed(&why))?;
        call(metadata(token.as_ref())).await.map_err(|why| failed(&why))
    }

    async fn ask<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: Q,
        repeat: Repeat,
    ) -> Result<A, StoreError> {
        self.with_token(|metadata| unary(&self.members, path, &request, repeat, metadata)).await
    }

    /// One keep-alive, on a stream of its own: the next one may go to another member.
    async fn renew(&self, lease: i64, metadata: MetadataMap) -> Result<i64, Status> {
        let (requests, sent) = mpsc::channel(1);
        let request = pb::LeaseKeepAliveRequest { id: lease };
        requests.try_send(request).expect("the channel has just been made");
        let opened =
            self.members.converse::<_, pb::LeaseKeepAliveResponse>(KEEP_ALIVE, metadata, sent);
        let mut answers = opened.await.map_err(Broken::into_status)?;
        let answer = answers.message().await.map_err(|why| Broken::new(why).into_status())?;
        Ok(answer.ok_or_else(|| Broken::ended().into_status())?.ttl)
    }

    /// A watcher whose first response has come.
    async fn watch_with(
        &self,
        request: pb::WatchCreateRequest,
        mut metadata: MetadataMap,
    ) -> Result<WatchResponses, Status> {
        // A member without a leader is to say so, and not to be silent.
        metadata.insert("hasleader", AsciiMetadataValue::from_static("true"));
        let (requests, sent) = mpsc::channel(1);
        let request_union = Some(RequestUnion::CreateRequest(request));
        let request = pb::WatchRequest { request_union };
        requests.try_send(request).expect("the channel has just been made");
        let opened = self.members.converse::<_, pb::WatchResponse>(WATCH, metadata, sent);
        let mut responses = opened.await.map_err(Broken::into_status)?;
        let first = responses.message().await.map_err(|why| Broken::new(why).into_status())?;
        let first = first.ok_or_else(|| Broken::ended().into_status())?;
        if let Some(refused) = answer::refused_watch(&first) {
            return Err(refused);
        }
        // The member ends a watch whose client ends its side.
        let others = stream::unfold((responses, requests), |(mut responses, requests)| async {
            let told = responses.message().await;
            let told = told.map_err(|why| failed(&Broken::new(why).into_status())).transpose()?;
            Some((told, (responses, requests)))
        });
        Ok(Box::pin(stream::iter([Ok(first)]).chain(others)))
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

#[async_trait]
impl Calls for Remote {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        self.ask(RANGE, request, Repeat::Freely).await
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, StoreError> {
        self.ask(PUT, request, Repeat::Never).await
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, StoreError> {
        self.ask(DELETE, request, Repeat::Never).await
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        self.ask(TXN, request, Repeat::Never).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<pb::LeaseGrantResponse, StoreError> {
        let request = pb::LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        self.ask(LEASE_GRANT, request, Repeat::Never).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, StoreError> {
        self.with_token(async |metadata| {
            let renewed = timeout(CALL_MAX, self.renew(lease, metadata)).await;
            renewed.unwrap_or_else(|_elapsed| Err(too_late()))
        })
        .await
    }

    async fn lease_revoke(&self, lease: i64) -> Result<(), StoreError> {
        let request = pb::LeaseRevokeRequest { id: lease };
        // Whoever is asked again says that it is gone, which is as good.
        let _: pb::LeaseRevokeResponse = self.ask(LEASE_REVOKE, request, Repeat::Freely).await?;
        Ok(())
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchResponses, StoreError> {
        self.with_token(async |metadata| {
            let made = timeout(CALL_MAX, self.watch_with(request.clone(), metadata)).await;
            made.unwrap_or_else(|_elapsed| Err(too_late()))
        })
        .await
    }
}
