//! A group of one voter, over a journal on the device double.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use quorate_core::api::ids::{GroupId, LogId, MemberId, Term};
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{Entry, LogPayload, LogPosition, StoredMembership};

use super::{
    AppliedSink, Consensus, Fatal, NoPeers, ProposeError, PurgeLimits, ReadIndexError, Settings,
    SnapshotLimits, Timing,
};
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{Journal, JournalOptions, Runner};
use crate::support::spawn::Blocking;

const MEMBER: MemberId = MemberId(0x8e9e_05c5_2164_694d);

/// Remembers the sequence numbers it was given, in order.
#[derive(Default)]
struct Heard(Mutex<HeardState>);

#[derive(Default)]
struct HeardState {
    applied: Option<LogId>,
    membership: StoredMembership,
    seqs: Vec<u64>,
    fails_at: Option<u64>,
}

impl Heard {
    fn seqs(&self) -> Vec<u64> {
        self.0.lock().seqs.clone()
    }

    fn take(&self, at: LogId, payload: LogPayload) -> Result<(), Fatal> {
        let mut heard = self.0.lock();
        assert!(heard.applied.is_none_or(|before| before.index + 1 == at.index), "in order");
        match payload.payload {
            Some(Payload::Entry(entry)) if heard.fails_at == Some(entry.seq) => {
                return Err(Fatal("this entry cannot be applied".to_owned()));
            }
            Some(Payload::Entry(entry)) => heard.seqs.push(entry.seq),
            Some(Payload::Membership(membership)) => {
                let log_id = LogPosition { term: at.term.0, index: at.index };
                heard.membership =
                    StoredMembership { log_id: Some(log_id), membership: Some(membership) };
            }
            Some(Payload::Blank(_)) | None => {}
        }
        heard.applied = Some(at);
        Ok(())
    }
}

impl AppliedSink for Heard {
    fn apply(&self, entries: Vec<(LogId, LogPayload)>) -> BoxFuture<'_, Result<(), Fatal>> {
        Box::pin(
            async move { entries.into_iter().try_for_each(|(at, payload)| self.take(at, payload)) },
        )
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let heard = self.0.lock();
        (heard.applied, heard.membership.clone())
    }
}

struct Member {
    journal: Journal,
    sink: Arc<Heard>,
    consensus: Consensus,
}

impl Member {
    async fn start(device: &Arc<DoubleDevice>) -> Member {
        Member::start_with(device, Heard::default()).await
    }

    async fn start_with(device: &Arc<DoubleDevice>, sink: Heard) -> Member {
        let options = JournalOptions { segment_bytes: 1 << 16, ..JournalOptions::default() };
        let journal = Journal::open(device.clone(), options, Runner::Thread).unwrap();
        let sink = Arc::new(sink);
        let settings = Settings {
            group: GroupId(0),
            member: MEMBER,
            timing: Timing {
                heartbeat: Duration::from_millis(50),
                election_timeout: Duration::from_millis(500),
            },
            purge: PurgeLimits::default(),
            snapshots: SnapshotLimits::default(),
        };
        let blocking = Arc::new(Blocking::bounded(1));
        let log = journal.group(GroupId(0));
        let consensus = Consensus::start(settings, log, sink.clone(), Arc::new(NoPeers), blocking)
            .await
            .unwrap();
        let members = [(MEMBER, vec!["http://localhost:2380".to_owned()])];
        consensus.initialize(&members).await.unwrap();
        Member { journal, sink, consensus }
    }

    async fn led(&self) {
        let mut changes = self.consensus.leader_changes();
        let led = changes.wait_for(|view| view.leader() == Some(MEMBER));
        tokio::time::timeout(Duration::from_secs(20), led).await.unwrap().unwrap();
    }

    async fn stop(self) {
        self.consensus.shutdown().await;
        self.journal.close().unwrap();
    }
}

fn entry(seq: u64) -> Bytes {
    let entry = Entry { level: 1, seq, ..Entry::default() };
    Bytes::from(LogPayload { payload: Some(Payload::Entry(entry)) }.encode_to_vec())
}

async fn proposals_are_applied_in_order_and_again_after_a_restart() {
    let device = Arc::new(DoubleDevice::default());
    let member = Member::start(&device).await;
    member.led().await;
    let mut tickets = Vec::new();
    for seq in 1..=50 {
        tickets.push(member.consensus.propose(entry(seq)).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let all: Vec<u64> = (1..=50).collect();
    assert_eq!(member.sink.seqs(), all);
    let facts = member.consensus.facts();
    assert_eq!(facts.voters, [MEMBER]);
    let first_term = member.consensus.leader_view().term;
    assert_eq!(first_term, Term(1));
    member.stop().await;

    let member = Member::start(&device).await;
    member.led().await;
    let index = member.consensus.read_index().await.unwrap();
    let reached = || member.sink.applied().0.is_some_and(|at| at.index >= index);
    while !reached() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(member.sink.seqs(), all);
    assert!(member.consensus.leader_view().term > first_term, "a restart is a new term");
    member.stop().await;
}

#[tokio::test]
async fn proposals_are_applied_in_order_and_again_after_a_restart_on_one_thread() {
    proposals_are_applied_in_order_and_again_after_a_restart().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_applied_in_order_and_again_after_a_restart_on_many_threads() {
    proposals_are_applied_in_order_and_again_after_a_restart().await;
}

#[tokio::test]
async fn what_is_asked_after_the_stop_is_answered_so() {
    let member = Member::start(&Arc::default()).await;
    member.led().await;
    let consensus = member.consensus.clone();
    member.stop().await;
    assert_eq!(consensus.read_index().await, Err(ReadIndexError::Stopped));
    let refused = consensus.propose(entry(1)).await.err();
    assert!(matches!(refused, Some(ProposeError::Stopped(_))), "{refused:?}");
    consensus.wait_ended().await;
    assert_eq!(consensus.leader_view().leader(), None);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_group_with_its_words() {
    let sink = Heard::default();
    sink.0.lock().fails_at = Some(2);
    let member = Member::start_with(&Arc::default(), sink).await;
    member.led().await;
    member.consensus.propose(entry(1)).await.unwrap().await.unwrap();
    let ticket = member.consensus.propose(entry(2)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), ticket).await.unwrap();
    assert!(matches!(ended, Err(ProposeError::Stopped(_))), "{ended:?}");
    let cause = member.consensus.wait_ended().await;
    assert!(cause.contains("cannot be applied"), "{cause}");
    assert_eq!(member.sink.seqs(), [1]);
    member.stop().await;
}
