//! The window of appends, over a transport whose answers the test gives.

use std::time::Duration;

use futures::poll;
use openraft::raft::StreamAppendError;
use parking_lot::Mutex;
use quorate_core::api::ids::LogId;
use tokio::sync::oneshot;

use super::*;
use crate::consensus::convert;
use crate::consensus::types::{Proposal, RaftEntry, RaftLogId, RaftPayload};

type Reply = oneshot::Sender<Result<Bytes, TransportError>>;

/// Asks that wait for the test's answer, and how many there were.
#[derive(Debug, Default)]
struct Held {
    waiting: Mutex<std::collections::VecDeque<Reply>>,
    asked: Mutex<usize>,
}

impl Held {
    fn asked(&self) -> usize {
        *self.asked.lock()
    }

    fn answer(&self, response: AppendEntriesResponse<TypeConfig>) {
        let reply = self.waiting.lock().pop_front().unwrap();
        drop(reply.send(Ok(Answer::Append(response).encode())));
    }
}

impl Transport for Held {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        _frame: Bytes,
    ) -> futures::future::BoxFuture<'a, Result<Bytes, TransportError>> {
        let (reply, told) = oneshot::channel();
        self.waiting.lock().push_back(reply);
        *self.asked.lock() += 1;
        let to = lane.to;
        Box::pin(async move {
            told.await.unwrap_or_else(|_| Err(TransportError::Broken(to, "test".to_owned())))
        })
    }
}

fn at(index: u64) -> RaftLogId {
    convert::raft_log_id(LogId::new(1, index))
}

/// Entry `index` alone, of about so many bytes.
fn append(index: u64, bytes: usize) -> AppendEntriesRequest<TypeConfig> {
    let payload = RaftPayload::Normal(Proposal(vec![0x12; bytes].into()));
    AppendEntriesRequest {
        vote: RaftVote::new_committed(1, 1),
        prev_log_id: Some(at(index - 1)),
        entries: vec![RaftEntry { log_id: at(index), payload }],
        leader_commit: None,
    }
}

fn client(held: &Arc<Held>) -> Client {
    let transport: Arc<dyn Transport> = Arc::clone(held) as _;
    let outgoing = Arc::new(Outgoing::new(Default::default(), Default::default()));
    let network = Network::new(
        GroupId(0),
        MemberId(1),
        transport,
        outgoing,
        Floor::default(),
        Arc::default(),
    );
    network.client(2, Purpose::Log)
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_secs(1))
}

#[tokio::test]
async fn a_window_of_appends_is_under_way_and_answered_in_order() {
    let held = Arc::new(Held::default());
    let mut client = client(&held);
    let input = stream::iter((1..=40).map(|index| append(index, 10)));
    let mut answers = client.stream_append(input, option()).await.unwrap();
    assert!(poll!(answers.next()).is_pending());
    assert_eq!(held.asked(), WINDOW);
    for index in 1..=40 {
        held.answer(AppendEntriesResponse::Success);
        let answered = answers.next().await.unwrap().unwrap();
        assert_eq!(answered, Ok(Some(at(index))));
    }
    assert_eq!(held.asked(), 40);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn the_window_is_bounded_in_bytes_and_opens_with_the_answers() {
    let held = Arc::new(Held::default());
    let mut client = client(&held);
    let input = stream::iter((1..=40).map(|index| append(index, FIRST_BYTES * 2 / 3)));
    let mut answers = client.stream_append(input, option()).await.unwrap();
    let mut most = 0;
    for answered in 0..40 {
        if answered + 2 < 40 {
            assert!(poll!(answers.next()).is_pending());
        }
        most = most.max(held.asked() - answered);
        if answered == 0 {
            assert_eq!(held.asked(), 2, "few at first");
        }
        held.answer(AppendEntriesResponse::Success);
        assert!(answers.next().await.unwrap().is_ok());
    }
    assert_eq!(most, WINDOW_BYTES / (FIRST_BYTES * 2 / 3));
}

#[tokio::test]
async fn an_append_that_is_not_taken_whole_ends_the_stream() {
    let ends = [
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(RaftVote::new(9, 2)),
        AppendEntriesResponse::PartialSuccess(Some(at(1))),
    ];
    for end in ends {
        let held = Arc::new(Held::default());
        let mut client = client(&held);
        let input = stream::iter((1..=5).map(|index| append(index, 10)));
        let mut answers = client.stream_append(input, option()).await.unwrap();
        assert!(poll!(answers.next()).is_pending());
        held.answer(AppendEntriesResponse::Success);
        held.answer(end);
        held.answer(AppendEntriesResponse::Success);
        assert!(answers.next().await.unwrap().unwrap().is_ok());
        assert!(answers.next().await.is_some());
        assert!(answers.next().await.is_none());
    }
}

#[tokio::test]
async fn a_heartbeats_stream_ends_with_its_only_answer() {
    let held = Arc::new(Held::default());
    let mut client = client(&held);
    let beat = AppendEntriesRequest { entries: Vec::new(), ..append(1, 0) };
    let mut answers = client.stream_append(stream::iter([beat]), option()).await.unwrap();
    assert!(poll!(answers.next()).is_pending());
    held.answer(AppendEntriesResponse::Success);
    assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(at(0))));
    assert!(answers.next().await.is_none());
}

/// Nothing new, but a commit index.
fn commit(prev: u64) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest { entries: Vec::new(), prev_log_id: Some(at(prev)), ..append(prev, 0) }
}

// openraft takes an answer up to index n for one to everything under way that ends at n, and dates the quorum's
// acknowledgement, which linearizable reads wait for, by the last of these.
#[tokio::test]
async fn an_answer_is_held_back_while_a_later_append_that_ends_where_it_does_has_none() {
    let held = Arc::new(Held::default());
    let mut client = client(&held);
    let input = stream::iter([append(1, 10), append(2, 10), commit(2), commit(2), append(3, 10)]);
    let mut answers = client.stream_append(input, option()).await.unwrap();
    assert!(poll!(answers.next()).is_pending());
    assert_eq!(held.asked(), 5);
    held.answer(AppendEntriesResponse::Success);
    assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(at(1))));
    for _ in 0..2 {
        held.answer(AppendEntriesResponse::Success);
        assert!(poll!(answers.next()).is_pending());
    }
    held.answer(AppendEntriesResponse::Success);
    assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(at(2))));
    held.answer(AppendEntriesResponse::Success);
    assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(at(3))));
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_fault_after_an_answer_that_was_held_back_is_told() {
    let held = Arc::new(Held::default());
    let mut client = client(&held);
    let input = stream::iter([append(1, 10), commit(1)]);
    let mut answers = client.stream_append(input, option()).await.unwrap();
    assert!(poll!(answers.next()).is_pending());
    held.answer(AppendEntriesResponse::Success);
    let vote = RaftVote::new(9, 2);
    held.answer(AppendEntriesResponse::HigherVote(vote));
    let told = answers.next().await.unwrap().unwrap();
    assert_eq!(told, Err(StreamAppendError::HigherVote(vote)));
    assert!(answers.next().await.is_none());
}
