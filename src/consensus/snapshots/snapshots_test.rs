//! Whole states between a sender and a receiver, over a way whose breaks the test orders.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::errors::{NetworkError, RPCError};
use parking_lot::Mutex;
use quorate_core::api::ids::{LogId, MemberId};
use tokio::task::JoinHandle;

use super::receive::{Follows, allows};
use super::{Broke, Incoming, Outgoing, Receiving, SnapshotFigures, SnapshotLimits};
use crate::consensus::convert;
use crate::consensus::double::{Sink, Trouble, Whole};
use crate::consensus::network::{Shipment, Step, Taken};
use crate::consensus::snapshot_adapter::{Handle, HandleSnapshot};
use crate::consensus::types::{RaftLogId, RaftVote, SnapshotSource, TypeConfig};

const LEADER: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(3);
const TARGET: MemberId = MemberId(2);
/// Of a state of 1000 numbers, 16 pieces.
const LIMITS: SnapshotLimits = SnapshotLimits {
    log_bytes_per_second: 12 << 20,
    piece_bytes: 4000,
    pieces: 4,
    bytes_per_second: 64 << 20,
    at_once: 2,
    answer: Duration::from_secs(10),
    resume_within: Duration::from_secs(60),
};

/// What raft would say, and what it was made to install.
#[derive(Clone)]
struct Raft {
    vote: Arc<Mutex<RaftVote>>,
    committed: Arc<Mutex<Option<RaftLogId>>>,
}

impl Follows for Raft {
    fn vote(&self) -> RaftVote {
        *self.vote.lock()
    }

    fn last_committed(&self) -> Option<RaftLogId> {
        *self.committed.lock()
    }

    fn install(
        &self,
        vote: RaftVote,
        snapshot: HandleSnapshot,
    ) -> BoxFuture<'static, Result<RaftVote, String>> {
        let raft = self.clone();
        Box::pin(async move {
            let held = raft.vote();
            if !allows(held, vote) {
                return Ok(held);
            }
            *raft.vote.lock() = vote;
            let Handle::Prepared(prepared) = snapshot.snapshot else { panic!("it was received") };
            *raft.committed.lock() = snapshot.meta.last_log_id;
            prepared.install().await.map_err(|fatal| fatal.0)?;
            Ok(vote)
        })
    }
}

/// A receiver, and the way to it.
struct Bench {
    raft: Raft,
    sink: Sink,
    incoming: Incoming,
    figures: SnapshotFigures,
    task: JoinHandle<()>,
    /// Steps seen by the receiver.
    steps: Arc<Mutex<Vec<Step>>>,
}

/// What becomes of a step on its way, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Whole,
    /// Step `n` does not arrive.
    Lost(usize),
    /// Its answer does not.
    AnswerLost(usize),
}

fn leads(term: u64, member: MemberId) -> RaftVote {
    RaftVote::new_committed(term, member.0)
}

fn whole(index: u64) -> Arc<Whole> {
    Arc::new(Whole::at(LogId::new(3, index), 0..1000))
}

impl Bench {
    fn new() -> Bench {
        let raft = Raft { vote: Arc::new(Mutex::new(leads(5, LEADER))), committed: Arc::default() };
        let sink = Sink::new(None);
        let figures = SnapshotFigures::default();
        let (incoming, receiving) =
            Receiving::new(raft.clone(), Arc::new(sink.clone()), LIMITS, figures.clone());
        let task = tokio::spawn(receiving.run());
        Bench { raft, sink, incoming, figures, task, steps: Arc::default() }
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing::new(LIMITS, SnapshotFigures::default())
    }

    async fn send_over(
        &self,
        outgoing: &Outgoing,
        vote: RaftVote,
        source: Arc<Whole>,
        way: Way,
    ) -> Result<RaftVote, Broke> {
        let sent = Mutex::new(0);
        let ship = |shipment: Shipment| {
            let number = *sent.lock();
            *sent.lock() += 1;
            let (incoming, steps) = (self.incoming.clone(), Arc::clone(&self.steps));
            async move {
                let broken = || RPCError::Network(NetworkError::<TypeConfig>::from_string("broke"));
                if way == Way::Lost(number) {
                    return Err(broken());
                }
                steps.lock().push(shipment.step.clone());
                let taken = incoming.take(shipment).await;
                if way == Way::AnswerLost(number) { Err(broken()) } else { Ok(taken) }
            }
        };
        outgoing.send(TARGET, vote, source, ship).await
    }

    async fn send(&self, source: Arc<Whole>) -> Result<RaftVote, Broke> {
        self.send_over(&self.outgoing(), leads(5, LEADER), source, Way::Whole).await
    }

    async fn ask(&self, vote: RaftVote, step: Step) -> Taken {
        self.incoming.take(Shipment { vote, step }).await
    }

    async fn offer(&self, source: &Whole) -> (u64, u64) {
        match self.ask(leads(5, LEADER), Step::Offer(source.label().clone())).await {
            Taken::Place { session, received } => (session, received),
            other => panic!("{other:?}"),
        }
    }

    async fn piece(&self, session: u64, offset: u64, content: &[u8]) -> Taken {
        let content = Bytes::copy_from_slice(content);
        self.ask(leads(5, LEADER), Step::Piece { session, offset, content }).await
    }

    fn pieces_seen(&self) -> usize {
        let steps = self.steps.lock();
        steps.iter().filter(|step| matches!(step, Step::Piece { .. })).count()
    }

    fn holds_all(&self) -> bool {
        self.sink.installs() == 1 && self.sink.seqs() == (0..1000).collect::<Vec<_>>()
    }

    async fn eventually(&self, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(200);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_is_sent_in_pieces_and_installed_and_is_not_sent_twice() {
    let bench = Bench::new();
    assert_eq!(bench.send(whole(70)).await.unwrap(), leads(5, LEADER));
    assert!(bench.holds_all());
    assert_eq!(bench.pieces_seen(), 16);
    assert_eq!(bench.figures.successes(LEADER), (0, 1));
    // The leader did not hear that it was installed, and offers it once more.
    assert_eq!(bench.send(whole(70)).await.unwrap(), leads(5, LEADER));
    assert_eq!((bench.pieces_seen(), bench.sink.installs()), (16, 1));
}

#[tokio::test(start_paused = true)]
async fn whatever_frame_or_answer_is_lost_the_next_try_goes_on_where_it_stopped() {
    for number in 0..18 {
        for way in [Way::Lost(number), Way::AnswerLost(number)] {
            let bench = Bench::new();
            let outgoing = bench.outgoing();
            let first = bench.send_over(&outgoing, leads(5, LEADER), whole(70), way).await;
            assert!(matches!(first, Err(Broke::Rpc(_))), "{way:?}: {first:?}");
            let again = outgoing.broken_off().expect("it may be gone on with");
            assert_eq!(again.label(), whole(70).label());
            let here = bench.sink.partial(again.label());
            bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole).await.unwrap();
            assert!(bench.holds_all(), "{way:?}");
            // Those that were under way after the lost one come again.
            assert!(bench.pieces_seen() <= 16 + LIMITS.pieces, "{way:?}: {}", bench.pieces_seen());
            assert!(!(5..=16).contains(&number) || here > 0, "{way:?}: nothing was kept");
            assert!(outgoing.broken_off().is_none() && outgoing.held().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_twice_or_out_of_turn_or_of_an_older_offer_are_refused_and_harm_nothing() {
    let bench = Bench::new();
    let source = whole(70);
    let content = source.read(0, usize::MAX).await.unwrap();
    let (session, received) = bench.offer(&source).await;
    assert_eq!(received, 0);
    let refused = |taken: Taken| assert!(matches!(taken, Taken::Refused(_)), "{taken:?}");
    refused(bench.piece(session, 100, &content[100..200]).await);
    refused(bench.ask(leads(5, LEADER), Step::Finish { session }).await);
    let placed = bench.piece(session, 0, &content[..4000]).await;
    assert_eq!(placed, Taken::Place { session, received: 4000 });
    refused(bench.piece(session, 0, &content[..4000]).await);
    refused(bench.piece(session, 4000, &[]).await);
    refused(bench.piece(session, 4000, &vec![0; content.len()]).await);
    refused(bench.piece(session + 1, 4000, &content[4000..5000]).await);
    // A newer offer of the same goes on, and pieces of the older one do not count any more.
    let (newer, received) = bench.offer(&source).await;
    assert_eq!(received, 4000);
    assert_ne!(newer, session);
    refused(bench.piece(session, 4000, &content[4000..5000]).await);
    let placed = bench.piece(newer, 4000, &content[4000..]).await;
    assert_eq!(placed, Taken::Place { session: newer, received: content.len() as u64 });
    assert_eq!(
        bench.ask(leads(5, LEADER), Step::Finish { session: newer }).await,
        Taken::Preparing
    );
    bench.eventually(|| bench.holds_all()).await;
}

#[tokio::test(start_paused = true)]
async fn another_label_begins_anew() {
    let bench = Bench::new();
    let (session, _) = bench.offer(&whole(70)).await;
    let content = whole(70).read(0, 4000).await.unwrap();
    bench.piece(session, 0, &content).await;
    let newer = Arc::new(Whole::at(LogId::new(3, 90), 5..2000));
    let (other, received) = bench.offer(&newer).await;
    assert_eq!(received, 0);
    assert!(matches!(bench.piece(session, 0, &content).await, Taken::Refused(_)));
    assert_ne!(session, other);
    bench.send(newer).await.unwrap();
    assert_eq!(bench.sink.seqs(), (5..2000).collect::<Vec<_>>());
    assert_eq!(bench.figures.failures(LEADER), (0, 1), "the first was given up");
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_state_fails_and_the_next_try_starts_cleanly() {
    let bench = Bench::new();
    bench.sink.trouble(Trouble { corrupts: true, ..Trouble::default() });
    let sent = bench.send(whole(70)).await;
    assert!(matches!(&sent, Err(Broke::Failed(why)) if why.contains("sum")), "{sent:?}");
    assert_eq!(bench.sink.installs(), 0);
    bench.sink.trouble(Trouble::default());
    bench.send(whole(70)).await.unwrap();
    assert!(bench.holds_all());
    assert_eq!(bench.pieces_seen(), 32);
    assert_eq!((bench.figures.successes(LEADER).1, bench.figures.failures(LEADER).1), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_at_the_receiver_fails_the_transfer_and_nothing_else() {
    let bench = Bench::new();
    bench.sink.trouble(Trouble { full: true, ..Trouble::default() });
    let sent = bench.send(whole(70)).await;
    assert!(matches!(&sent, Err(Broke::Failed(why)) if why.contains("full")), "{sent:?}");
    bench.sink.trouble(Trouble::default());
    bench.send(whole(70)).await.unwrap();
    assert!(bench.holds_all());
}

#[tokio::test(start_paused = true)]
async fn a_higher_vote_stops_a_transfer_at_any_step() {
    for number in 0..17 {
        let bench = Bench::new();
        let newer = leads(6, OTHER);
        let vote = Arc::clone(&bench.raft.vote);
        let sent = Mutex::new(0);
        let outgoing = bench.outgoing();
        let ship = |shipment: Shipment| {
            if *sent.lock() == number {
                *vote.lock() = newer;
            }
            *sent.lock() += 1;
            let incoming = bench.incoming.clone();
            async move { Ok(incoming.take(shipment).await) }
        };
        let answered = outgoing.send(TARGET, leads(5, LEADER), whole(70), ship).await;
        assert_eq!(answered.unwrap(), newer, "step {number}");
        assert_eq!(bench.sink.installs(), 0);
        // What is here may still be of use to the new leader.
        bench.send_over(&outgoing, newer, whole(70), Way::Whole).await.unwrap();
        assert!(bench.holds_all());
    }
}

#[tokio::test(start_paused = true)]
async fn the_vote_of_who_asked_last_decides_when_it_is_prepared() {
    let bench = Bench::new();
    bench.sink.hold_prepare();
    let outgoing = bench.outgoing();
    let first = bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole);
    let begun = tokio::time::timeout(Duration::from_secs(1), first).await;
    assert!(begun.is_err(), "it prepares");
    // The first leader is gone; the next one offers the same and sends nothing again.
    let seen = bench.pieces_seen();
    *bench.raft.vote.lock() = leads(6, OTHER);
    let other = bench.outgoing();
    let second = bench.send_over(&other, leads(6, OTHER), whole(70), Way::Whole);
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.sink.let_prepare();
    };
    let (answered, ()) = tokio::join!(second, release);
    assert_eq!(answered.unwrap(), leads(6, OTHER));
    assert!(bench.holds_all());
    assert_eq!(bench.pieces_seen(), seen);
}

#[tokio::test(start_paused = true)]
async fn while_one_is_prepared_another_waits_its_turn() {
    let bench = Bench::new();
    bench.sink.hold_prepare();
    let (session, _) = bench.offer(&whole(70)).await;
    let content = whole(70).read(0, usize::MAX).await.unwrap();
    bench.piece(session, 0, &content).await;
    assert_eq!(bench.ask(leads(5, LEADER), Step::Finish { session }).await, Taken::Preparing);
    let other = Whole::at(LogId::new(3, 90), 0..10);
    let offered = bench.ask(leads(5, LEADER), Step::Offer(other.label().clone())).await;
    assert!(matches!(offered, Taken::Refused(_)), "{offered:?}");
    bench.sink.let_prepare();
    bench.eventually(|| bench.holds_all()).await;
    bench.send(Arc::new(other)).await.unwrap();
    assert_eq!(bench.sink.seqs(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_transfer_is_dropped_and_what_came_of_it_is_of_use_later() {
    let bench = Bench::new();
    let (session, _) = bench.offer(&whole(70)).await;
    let content = whole(70).read(0, 4000).await.unwrap();
    bench.piece(session, 0, &content).await;
    bench.eventually(|| bench.figures.failures(LEADER).1 == 1).await;
    assert!(matches!(bench.piece(session, 4000, &content).await, Taken::Refused(_)));
    let (_, received) = bench.offer(&whole(70)).await;
    assert_eq!(received, 4000);
}

#[tokio::test(start_paused = true)]
async fn of_two_senders_to_one_member_the_later_wins() {
    let bench = Bench::new();
    bench.sink.hold_prepare();
    let outgoing = bench.outgoing();
    let first = bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole);
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole);
        bench.sink.let_prepare();
        sent.await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(Broke::Refused(_))), "{first:?}");
    assert_eq!(second.unwrap(), leads(5, LEADER));
    assert!(bench.holds_all());
}

#[tokio::test(start_paused = true)]
async fn a_called_off_transfer_counts_as_failed_and_frees_its_slot() {
    let bench = Bench::new();
    bench.sink.hold_prepare();
    let figures = SnapshotFigures::default();
    let outgoing = Outgoing::new(SnapshotLimits { at_once: 1, ..LIMITS }, figures.clone());
    for count in 1..=3 {
        let sent = bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole);
        assert!(tokio::time::timeout(Duration::from_secs(1), sent).await.is_err());
        assert_eq!(figures.failures(TARGET).0, count);
    }
    assert_eq!(outgoing.held().len(), 1, "the log above it is still of use");
    outgoing.let_go(71);
    assert!(outgoing.held().is_empty() && outgoing.broken_off().is_none());
}

#[tokio::test(start_paused = true)]
async fn states_that_raft_would_stop_over_are_refused() {
    let bench = Bench::new();
    let refused = async |at: LogId| {
        let label = Whole::at(at, 0..10).label().clone();
        let taken = bench.ask(leads(5, LEADER), Step::Offer(label)).await;
        assert!(matches!(taken, Taken::Refused(_)), "{at}: {taken:?}");
    };
    refused(LogId::new(6, 70)).await;
    *bench.raft.committed.lock() = Some(convert::raft_log_id(LogId::new(2, 80)));
    refused(LogId::new(3, 70)).await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_keeps_to_its_rate() {
    let bench = Bench::new();
    let limits = SnapshotLimits { bytes_per_second: 6400, ..LIMITS };
    let outgoing = Outgoing::new(limits, SnapshotFigures::default());
    let began = tokio::time::Instant::now();
    bench.send_over(&outgoing, leads(5, LEADER), whole(70), Way::Whole).await.unwrap();
    let took = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(11)).contains(&took), "{took:?}");
}
