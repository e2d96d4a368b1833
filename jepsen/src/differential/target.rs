//! One of the two servers under comparison: makes a call and hands back the answer as it came.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::allowed::Release;
use super::answer::Answer;
use super::auth::call::{self as auth, AuthCall, Who};
use super::auth::follow;
use super::call::{Burst, Call, OWN_MEMBER};
use super::client::{Badge, Client};
use super::generate::STREAMS;
use super::members::Roll;
use super::streams::{SENTINEL_KEY, Stream};
use super::upkeep;
use crate::member::{Member, MemberSpec};
use crate::pb::etcdserverpb::{
    AlarmRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, PutRequest,
    RangeRequest, RangeStreamResponse, StatusRequest,
};

const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// etcd looks for watchers to catch up every 100 ms.
const CATCH_UP: Duration = Duration::from_millis(250);
/// The shortest lease there is: ceil(1.5 × the election timeout of one second).
const SHORTEST_TTL: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct KeepAlives {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

#[derive(Debug)]
pub(super) struct Target {
    spec: MemberSpec,
    /// Gone while it is started anew.
    member: Option<Member>,
    pub(super) client: Client,
    pub(super) streams: Vec<Stream>,
    keep_alives: Option<KeepAlives>,
    roll: Roll,
    /// Every token that a user was given.
    tokens: BTreeMap<String, Vec<String>>,
    /// Whether watch streams are opened at each start, which nobody may who has no token.
    watches: bool,
    /// Which etcd it is; none for the server under test.
    oracle: Option<Release>,
}

impl Target {
    pub(super) async fn start(
        binary: &Path,
        root: &Path,
        name: &str,
        oracle: Option<Release>,
        extra: &[String],
    ) -> Result<Self> {
        let mut target = Self::start_quiet(binary, root, name, oracle, extra).await?;
        target.watches = true;
        target.streams = open_streams(&target.client).await?;
        Ok(target)
    }

    /// The same without watch streams.
    pub(super) async fn start_quiet(
        binary: &Path,
        root: &Path,
        name: &str,
        oracle: Option<Release>,
        extra: &[String],
    ) -> Result<Self> {
        let mut spec = MemberSpec::single(binary, root, name)?;
        spec.extra.extend_from_slice(extra);
        let (member, client) = start(&spec).await?;
        let id = settled_id(&client, oracle).await?;
        Ok(Self {
            roll: Roll::new(vec![id], spec.peer_url()),
            spec,
            member: Some(member),
            client,
            streams: Vec::new(),
            keep_alives: None,
            tokens: BTreeMap::new(),
            watches: false,
            oracle,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.spec.client_port
    }

    pub(super) fn log(&self) -> &Path {
        &self.spec.log
    }

    pub(super) fn endpoint(&self) -> String {
        self.spec.endpoint()
    }

    async fn restart(&mut self) -> Result<()> {
        self.streams.clear();
        self.keep_alives = None;
        if let Some(member) = self.member.take() {
            tokio::task::spawn_blocking(move || member.stop(ANSWER_DEADLINE)).await??;
        }
        let (member, client) = start(&self.spec).await?;
        self.member = Some(member);
        self.client = client;
        if self.watches {
            settled_id(&self.client, self.oracle).await?;
            self.streams = open_streams(&self.client).await?;
        }
        Ok(())
    }

    /// What is there after another start.
    async fn read_anew(&mut self) -> Answer {
        if let Err(error) = self.restart().await {
            return Answer::Silent(format!("{error:#}"));
        }
        let everything = Bytes::from_static(b"\0");
        let mut answers = Vec::new();
        for call in [
            Call::Range(RangeRequest {
                key: everything.clone(),
                range_end: everything,
                ..RangeRequest::default()
            }),
            Call::Leases,
            Call::Alarm(AlarmRequest::default()),
            Call::MemberList(true),
            Call::Status,
        ] {
            answers.push(self.make(call).await);
        }
        Answer::Several(answers)
    }

    /// Makes one call that is not about watching.
    pub(super) async fn call(&mut self, call: Call) -> Answer {
        let deadline = if call == Call::Restart { 3 * ANSWER_DEADLINE } else { ANSWER_DEADLINE };
        match timeout(deadline, self.make(call)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Silent(format!("no answer within {deadline:?}")),
        }
    }

    /// Makes one call as somebody; nothing is kept open from one such call to the next.
    pub(super) async fn call_as(&mut self, who: &Who, call: Call) -> Answer {
        self.keep_alives = None;
        self.client = self.client.wearing(self.badge(who));
        let answer = self.call(call).await;
        self.client = self.client.wearing(Badge::default());
        self.keep_alives = None;
        answer
    }

    fn badge(&self, who: &Who) -> Badge {
        match who {
            Who::Nobody => Badge::default(),
            Who::User(name, ago) => {
                let token = self.tokens.get(*name).and_then(|all| all.iter().rev().nth(*ago));
                token.map_or_else(Badge::default, |token| Badge::of(token))
            }
            Who::Stranger(token) => Badge::of(token),
        }
    }

    /// Makes a call of the Auth service, and keeps the token it brings.
    async fn auth(&mut self, call: AuthCall) -> Answer {
        let AuthCall::Authenticate(request) = call else {
            return auth::make(&self.client, call).await;
        };
        let name = request.name.clone();
        let (answer, token) = auth::authenticate(&self.client, request).await;
        self.tokens.entry(name).or_default().extend(token);
        answer
    }

    async fn member_list(&mut self, linearizable: bool) -> Answer {
        let request = MemberListRequest { linearizable };
        match self.client.cluster.member_list(request).await {
            Err(status) => status.into(),
            Ok(response) => {
                let mut list = response.into_inner();
                match self.roll.named(&mut list.members) {
                    Ok(()) => Answer::MemberList(list),
                    Err(disorder) => Answer::Silent(disorder),
                }
            }
        }
    }

    fn make(&mut self, call: Call) -> BoxFuture<'_, Answer> {
        let mut client = self.client.clone();
        let own = self.roll.id(OWN_MEMBER);
        async move {
            match call {
                Call::RangeStream(request) => self.range_stream(request).await,
                call @ (Call::Range(_)
                | Call::Put(_)
                | Call::DeleteRange(_)
                | Call::Txn(_)
                | Call::Compact(_)
                | Call::Grant(_)
                | Call::Revoke(_)
                | Call::TimeToLive(_)) => unary(&client, call).await,
                Call::GrantAndRevoke(r) => grant_and_revoke(&mut client, r).await,
                Call::Expire(put) => expire(&mut client, put).await,
                Call::KeepAlive(id) => self.keep_alive(id).await,
                Call::Leases => {
                    answer(client.lease.lease_leases(LeaseLeasesRequest {}).await, Answer::Leases)
                }
                Call::HashKv(revision) => answer(
                    client.maintenance.hash_kv(HashKvRequest { revision }).await,
                    Answer::HashKv,
                ),
                Call::MemberList(linearizable) => self.member_list(linearizable).await,
                Call::Auth(call) => self.auth(call).await,
                Call::Member(call) => self.roll.make(&client, call).await,
                Call::Upkeep(call) => upkeep::make(&client, &self.roll, call).await,
                Call::Look(request) => follow::look(&client, request).await,
                Call::Follow(followed) => {
                    let root = client.wearing(self.badge(&Who::User("root", 0)));
                    follow::follow(&client, &root, *followed).await
                }
                Call::Status => {
                    answer(client.maintenance.status(StatusRequest {}).await, |status| {
                        Answer::Status(Box::new(status))
                    })
                }
                Call::Alarm(mut request) => {
                    if request.member_id == OWN_MEMBER {
                        request.member_id = own;
                    }
                    answer(client.maintenance.alarm(request).await, Answer::Alarm)
                }
                Call::Burst(burst) => self.burst(*burst).await,
                Call::Restart => self.read_anew().await,
                Call::WatchCreate(stream, request) => {
                    self.streams[stream].create(request).await.into()
                }
                Call::WatchCancel(stream, id) => self.streams[stream].cancel(id).await.into(),
                Call::WatchProgress(stream) => self.streams[stream].ask_progress().await.into(),
                Call::WatchNothing(stream) => self.streams[stream].ask_nothing().await.into(),
                Call::WatchReopen(stream) => match Stream::open(&client).await {
                    Ok(opened) => {
                        self.streams[stream] = opened;
                        Answer::Done
                    }
                    Err(error) => Answer::Silent(error.to_string()),
                },
                Call::WatchSettle => Answer::Done,
            }
        }
        .boxed()
    }

    async fn keep_alive(&mut self, id: i64) -> Answer {
        match self.try_keep_alive(id).await {
            Ok(response) => Answer::KeepAlive(response),
            Err(status) => {
                self.keep_alives = None;
                status.into()
            }
        }
    }

    async fn try_keep_alive(&mut self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let request = LeaseKeepAliveRequest { id };
        if let Some(open) = &mut self.keep_alives {
            let sent = open.requests.send(request).await;
            sent.map_err(|_| Status::unavailable("keep-alive stream closed"))?;
        } else {
            let (requests, outgoing) = mpsc::channel(4);
            let sent = requests.send(request).await;
            sent.map_err(|_| Status::unavailable("keep-alive stream closed"))?;
            let outgoing = ReceiverStream::new(outgoing);
            let answers = self.client.lease.lease_keep_alive(outgoing).await?.into_inner();
            self.keep_alives = Some(KeepAlives { requests, answers });
        }
        let Some(open) = &mut self.keep_alives else {
            return Err(Status::unavailable("keep-alive stream closed"));
        };
        open.answers.message().await?.ok_or_else(|| Status::unavailable("keep-alive stream ended"))
    }

    /// A release that does not stream this whole is asked for the range, and its answer is a stream of one message.
    async fn range_stream(&self, request: RangeRequest) -> Answer {
        if self.oracle.is_none_or(|release| release.streams(&request)) {
            return unary(&self.client, Call::RangeStream(request)).await;
        }
        match unary(&self.client, Call::Range(request)).await {
            Answer::Range(range) => {
                Answer::RangeStream(vec![RangeStreamResponse { range_response: Some(range) }])
            }
            other => other,
        }
    }

    async fn burst(&mut self, burst: Burst) -> Answer {
        let mut answers = Vec::new();
        answers.push(unary(&self.client, Call::Txn(burst.write)).await);
        answers.push(unary(&self.client, Call::Range(burst.range)).await);
        answers.push(self.range_stream(burst.stream).await);
        answers.push(unary(&self.client, Call::DeleteRange(burst.delete)).await);
        Answer::Several(answers)
    }

    async fn put_sentinel(&mut self) -> Answer {
        let put = PutRequest { key: Bytes::from_static(SENTINEL_KEY), ..PutRequest::default() };
        self.call(Call::Put(put)).await
    }

    /// Moves the sentinel key, and answers when every stream has heard of it; if it cannot be moved, at once.
    pub(super) async fn settle(&mut self) -> Answer {
        let answer = self.put_sentinel().await;
        let Some(revision) = answer.revision() else {
            return answer;
        };
        for stream in &self.streams {
            if let Err(error) = stream.reached(revision).await {
                return Answer::Silent(error.to_string());
            }
        }
        answer
    }

    /// The same for watchers with a past: answers when they have been sent it.
    pub(super) async fn catch_up(&mut self) -> Answer {
        let answer = self.put_sentinel().await;
        let Some(revision) = answer.revision() else {
            sleep(CATCH_UP).await;
            return answer;
        };
        let caught = self.streams.iter().map(|stream| stream.catch_up(revision));
        match try_join_all(caught).await {
            Ok(_) => answer,
            Err(error) => Answer::Silent(error.to_string()),
        }
    }
}

async fn start(spec: &MemberSpec) -> Result<(Member, Client)> {
    let started = spec.clone();
    let member =
        tokio::task::spawn_blocking(move || started.start(Duration::from_secs(30))).await??;
    let client = Client::connect(&spec.endpoint()).await?;
    Ok((member, client))
}

async fn open_streams(client: &Client) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(Stream::open(client).await?);
    }
    Ok(streams)
}

/// The member's id, once it tells the storage version it is to stay at: etcd sets it by a clock of seconds.
async fn settled_id(client: &Client, oracle: Option<Release>) -> Result<u64> {
    let version = oracle.and_then(Release::storage_version);
    let begun = Instant::now();
    loop {
        let status = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
        let settled = version.as_ref().is_none_or(|version| status.storage_version == *version);
        if settled || begun.elapsed() > ANSWER_DEADLINE {
            return Ok(status.header.map_or(0, |header| header.member_id));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Makes one call that one answer comes to, of the KV or the Lease service.
pub(super) async fn unary(client: &Client, call: Call) -> Answer {
    let mut client = client.clone();
    match call {
        Call::Range(r) => answer(client.kv.range(r).await, Answer::Range),
        Call::RangeStream(r) => range_stream(&mut client, r).await,
        Call::Put(r) => answer(client.kv.put(r).await, Answer::Put),
        Call::DeleteRange(r) => answer(client.kv.delete_range(r).await, Answer::DeleteRange),
        Call::Txn(r) => answer(client.kv.txn(r).await, Answer::Txn),
        Call::Compact(r) => answer(client.kv.compact(r).await, Answer::Compact),
        Call::Grant(r) => answer(client.lease.lease_grant(r).await, Answer::Grant),
        Call::Revoke(id) => revoke(&mut client, id).await,
        Call::TimeToLive(r) => answer(client.lease.lease_time_to_live(r).await, Answer::TimeToLive),
        other => Answer::Silent(format!("no such call: {other:?}")),
    }
}

impl From<Result<()>> for Answer {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => Self::Silent(error.to_string()),
        }
    }
}

fn answer<T>(result: Result<Response<T>, Status>, wrap: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(response) => wrap(response.into_inner()),
        Err(status) => status.into(),
    }
}

async fn range_stream(client: &mut Client, request: RangeRequest) -> Answer {
    async fn collect(
        client: &mut Client,
        request: RangeRequest,
    ) -> Result<Vec<RangeStreamResponse>, Status> {
        let mut stream = client.kv.range_stream(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message);
        }
        Ok(messages)
    }
    collect(client, request).await.map_or_else(Answer::from, Answer::RangeStream)
}

async fn revoke(client: &mut Client, id: i64) -> Answer {
    let revoked = client.lease.lease_revoke(LeaseRevokeRequest { id }).await;
    answer(revoked, Answer::Revoke)
}

async fn grant_and_revoke(client: &mut Client, request: LeaseGrantRequest) -> Answer {
    let mut granted = match client.lease.lease_grant(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status.into(),
    };
    let id = granted.id;
    let look = LeaseTimeToLiveRequest { id, keys: true };
    let mut look = match client.lease.lease_time_to_live(look).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status.into(),
    };
    let revoked = revoke(client, id).await;
    if request.id == 0 {
        granted.id = id.signum();
        look.id = i64::from(look.id == id);
    }
    Answer::Several(vec![Answer::Grant(granted), Answer::TimeToLive(look), revoked])
}

async fn expire(client: &mut Client, put: PutRequest) -> Answer {
    let begun = Instant::now();
    let grant = LeaseGrantRequest { id: put.lease, ttl: 1 };
    let read = RangeRequest { key: put.key.clone(), ..RangeRequest::default() };
    let granted = answer(client.lease.lease_grant(grant).await, Answer::Grant);
    let written = answer(client.kv.put(put).await, Answer::Put);
    loop {
        match client.kv.range(read.clone()).await {
            Ok(response) if response.get_ref().count == 0 => {
                if begun.elapsed() < SHORTEST_TTL {
                    return Answer::Silent(format!("lease ended after {:?}", begun.elapsed()));
                }
                let gone = Answer::Range(response.into_inner());
                return Answer::Several(vec![granted, written, gone]);
            }
            Ok(_) => sleep(Duration::from_millis(50)).await,
            Err(status) => return status.into(),
        }
    }
}
