//! The leader's side: offers a state, sends what is missing of it, and asks until it is installed.
//!
//! A transfer that breaks is tried again by openraft, with whatever state it is then given: for a while that is the
//! same one ([`Outgoing::broken_off`]), so that a slow way with breaks in it still arrives.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesOrdered, StreamExt as _};
use openraft::errors::{NetworkError, RPCError, StreamingError, Unreachable};
use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::pace::Pace;
use super::{SnapshotFigures, SnapshotLimits};
use crate::consensus::network::{Shipment, Step, Taken};
use crate::consensus::types::{RaftVote, SnapshotSource, TypeConfig};

/// Between two questions whether it is installed: from, up to.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// Before openraft may try again what was refused.
const REFUSED_REST: Duration = Duration::from_millis(200);

/// A transfer did not end well.
#[derive(Debug)]
pub(crate) enum Broke {
    /// The way broke.
    Rpc(RPCError<TypeConfig>),
    /// The receiver would not, or lost its place: worth another offer soon.
    Refused(String),
    /// The state could not be read here, or not be taken there: worth another try later.
    Failed(String),
}

impl Broke {
    pub(crate) fn into_error(self) -> StreamingError<TypeConfig> {
        match self {
            Broke::Rpc(error) => error.into(),
            Broke::Refused(why) => NetworkError::from_string(why).into(),
            Broke::Failed(why) => Unreachable::from_string(why).into(),
        }
    }
}

/// A state that a member is being brought up by: the log above it is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) to: MemberId,
    pub(crate) index: u64,
    pub(crate) since: Instant,
}

/// What is sent, and was lately.
#[derive(Debug)]
pub(crate) struct Outgoing {
    limits: SnapshotLimits,
    figures: SnapshotFigures,
    pace: Pace,
    slots: Semaphore,
    targets: Mutex<BTreeMap<MemberId, Target>>,
    /// Why nothing reached a member, as it was logged last: one that is down is tried every second.
    told: Mutex<BTreeMap<MemberId, String>>,
}

#[derive(Debug)]
struct Target {
    source: Arc<dyn SnapshotSource>,
    /// Of this state to this member, whatever broke between.
    since: Instant,
    touched: Instant,
    /// The newest attempt; an older one stops.
    attempt: u64,
    runs: bool,
}

impl Outgoing {
    pub(crate) fn new(limits: SnapshotLimits, figures: SnapshotFigures) -> Self {
        Outgoing {
            limits,
            figures,
            pace: Pace::new(limits.bytes_per_second),
            slots: Semaphore::new(limits.at_once),
            targets: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The state of a transfer that broke off a short while ago.
    pub(crate) fn broken_off(&self) -> Option<Arc<dyn SnapshotSource>> {
        let targets = self.targets.lock();
        let broken = targets.values().filter(|target| !target.runs && self.may_resume(target));
        let newest = broken.max_by_key(|target| target.source.label().at);
        newest.map(|target| Arc::clone(&target.source))
    }

    fn may_resume(&self, target: &Target) -> bool {
        target.touched.elapsed() < self.limits.resume_within
    }

    /// States that members are being brought up by, or that a broken transfer may go on with.
    pub(crate) fn held(&self) -> Vec<Held> {
        let mut targets = self.targets.lock();
        targets.retain(|_, target| target.runs || self.may_resume(target));
        let held = targets.iter().map(|(to, target)| {
            let index = target.source.label().at.index;
            Held { to: *to, index, since: target.since }
        });
        held.collect()
    }

    /// The log up to `index` goes: what lies below it is of no use to a member any more.
    pub(crate) fn let_go(&self, index: u64) {
        let mut targets = self.targets.lock();
        targets.retain(|_, target| target.runs || target.source.label().at.index >= index);
    }

    /// Brings member `to` up by a state; the vote is its answer, and higher than `vote` if that one is out of date.
    /// `ship` queues a step when it is called.
    pub(crate) async fn send<S, F>(
        &self,
        to: MemberId,
        vote: RaftVote,
        source: Arc<dyn SnapshotSource>,
        ship: S,
    ) -> Result<RaftVote, Broke>
    where
        S: Fn(Shipment) -> F + Send + Sync,
        F: Future<Output = Result<Taken, RPCError<TypeConfig>>> + Send,
    {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let mut attempt = self.begin(to, &source);
        let ship = |step| {
            let asked = ship(Shipment { vote, step });
            let limit = self.limits.answer;
            async move {
                let answered = timeout(limit, asked).await;
                answered.unwrap_or_else(|_elapsed| {
                    let words = "a piece of a whole state was not answered in time";
                    Err(RPCError::Network(NetworkError::from_string(words)))
                })
            }
        };
        let outcome = self.try_send(&attempt, vote, source.as_ref(), ship).await;
        match &outcome {
            Ok(answered) if *answered <= vote => attempt.succeeded(),
            Ok(_) => attempt.over("a higher vote"),
            Err(Broke::Refused(why)) => {
                attempt.over(why);
                tokio::time::sleep(REFUSED_REST).await;
            }
            Err(Broke::Failed(why)) => attempt.over(why),
            Err(Broke::Rpc(error)) => attempt.over(&error.to_string()),
        }
        outcome
    }

    fn begin(&self, to: MemberId, source: &Arc<dyn SnapshotSource>) -> Attempt<'_> {
        let now = Instant::now();
        let mut targets = self.targets.lock();
        let before = targets.get(&to);
        let number = before.map_or(1, |before| before.attempt + 1);
        let same = before.filter(|before| before.source.label() == source.label());
        let target = Target {
            source: Arc::clone(source),
            since: same.map_or(now, |before| before.since),
            touched: now,
            attempt: number,
            runs: true,
        };
        targets.insert(to, target);
        self.figures.send.begin(to);
        Attempt { outgoing: self, to, number, began: now, open: true }
    }

    async fn try_send<S, F>(
        &self,
        attempt: &Attempt<'_>,
        vote: RaftVote,
        source: &dyn SnapshotSource,
        ship: S,
    ) -> Result<RaftVote, Broke>
    where
        S: Fn(Step) -> F + Send + Sync,
        F: Future<Output = Result<Taken, RPCError<TypeConfig>>> + Send,
    {
        let label = source.label();
        let offered = ship(Step::Offer(label.clone())).await;
        let (session, received) = match place(vote, offered)? {
            Progress::At { session, received } => (session, received),
            Progress::Preparing => return Err(lost("it prepares what was not offered")),
            Progress::Over(vote) => return Ok(vote),
        };
        if received > label.len {
            return Err(lost("it has more than there is"));
        }
        let (to, at, bytes) = (attempt.to, label.at, label.len);
        tracing::info!(%to, %at, bytes, from = received, "sending a whole state");
        if let Some(higher) =
            self.send_pieces(attempt, vote, source, (session, received), &ship).await?
        {
            return Ok(higher);
        }
        let mut rest = ASK_AGAIN.0;
        loop {
            match place(vote, ship(Step::Finish { session }).await)? {
                Progress::Over(vote) => return Ok(vote),
                Progress::At { .. } => return Err(lost("it has lost what it had")),
                Progress::Preparing => attempt.still_newest()?,
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(ASK_AGAIN.1);
        }
    }

    /// `Some`: the receiver needs no more, by this vote.
    async fn send_pieces<S, F>(
        &self,
        attempt: &Attempt<'_>,
        vote: RaftVote,
        source: &dyn SnapshotSource,
        (session, received): (u64, u64),
        ship: &S,
    ) -> Result<Option<RaftVote>, Broke>
    where
        S: Fn(Step) -> F + Send + Sync,
        F: Future<Output = Result<Taken, RPCError<TypeConfig>>> + Send,
    {
        let len = source.label().len;
        let mut next = received;
        let mut under_way = FuturesOrdered::new();
        loop {
            while next < len && under_way.len() < self.limits.pieces {
                let left = usize::try_from(len - next).unwrap_or(usize::MAX);
                let wanted = left.min(self.limits.piece_bytes);
                self.pace.wait(wanted).await;
                attempt.still_newest()?;
                let content = source.read(next, wanted).await.map_err(Broke::Failed)?;
                if content.is_empty() || content.len() > wanted {
                    return Err(Broke::Failed(format!("the state has no bytes at {next}")));
                }
                let (offset, end) = (next, next + content.len() as u64);
                let sent = ship(Step::Piece { session, offset, content });
                under_way.push_back(async move { (end, sent.await) });
                next = end;
            }
            let Some((end, taken)) = under_way.next().await else { return Ok(None) };
            match place(vote, taken)? {
                Progress::At { received, .. } if received == end => attempt.touch(),
                Progress::At { .. } | Progress::Preparing => return Err(lost("it is elsewhere")),
                Progress::Over(vote) => return Ok(Some(vote)),
            }
        }
    }
}

/// Where a transfer stands, by one answer.
enum Progress {
    At {
        session: u64,
        received: u64,
    },
    Preparing,
    /// Installed, or a higher vote.
    Over(RaftVote),
}

fn lost(why: &str) -> Broke {
    Broke::Refused(format!("the receiver is out of step: {why}"))
}

fn place(vote: RaftVote, taken: Result<Taken, RPCError<TypeConfig>>) -> Result<Progress, Broke> {
    match taken.map_err(Broke::Rpc)? {
        Taken::Place { session, received } => Ok(Progress::At { session, received }),
        Taken::Preparing => Ok(Progress::Preparing),
        Taken::Installed(theirs) => Ok(Progress::Over(theirs)),
        // openraft takes any vote that is not higher for success.
        Taken::HigherVote(theirs) if theirs > vote => Ok(Progress::Over(theirs)),
        Taken::HigherVote(theirs) => Err(lost(&format!("it calls vote {theirs} a higher one"))),
        Taken::Refused(why) => Err(Broke::Refused(why)),
        Taken::Failed(why) => Err(Broke::Failed(why)),
    }
}

/// One try; dropped unsettled it has failed.
struct Attempt<'a> {
    outgoing: &'a Outgoing,
    to: MemberId,
    number: u64,
    began: Instant,
    open: bool,
}

impl Attempt<'_> {
    fn still_newest(&self) -> Result<(), Broke> {
        let targets = self.outgoing.targets.lock();
        match targets.get(&self.to) {
            Some(target) if target.attempt == self.number => Ok(()),
            Some(_) | None => Err(Broke::Refused("a newer transfer took its place".to_owned())),
        }
    }

    fn touch(&self) {
        let mut targets = self.outgoing.targets.lock();
        if let Some(target) = targets.get_mut(&self.to).filter(|t| t.attempt == self.number) {
            target.touched = Instant::now();
        }
    }

    fn succeeded(&mut self) {
        let took = self.began.elapsed();
        let mut targets = self.outgoing.targets.lock();
        if targets.get(&self.to).is_some_and(|target| target.attempt == self.number) {
            targets.remove(&self.to);
        }
        drop(targets);
        self.open = false;
        self.outgoing.told.lock().remove(&self.to);
        self.outgoing.figures.send.end(self.to, Some(took));
        tracing::info!(to = %self.to, ?took, "a whole state was sent and installed");
    }

    fn over(&mut self, why: &str) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut targets = self.outgoing.targets.lock();
        if let Some(target) = targets.get_mut(&self.to).filter(|t| t.attempt == self.number) {
            target.runs = false;
        }
        drop(targets);
        self.outgoing.figures.send.end(self.to, None);
        let told = self.outgoing.told.lock().insert(self.to, why.to_owned());
        if told.is_none_or(|told| told != why) {
            tracing::warn!(to = %self.to, why, took = ?self.began.elapsed(), "a whole state was not sent");
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.over("called off");
    }
}
