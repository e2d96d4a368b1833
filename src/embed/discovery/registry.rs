//! The discovery service: where members register, and what it is asked over gRPC.
//!
//! ```text
//!   question ── endpoint in turn ── answered ──> answer; this endpoint first, from now on
//!                    ^                └── not reached, no leader, … ──┐
//!                    └─────────────── the next, each once ────────────┘   all within --discovery-request-timeout
//! ```

use std::future::Future;

use futures::StreamExt as _;
use futures::future::{BoxFuture, ready};
use futures::stream;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::mvccpb::KeyValue;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::dial::channels;
use super::settings::DiscoverySettings;
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;

const REGISTRY: &str = "/_etcd/registry";

/// Under which the members of one cluster register.
#[derive(Clone, Debug)]
pub(super) struct Prefix(String);

impl Prefix {
    pub(super) fn of(token: &str) -> Prefix {
        Prefix(clean(&format!("{REGISTRY}/{token}")))
    }

    /// The key that says how many members are wanted.
    pub(super) fn size(&self) -> String {
        format!("{}/_config/size", self.0)
    }

    /// What members' keys begin with.
    pub(super) fn members(&self) -> String {
        format!("{}/members", self.0)
    }

    pub(super) fn member(&self, id: &str) -> String {
        format!("{}/members/{id}", self.0)
    }
}

/// Go's `path.Join`: no empty parts, no dots.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What a member has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// `name=url`, as `--initial-cluster` has it.
    pub(super) value: String,
    /// Smaller for who came first.
    pub(super) create_revision: i64,
}

impl From<KeyValue> for Entry {
    fn from(found: KeyValue) -> Entry {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Entry {
            key: text(&found.key),
            value: text(&found.value),
            create_revision: found.create_revision,
        }
    }
}

/// The service gave no answer, or refused; for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(pub(super) String);

/// What discovery asks.
pub(super) trait Registry {
    /// How many members are wanted, as it was written; `None` if nobody has written it.
    fn size(&mut self) -> impl Future<Output = Result<Option<String>, Unanswered>> + Send;

    /// Who has registered, and the revision at which this was so.
    fn members(&mut self) -> impl Future<Output = Result<(Vec<Entry>, i64), Unanswered>> + Send;

    /// Puts `value` at `key`.
    fn register(
        &mut self,
        key: &str,
        value: &str,
    ) -> impl Future<Output = Result<(), Unanswered>> + Send;

    /// Begins to watch who registers, from this revision on.
    fn watch(&mut self, from: i64) -> impl Future<Output = Result<(), Unanswered>> + Send;

    /// The next ones who have, once there are any; after [`Registry::watch`].
    fn changes(&mut self) -> impl Future<Output = Result<Vec<Entry>, Unanswered>> + Send;
}

/// A token that is sent with each request.
type Token = Option<MetadataValue<Ascii>>;

/// The service, over gRPC.
pub(super) struct Client {
    settings: DiscoverySettings,
    prefix: Prefix,
    channels: Vec<Channel>,
    /// Who is asked first.
    turn: usize,
    token: Token,
    watched: Option<Streaming<pb::WatchResponse>>,
}

fn with_token<T>(message: T, token: Token) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

impl Client {
    /// Reads what TLS needs, and logs in if that is asked for: what fails here fails the start.
    pub(super) async fn connect(
        settings: &DiscoverySettings,
        prefix: Prefix,
    ) -> Result<Client, String> {
        let settings = settings.clone();
        let channels = channels(&settings)?;
        let mut client = Client { settings, prefix, channels, turn: 0, token: None, watched: None };
        client.log_in().await.map_err(|why| told(&why).0)?;
        Ok(client)
    }

    /// Fetches a token, if there is somebody to log in. Each endpoint has the dial timeout for itself: one that never
    /// answers does not stand in the way of the others.
    async fn log_in(&mut self) -> Result<(), Status> {
        let Some((name, password)) = self.settings.login() else { return Ok(()) };
        let login =
            pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        let limit = self.settings.dial_timeout;
        let asked = self.everywhere(move |channel, _| {
            let login = login.clone();
            Box::pin(async move {
                let mut client = AuthClient::new(channel);
                let asked = client.authenticate(login);
                let answer = match limit.0 {
                    ..=0 => asked.await,
                    _ => timeout(limit.to_std(), asked).await.unwrap_or_else(|_late| Err(late())),
                };
                answer.map(Response::into_inner)
            })
        });
        self.token = match asked.await {
            Ok(answer) => answer.token.parse().ok(),
            Err(why) if why.message() == "etcdserver: authentication is not enabled" => None,
            Err(why) => return Err(why),
        };
        Ok(())
    }

    /// One question, with a token that is renewed if it has run out.
    async fn ask<T: Send>(
        &mut self,
        call: impl Fn(Channel, Token) -> BoxFuture<'static, Result<T, Status>> + Clone + Send,
    ) -> Result<T, Unanswered> {
        let limit = self.settings.request_timeout.to_std();
        let asked = async {
            match self.everywhere(call.clone()).await {
                Err(why) if is_stale(&why) && self.settings.login().is_some() => {
                    self.log_in().await?;
                    self.everywhere(call).await
                }
                answer => answer,
            }
        };
        let answer = timeout(limit, asked).await.unwrap_or_else(|_elapsed| {
            // Whoever was asked last may never answer.
            self.turn += 1;
            Err(late())
        });
        answer.map_err(|why| told(&why))
    }

    /// Asks one endpoint after the other, until one knows.
    async fn everywhere<T: Send>(
        &mut self,
        call: impl Fn(Channel, Token) -> BoxFuture<'static, Result<T, Status>> + Send,
    ) -> Result<T, Status> {
        let mut last = Status::unavailable("no endpoints");
        for _ in 0..self.channels.len() {
            let channel = self.channels[self.turn % self.channels.len()].clone();
            match call(channel, self.token.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(why) if is_final(&why) => return Err(why),
                Err(why) => last = why,
            }
            self.turn += 1;
        }
        Err(last)
    }

    async fn range(&mut self, message: pb::RangeRequest) -> Result<pb::RangeResponse, Unanswered> {
        self.ask(move |channel, token| {
            let request = with_token(message.clone(), token);
            Box::pin(async move {
                KvClient::new(channel).range(request).await.map(Response::into_inner)
            })
        })
        .await
    }
}

fn late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// The token has run out, or the service has forgotten it.
fn is_stale(why: &Status) -> bool {
    why.code() == Code::Unauthenticated && why.message() == "etcdserver: invalid auth token"
}

/// Every endpoint would say the same.
fn is_final(why: &Status) -> bool {
    matches!(
        why.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

/// As etcd's client prints it.
fn told(why: &Status) -> Unanswered {
    let (code, text) = (why.code(), why.message());
    let plain = text.starts_with("etcdserver: ") || code == Code::DeadlineExceeded;
    Unanswered(match plain {
        true => text.to_owned(),
        false => format!("rpc error: code = {code:?} desc = {text}"),
    })
}

/// The end of the range of keys that begin with `prefix`, which ends in a letter.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Registry for Client {
    async fn size(&mut self) -> Result<Option<String>, Unanswered> {
        let key = self.prefix.size().into();
        let found = self.range(pb::RangeRequest { key, ..Default::default() }).await?;
        Ok(found.kvs.into_iter().next().map(|kv| Entry::from(kv).value))
    }

    async fn members(&mut self) -> Result<(Vec<Entry>, i64), Unanswered> {
        let prefix = self.prefix.members();
        let range_end = range_end(&prefix).into();
        let request = pb::RangeRequest { key: prefix.into(), range_end, ..Default::default() };
        let found = self.range(request).await?;
        let revision = found.header.map_or(0, |header| header.revision);
        Ok((found.kvs.into_iter().map(Entry::from).collect(), revision))
    }

    async fn register(&mut self, key: &str, value: &str) -> Result<(), Unanswered> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let message = pb::PutRequest { key, value, ..Default::default() };
        self.ask(move |channel, token| {
            let request = with_token(message.clone(), token);
            Box::pin(async move { KvClient::new(channel).put(request).await.map(drop) })
        })
        .await
    }

    async fn watch(&mut self, from: i64) -> Result<(), Unanswered> {
        let prefix = self.prefix.members();
        let create = pb::WatchCreateRequest {
            range_end: range_end(&prefix).into(),
            key: prefix.into(),
            start_revision: from,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let message = pb::WatchRequest { request_union: Some(create) };
        let watched = self.ask(move |channel, token| {
            // Our side of the stream stays open: its end is the watch's.
            let said = stream::once(ready(message.clone())).chain(stream::pending());
            let request = with_token(said, token);
            Box::pin(async move {
                WatchClient::new(channel).watch(request).await.map(Response::into_inner)
            })
        });
        self.watched = Some(watched.await?);
        Ok(())
    }

    async fn changes(&mut self) -> Result<Vec<Entry>, Unanswered> {
        let watched = self.watched.as_mut().expect("a watch has begun");
        loop {
            let answer = match watched.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(Unanswered("the watch has ended".to_owned())),
                Err(why) => {
                    self.turn += 1;
                    return Err(told(&why));
                }
            };
            if answer.canceled {
                return Err(Unanswered(match answer.compact_revision {
                    0 => answer.cancel_reason,
                    _ => "etcdserver: mvcc: required revision has been compacted".to_owned(),
                }));
            }
            let found: Vec<Entry> =
                answer.events.into_iter().filter_map(|event| Some(event.kv?.into())).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        let prefix = Prefix::of("abc");
        assert_eq!(prefix.size(), "/_etcd/registry/abc/_config/size");
        assert_eq!(prefix.member("1f"), "/_etcd/registry/abc/members/1f");
        assert_eq!(range_end(&prefix.members()), b"/_etcd/registry/abc/membert");
        assert_eq!(Prefix::of("a//b/../c/").members(), "/_etcd/registry/a/c/members");
    }

    #[test]
    fn refusals_are_told_as_etcds_client_tells_them() {
        let refused = Status::permission_denied("etcdserver: permission denied");
        assert_eq!(told(&refused).0, "etcdserver: permission denied");
        assert!(is_final(&refused) && !is_final(&Status::unavailable("etcdserver: no leader")));
        let unreached = Status::unavailable("dial tcp a:1");
        assert_eq!(told(&unreached).0, "rpc error: code = Unavailable desc = dial tcp a:1");
        assert_eq!(told(&late()).0, "context deadline exceeded");
    }
}
