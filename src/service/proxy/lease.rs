//! Keep-alives and what leases hold (etcd `server/proxy/grpcproxy/lease.go`).
//!
//! ```text
//!   client ── keep-alive ── session ── stream to a member ── answer ──> client
//!                             └── broken: what is unanswered is sent to the next member
//! ```
//!
//! A renewal may be sent twice: the second one renews again. etcd's proxy keeps a lease alive by itself between two
//! renewals of a client; this one sends on what clients send, no more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::kv::decode;
use super::namespace::Namespace;
use crate::service::upstream::paths::{KEEP_ALIVE, TIME_TO_LIVE};
use crate::service::upstream::{Broken, Repeat, Upstream};

/// A client may have so many renewals unanswered; then no more are read.
const UNANSWERED_MAX: usize = 64;

/// Members are tried so often and with such a rest, about five seconds in all; then the client hears why.
const TRIES_MAX: usize = 50;
const REST: Duration = Duration::from_millis(100);

/// How long a lease has, and below a namespace only its keys there, without the prefix.
pub(super) async fn time_to_live(
    upstream: &Upstream,
    names: &Namespace,
    metadata: &MetadataMap,
    message: Bytes,
) -> Result<Bytes, Status> {
    let path = PathAndQuery::from_static(TIME_TO_LIVE);
    let answer = upstream.unary(&path, metadata, message, Repeat::Freely).await?;
    if names.is_empty() {
        return Ok(answer);
    }
    let mut response: LeaseTimeToLiveResponse = decode(answer)?;
    response.keys = response.keys.iter().filter_map(|key| names.strip(key)).collect();
    Ok(response.encode_to_vec().into())
}

/// Answers of one stream, as bytes.
pub(super) type KeepAlives = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Carries one client's keep-alives.
pub(super) fn keep_alive<R>(upstream: Upstream, caller: Caller, requests: R) -> KeepAlives
where
    R: Stream<Item = Result<Bytes, Status>> + Unpin + Send + 'static,
{
    let unanswered = VecDeque::new();
    let session =
        Session { upstream, caller, requests, open: None, unanswered, no_more: false, tries: 0 };
    let step = |session: Option<Session<R>>| async { session?.step().await };
    Box::pin(futures::stream::unfold(Some(session), step))
}

struct Session<R> {
    upstream: Upstream,
    caller: Caller,
    requests: R,
    open: Option<Open>,
    unanswered: VecDeque<i64>,
    /// The client has sent its last.
    no_more: bool,
    tries: usize,
}

/// The stream to a member.
struct Open {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
}

type Step<R> = Option<(Result<Bytes, Status>, Option<Session<R>>)>;

impl<R> Session<R>
where
    R: Stream<Item = Result<Bytes, Status>> + Unpin + Send + 'static,
{
    async fn step(mut self) -> Step<R> {
        loop {
            if self.unanswered.is_empty() && self.no_more {
                return None;
            }
            let told = match &mut self.open {
                None if self.unanswered.is_empty() => None,
                None => match open(&self.upstream, &self.caller, &self.unanswered).await {
                    Ok(open) => {
                        self.open = Some(open);
                        continue;
                    }
                    Err(broken) => Some(Err(broken)),
                },
                Some(open) => {
                    let more = !self.no_more && self.unanswered.len() < UNANSWERED_MAX;
                    tokio::select! {
                        told = open.responses.message() => Some(told.map_err(Broken::new)),
                        request = self.requests.next(), if more => {
                            if let Err(status) = self.take(request) {
                                return Some((Err(status), None));
                            }
                            continue;
                        }
                    }
                }
            };
            match told {
                None => {
                    let request = self.requests.next().await;
                    if let Err(status) = self.take(request) {
                        return Some((Err(status), None));
                    }
                }
                Some(Ok(Some(response))) => {
                    self.tries = 0;
                    if let Some(at) = self.unanswered.iter().position(|id| *id == response.id) {
                        self.unanswered.remove(at);
                    }
                    return Some((Ok(response.encode_to_vec().into()), Some(self)));
                }
                Some(Ok(None)) if self.unanswered.is_empty() => self.open = None,
                Some(ended) => {
                    let broken = ended.err().unwrap_or_else(Broken::ended);
                    self.open = None;
                    if let Err(status) = self.rest(broken).await {
                        return Some((Err(status), None));
                    }
                }
            }
        }
    }

    /// A request of the client, or the end of them.
    fn take(&mut self, request: Option<Result<Bytes, Status>>) -> Result<(), Status> {
        let Some(request) = request else {
            self.no_more = true;
            return Ok(());
        };
        let request: LeaseKeepAliveRequest = decode(request?)?;
        self.unanswered.push_back(request.id);
        if let Some(open) = &self.open
            && open.requests.try_send(request).is_err()
        {
            // Its end will be told with the next response.
            self.open = None;
        }
        Ok(())
    }

    /// Rests before the next attempt; the reason, if there is none.
    async fn rest(&mut self, broken: Broken) -> Result<(), Status> {
        self.tries += 1;
        let leaderless = broken.has_no_leader() && self.caller.requires_leader();
        if !broken.may_go_on() || leaderless || self.tries == TRIES_MAX {
            return Err(broken.into_status());
        }
        tokio::time::sleep(REST).await;
        Ok(())
    }
}

/// A stream on which everything unanswered has been sent.
async fn open(
    upstream: &Upstream,
    caller: &Caller,
    unanswered: &VecDeque<i64>,
) -> Result<Open, Broken> {
    let (requests, sent) = mpsc::channel(UNANSWERED_MAX);
    for id in unanswered {
        requests
            .try_send(LeaseKeepAliveRequest { id: *id })
            .expect("there is room for all that may be unanswered");
    }
    let responses = upstream.converse(KEEP_ALIVE, caller.metadata(), sent).await?;
    Ok(Open { requests, responses })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::service::upstream::UpstreamSettings;
    use crate::service::upstream::fake::Fake;

    #[tokio::test]
    async fn a_member_that_answers_no_renewal_is_asked_again_after_a_rest() {
        let member = Fake::start(|_| Err(Status::ok(""))).await;
        let settings = UpstreamSettings::default();
        let upstream = Upstream::new(settings, std::slice::from_ref(&member.address)).unwrap();
        let renewal = LeaseKeepAliveRequest { id: 7 }.encode_to_vec().into();
        let requests = futures::stream::iter([Ok(renewal)]).chain(futures::stream::pending());
        let mut answers = keep_alive(upstream, Caller::default(), requests);
        let second = Duration::from_secs(1);
        assert!(timeout(second, answers.next()).await.is_err(), "there is no answer yet");
        let asked = member.asked().len();
        assert!((1..=30).contains(&asked), "{asked}");
        let told = timeout(60 * second, answers.next()).await.expect("an end in time");
        assert_eq!(told.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    }
}
