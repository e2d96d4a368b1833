//! The keyspace's members as the corruption checks see them, and this member's answers to the others.
//!
//! ```text
//!   leader: peers(R) ── KeyspaceRequest::HashKv(R) ──▶ every other member: known? told
//!                         again, until it is told          not yet? pending: HashDesk computes it meanwhile
//! ```
//!
//! A lane answers in order, and renewals of leases go by the same one: so a question that takes long is answered with
//! "pending", and asked again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::alarm_request::AlarmAction;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::{Blank, Command};
use quorate_core::api::refusal::Refusal;
use quorate_core::state_machine::KvHash;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::corrupt::{Hasher, NoHash, PeerHash, Told};
use super::hash::Hashes;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::members;
use crate::keyspace::peers::ask_member;
use crate::keyspace::read::Reader;
use crate::keyspace::write::Writer;

/// Between two questions for a hash that is pending.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a member that cannot be reached is tried.
const REACH_FOR: Duration = Duration::from_secs(2);
/// How long a hash may take.
const HASH_FOR: Duration = Duration::from_secs(60);
/// Hashes that are computed for others, or wait to be fetched.
const DESK_MAX: usize = 8;

/// One member among the others.
#[derive(Clone)]
pub(crate) struct Comparer {
    pub(crate) hashes: Hashes,
    pub(crate) writer: Arc<Writer>,
    pub(crate) reader: Arc<Reader>,
}

impl Comparer {
    async fn peer(&self, member: MemberId, revision: i64) -> PeerHash {
        let mut until = Instant::now() + REACH_FOR;
        let mut reached = false;
        let told = loop {
            match ask_member(&self.writer.consensus, member, Ask::HashKv(revision)).await {
                Answer::HashKv(response) => break Ok(told(response)),
                Answer::Compacted(Blank {}) => break Err(NoHash::Compacted),
                Answer::FutureRevision(Blank {}) => break Err(NoHash::Future),
                Answer::Pending(Blank {}) => {
                    if !std::mem::replace(&mut reached, true) {
                        until = Instant::now() + HASH_FOR;
                    }
                }
                Answer::Failed(Blank {})
                | Answer::NotLeader(Blank {})
                | Answer::LeaseRenewed(_)
                | Answer::LeaseTimeToLive(_)
                | Answer::MemberChanged(_)
                | Answer::SilentForMs(_)
                | Answer::KnownLevel(_) => {}
            }
            if Instant::now() >= until {
                break Err(NoHash::Silent);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        PeerHash { member, told }
    }
}

fn told(response: pb::HashKvResponse) -> Told {
    Told {
        hash: KvHash {
            hash: response.hash,
            compact_revision: response.compact_revision,
            revision: response.hash_revision,
        },
        current: response.header.map_or(0, |header| header.revision),
    }
}

impl Hasher for Comparer {
    fn member(&self) -> MemberId {
        self.writer.member
    }

    fn leads(&self) -> bool {
        self.writer.consensus.leader_view().leader() == Some(self.writer.member)
    }

    async fn hash(&self, revision: i64) -> Result<(KvHash, i64), KeyspaceError> {
        self.hashes.at(revision).await
    }

    async fn peers(&self, revision: i64) -> Vec<PeerHash> {
        let all = members::list(&self.hashes.state.machine.read());
        let others = all.iter().map(|member| MemberId(member.id)).filter(|id| *id != self.member());
        join_all(others.map(|id| self.peer(id, revision))).await
    }

    fn compactions(&self) -> Vec<KvHash> {
        self.hashes.sweeper.cached_hashes()
    }

    async fn linearize(&self) -> Result<(), KeyspaceError> {
        self.reader.linearize().await
    }

    async fn raise(&self, member: MemberId) {
        let alarm = pb::AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: member.0,
            alarm: pb::AlarmType::Corrupt as i32,
        };
        let command = Command { request: Some(Request::Alarm(alarm)), ..Command::default() };
        if let Err(error) = self.writer.write_unbounded(&command).await {
            tracing::warn!(%member, %error, "the CORRUPT alarm could not be raised");
        }
    }
}

/// Hashes that other members asked for, computed one after the other.
#[derive(Debug, Default)]
pub(crate) struct HashDesk {
    jobs: Mutex<VecDeque<Job>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Job {
    revision: i64,
    answer: Option<Answer>,
}

impl HashDesk {
    /// What is to be told now to a member that asks for the hash at `revision`.
    pub(crate) fn ask(&self, revision: i64) -> Answer {
        let mut jobs = self.jobs.lock();
        if let Some(place) = jobs.iter().position(|job| job.revision == revision) {
            return match jobs[place].answer.take() {
                Some(answer) => {
                    jobs.remove(place);
                    answer
                }
                None => Answer::Pending(Blank {}),
            };
        }
        if jobs.len() >= DESK_MAX {
            // Whoever asked for it went away.
            match jobs.iter().position(|job| job.answer.is_some()) {
                Some(place) => drop(jobs.remove(place)),
                None => return Answer::Failed(Blank {}),
            }
        }
        jobs.push_back(Job { revision, answer: None });
        self.arrived.notify_one();
        Answer::Pending(Blank {})
    }

    /// Computes for ever; the keyspace's owner drops it.
    pub(crate) async fn run(self: Arc<Self>, hashes: Hashes) {
        loop {
            let next = {
                let jobs = self.jobs.lock();
                jobs.iter().find(|job| job.answer.is_none()).map(|job| job.revision)
            };
            let Some(revision) = next else {
                self.arrived.notified().await;
                continue;
            };
            let answer = answer(&hashes, revision).await;
            let mut jobs = self.jobs.lock();
            if let Some(job) = jobs.iter_mut().find(|job| job.revision == revision) {
                job.answer = Some(answer);
            }
        }
    }
}

async fn answer(hashes: &Hashes, revision: i64) -> Answer {
    match hashes.at(revision).await {
        Ok((hash, current)) => Answer::HashKv(pb::HashKvResponse {
            header: Some(pb::ResponseHeader { revision: current, ..Default::default() }),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        }),
        Err(KeyspaceError::Refused(Refusal::Compacted)) => Answer::Compacted(Blank {}),
        Err(KeyspaceError::Refused(Refusal::FutureRevision)) => Answer::FutureRevision(Blank {}),
        Err(_) => Answer::Failed(Blank {}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_pending_until_it_is_there_and_told_once() {
        let desk = HashDesk::default();
        assert_eq!(desk.ask(7), Answer::Pending(Blank {}));
        assert_eq!(desk.ask(7), Answer::Pending(Blank {}));
        desk.jobs.lock()[0].answer = Some(Answer::Compacted(Blank {}));
        assert_eq!(desk.ask(7), Answer::Compacted(Blank {}));
        assert!(desk.jobs.lock().is_empty());
    }

    #[test]
    fn a_full_desk_forgets_what_nobody_fetched() {
        let desk = HashDesk::default();
        for revision in 0..DESK_MAX as i64 {
            desk.ask(revision);
        }
        assert_eq!(desk.ask(100), Answer::Failed(Blank {}));
        desk.jobs.lock()[3].answer = Some(Answer::Compacted(Blank {}));
        assert_eq!(desk.ask(100), Answer::Pending(Blank {}));
        assert_eq!(desk.jobs.lock().len(), DESK_MAX);
    }
}
