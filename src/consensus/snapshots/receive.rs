//! The follower's side: one task that owns what arrives, from the offer until it is in force.
//!
//! ```text
//!            offer, same label: goes on ┐
//!   none ──offer──> Arriving ──pieces──┴── finish ──> Preparing ──> Over(installed | failed)
//!                      └── silent for too long, or another label: dropped
//! ```
//!
//! **Invariant:** a piece is taken only at the offset that follows what is here, and only of the newest offer.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{SnapshotFigures, SnapshotLimits};
use crate::consensus::network::{Shipment, Step, Taken};
use crate::consensus::snapshot_adapter::{Handle, HandleSnapshot, meta};
use crate::consensus::types::{
    AppliedSink, PreparedSnapshot, RaftLogId, RaftVote, SnapshotLabel, SnapshotReceiver,
};
use crate::consensus::{Raft, convert};

/// Steps that wait for the task; what is more is refused.
const STEPS_MAX: usize = 64;

/// What receiving asks of raft.
pub(crate) trait Follows: Send + Sync + 'static {
    /// The vote it holds.
    fn vote(&self) -> RaftVote;
    /// The last entry it knows to be committed.
    fn last_committed(&self) -> Option<RaftLogId>;
    /// Has a state installed if the vote allows it; tells raft's vote then.
    fn install(
        &self,
        vote: RaftVote,
        snapshot: HandleSnapshot,
    ) -> BoxFuture<'static, Result<RaftVote, String>>;
}

impl Follows for Raft {
    fn vote(&self) -> RaftVote {
        self.server_metrics().borrow_watched().vote
    }

    fn last_committed(&self) -> Option<RaftLogId> {
        self.metrics().borrow_watched().local_committed
    }

    fn install(
        &self,
        vote: RaftVote,
        snapshot: HandleSnapshot,
    ) -> BoxFuture<'static, Result<RaftVote, String>> {
        let raft = self.clone();
        Box::pin(async move {
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            installed.map(|response| response.vote).map_err(|error| error.to_string())
        })
    }
}

struct Order {
    shipment: Shipment,
    answer: oneshot::Sender<Taken>,
}

/// Where a member's steps are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Incoming(mpsc::Sender<Order>);

impl Incoming {
    /// Takes one step; steps are done in the order in which this is first polled.
    pub(crate) async fn take(&self, shipment: Shipment) -> Taken {
        let (answer, told) = oneshot::channel();
        if let Err(error) = self.0.try_send(Order { shipment, answer }) {
            return Taken::Refused(match error {
                mpsc::error::TrySendError::Full(_) => "too much is under way".to_owned(),
                mpsc::error::TrySendError::Closed(_) => "this member stops".to_owned(),
            });
        }
        told.await.unwrap_or_else(|_| Taken::Refused("this member stops".to_owned()))
    }
}

/// The task behind it.
pub(crate) struct Receiving<R> {
    raft: Arc<R>,
    sink: Arc<dyn AppliedSink>,
    limits: SnapshotLimits,
    figures: SnapshotFigures,
    orders: mpsc::Receiver<Order>,
    session: Option<Session>,
    drawn: u64,
}

/// One offer that was taken up, and what came of it.
struct Session {
    number: u64,
    label: SnapshotLabel,
    /// The newest sender's.
    vote: Arc<Mutex<RaftVote>>,
    from: MemberId,
    began: Instant,
    touched: Instant,
    stage: Stage,
    figures: SnapshotFigures,
}

enum Stage {
    Arriving(Box<dyn SnapshotReceiver>),
    Preparing(BoxFuture<'static, Result<RaftVote, String>>),
    Over(Result<RaftVote, String>),
}

impl Session {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    fn end(&mut self, outcome: Result<RaftVote, String>) {
        if self.is_over() {
            return;
        }
        let took = self.began.elapsed();
        let (from, at, bytes) = (self.from, self.label.at, self.label.len);
        match &outcome {
            Ok(_) => {
                tracing::info!(%from, %at, bytes, ?took, "a whole state was received and installed")
            }
            Err(why) => {
                tracing::warn!(%from, %at, bytes, ?took, why, "a whole state was not received")
            }
        }
        self.figures.receive.end(from, outcome.is_ok().then_some(took));
        self.touched = Instant::now();
        self.stage = Stage::Over(outcome);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end(Err("called off".to_owned()));
    }
}

/// What the task waits for beside steps.
enum Happened {
    Prepared(Result<RaftVote, String>),
    Silent,
}

impl<R: Follows> Receiving<R> {
    pub(crate) fn new(
        raft: R,
        sink: Arc<dyn AppliedSink>,
        limits: SnapshotLimits,
        figures: SnapshotFigures,
    ) -> (Incoming, Receiving<R>) {
        let (order, orders) = mpsc::channel(STEPS_MAX);
        let receiving = Receiving {
            raft: Arc::new(raft),
            sink,
            limits,
            figures,
            orders,
            session: None,
            drawn: 0,
        };
        (Incoming(order), receiving)
    }

    /// Until every [`Incoming`] is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let happened = happens(self.session.as_mut(), self.limits.resume_within);
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order { shipment, answer }) => {
                        let taken = self.take(shipment).await;
                        // Whoever asked may have gone.
                        drop(answer.send(taken));
                    }
                    None => return,
                },
                happened = happened => match (happened, self.session.as_mut()) {
                    (Happened::Prepared(outcome), Some(session)) => session.end(outcome),
                    (Happened::Prepared(_), None) => {}
                    (Happened::Silent, _) => self.drop_session("nothing came for too long"),
                },
            }
        }
    }

    fn drop_session(&mut self, why: &str) {
        if let Some(mut session) = self.session.take() {
            session.end(Err(why.to_owned()));
        }
    }

    async fn take(&mut self, Shipment { vote, step }: Shipment) -> Taken {
        let held = self.raft.vote();
        if !allows(held, vote) {
            return Taken::HigherVote(held);
        }
        if let Some(session) = &mut self.session {
            let mut newest = session.vote.lock();
            if !allows(*newest, vote) {
                return Taken::HigherVote(*newest);
            }
            if !matches!(step, Step::Offer(_)) {
                *newest = vote;
            }
        }
        match step {
            Step::Offer(label) => self.offered(vote, label).await,
            Step::Piece { session, offset, content } => self.piece(session, offset, content).await,
            Step::Finish { session } => self.finish(session),
        }
    }

    async fn offered(&mut self, vote: RaftVote, label: SnapshotLabel) -> Taken {
        let at = convert::raft_log_id(label.at);
        let committed = self.raft.last_committed();
        if committed.is_some_and(|committed| at <= committed) {
            return Taken::Installed(self.raft.vote());
        }
        if let Err(why) = fits(vote, &label, committed) {
            return Taken::Refused(why);
        }
        self.drawn += 1;
        // Another label never has a number that was drawn for this one.
        let number = self.drawn ^ label.hash;
        if let Some(session) = self.session.as_mut().filter(|session| session.label == label) {
            let received = match &session.stage {
                Stage::Arriving(receiver) => Some(receiver.received()),
                Stage::Preparing(_) => Some(label.len),
                Stage::Over(_) => None,
            };
            if let Some(received) = received {
                *session.vote.lock() = vote;
                session.number = number;
                session.touched = Instant::now();
                return Taken::Place { session: number, received };
            }
        }
        if self.session.as_ref().is_some_and(|session| matches!(session.stage, Stage::Preparing(_)))
        {
            return Taken::Refused("another state is being prepared".to_owned());
        }
        self.drop_session("another state is sent instead");
        self.begin(vote, label, number).await
    }

    async fn begin(&mut self, vote: RaftVote, label: SnapshotLabel, number: u64) -> Taken {
        let receiver = match self.sink.receive(label.clone()).await {
            Ok(receiver) => receiver,
            Err(why) => return Taken::Failed(why),
        };
        let received = receiver.received();
        let from = MemberId(vote.leader_id.voted_for);
        let (at, bytes) = (label.at, label.len);
        tracing::info!(%from, %at, bytes, received, "receiving a whole state");
        let now = Instant::now();
        self.figures.receive.begin(from);
        self.session = Some(Session {
            number,
            label,
            vote: Arc::new(Mutex::new(vote)),
            from,
            began: now,
            touched: now,
            stage: Stage::Arriving(receiver),
            figures: self.figures.clone(),
        });
        Taken::Place { session: number, received }
    }

    /// The session of this number.
    fn session(&mut self, number: u64) -> Result<&mut Session, Taken> {
        match self.session.as_mut() {
            Some(session) if session.number == number => {
                session.touched = Instant::now();
                Ok(session)
            }
            Some(_) | None => Err(Taken::Refused("this is not expected any more".to_owned())),
        }
    }

    async fn piece(&mut self, number: u64, offset: u64, content: bytes::Bytes) -> Taken {
        let session = match self.session(number) {
            Ok(session) => session,
            Err(refused) => return refused,
        };
        let Stage::Arriving(receiver) = &mut session.stage else {
            return Taken::Refused("no more of it is expected".to_owned());
        };
        let received = receiver.received();
        let fits = session.label.len - received.min(session.label.len);
        if offset != received || content.is_empty() || content.len() as u64 > fits {
            let bytes = content.len();
            return Taken::Refused(format!("{bytes} bytes at {offset}, while {received} are here"));
        }
        match receiver.write(content).await {
            Ok(()) => Taken::Place { session: number, received: receiver.received() },
            Err(why) => {
                session.end(Err(why.clone()));
                Taken::Failed(why)
            }
        }
    }

    fn finish(&mut self, number: u64) -> Taken {
        let raft = Arc::clone(&self.raft);
        let session = match self.session(number) {
            Ok(session) => session,
            Err(refused) => return refused,
        };
        match &session.stage {
            Stage::Arriving(receiver) => {
                let received = receiver.received();
                if received != session.label.len {
                    return Taken::Refused(format!("only {received} bytes of it are here"));
                }
            }
            Stage::Preparing(_) => return Taken::Preparing,
            Stage::Over(Ok(vote)) => return Taken::Installed(*vote),
            Stage::Over(Err(why)) => return Taken::Failed(why.clone()),
        }
        let nothing = Stage::Over(Err("called off".to_owned()));
        if let Stage::Arriving(receiver) = std::mem::replace(&mut session.stage, nothing) {
            let life = prepare_and_install(raft, receiver, session.label.clone(), &session.vote);
            session.stage = Stage::Preparing(life);
        }
        Taken::Preparing
    }
}

/// Whether who holds one vote takes what comes by another: votes that cannot be compared do not.
pub(super) fn allows(held: RaftVote, vote: RaftVote) -> bool {
    vote.partial_cmp(&held).is_some_and(std::cmp::Ordering::is_ge)
}

/// Why a label cannot be of this group: raft would stop the member over it.
fn fits(vote: RaftVote, label: &SnapshotLabel, committed: Option<RaftLogId>) -> Result<(), String> {
    if label.at.term.0 > vote.leader_id.term {
        return Err(format!("the state at {} is of a later term than its sender", label.at));
    }
    if committed.is_some_and(|committed| label.at.index <= committed.index) {
        return Err(format!("the state at {} contradicts what is committed here", label.at));
    }
    Ok(())
}

fn prepare_and_install<R: Follows>(
    raft: Arc<R>,
    receiver: Box<dyn SnapshotReceiver>,
    label: SnapshotLabel,
    vote: &Arc<Mutex<RaftVote>>,
) -> BoxFuture<'static, Result<RaftVote, String>> {
    let vote = Arc::clone(vote);
    Box::pin(async move {
        let prepared: Box<dyn PreparedSnapshot> = receiver.prepare().await?;
        let vote = *vote.lock();
        let committed = raft.last_committed();
        if committed.is_none_or(|committed| convert::raft_log_id(label.at) > committed) {
            fits(vote, &label, committed)?;
        }
        let meta = meta(&label).map_err(|error| error.to_string())?;
        let snapshot = Snapshot { meta, snapshot: Handle::Prepared(prepared) };
        let held = raft.install(vote, snapshot).await?;
        if held > vote {
            return Err(format!("the vote went on to {held}"));
        }
        Ok(held)
    })
}

/// The next thing to do for a session without being asked.
async fn happens(session: Option<&mut Session>, silence: Duration) -> Happened {
    let Some(session) = session else { return std::future::pending().await };
    match &mut session.stage {
        Stage::Preparing(life) => Happened::Prepared(life.await),
        Stage::Arriving(_) | Stage::Over(_) => {
            tokio::time::sleep_until(session.touched + silence).await;
            Happened::Silent
        }
    }
}
