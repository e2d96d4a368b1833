//! The replicated leases and the leader's seat, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quorate_core::api::batch::LeaseChange;
use quorate_core::api::ids::{LeaseId, LogId, Term};
use quorate_core::api::pb::etcdserverpb::LeaseCheckpointRequest;
use quorate_core::api::pb::internal::LeaseExpiry;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::keyspace::lease::{
    Leadership, LeaseFact, LeaseFacts, Lessor, LessorOptions, NotLeader, ProposalFailed,
};

pub(super) const ELECTION: Duration = Duration::from_secs(1);

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is applied at once.
    Applied,
    /// It fails at once.
    Failed,
    /// It neither fails nor is applied, until the fate changes.
    Waits,
}

#[derive(Debug)]
struct Facts {
    leases: BTreeMap<LeaseId, LeaseFact>,
    term: u64,
    index: u64,
    confirms: bool,
    /// How long the next confirmations take.
    delays: VecDeque<Duration>,
    fate: Fate,
    /// When each lease ended, and by what.
    ended: Vec<(LeaseId, Instant)>,
    expiries: Vec<LeaseExpiry>,
    checkpoints: Vec<LeaseCheckpointRequest>,
    confirmations: usize,
    lessor: Option<Lessor>,
}

/// A member: its replicated leases, its seat, its lessor with the task that runs it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    facts: Arc<Mutex<Facts>>,
    changed: Arc<Notify>,
}

impl Member {
    /// A member that follows in term 1.
    pub(super) fn new() -> Member {
        let facts = Facts {
            leases: BTreeMap::new(),
            term: 1,
            index: 0,
            confirms: true,
            delays: VecDeque::new(),
            fate: Fate::Applied,
            ended: Vec::new(),
            expiries: Vec::new(),
            checkpoints: Vec::new(),
            confirmations: 0,
            lessor: None,
        };
        let member = Member { facts: Arc::new(Mutex::new(facts)), changed: Arc::default() };
        let options = LessorOptions::for_election_timeout(ELECTION);
        let lessor = Lessor::new(Arc::new(member.clone()), Arc::new(member.clone()), options);
        member.facts.lock().lessor = Some(lessor);
        member
    }

    /// A member that leads term 1 and whose lessor runs.
    pub(super) fn leading() -> (Member, JoinHandle<()>) {
        let member = Member::new();
        let running = tokio::spawn(member.lessor().run(std::future::pending()));
        member.lead(1);
        (member, running)
    }

    pub(super) fn lessor(&self) -> Lessor {
        self.facts.lock().lessor.clone().unwrap()
    }

    /// Wins `term` and applies its first entry.
    pub(super) fn lead(&self, term: u64) {
        self.lessor().leads(Some(Term(term)));
        self.begin(term);
    }

    /// Applies the first entry of `term`.
    pub(super) fn begin(&self, term: u64) {
        self.facts.lock().term = term;
        self.apply(Vec::new());
    }

    /// Learns that another member leads.
    pub(super) fn follow(&self) {
        self.lessor().leads(None);
    }

    pub(super) fn set_fate(&self, fate: Fate) {
        self.facts.lock().fate = fate;
        self.changed.notify_waiters();
    }

    pub(super) fn set_confirms(&self, confirms: bool) {
        self.facts.lock().confirms = confirms;
    }

    pub(super) fn delay_confirmations(&self, delays: impl IntoIterator<Item = Duration>) {
        self.facts.lock().delays.extend(delays);
    }

    pub(super) fn grant(&self, id: i64, granted_ttl: i64) {
        let id = LeaseId(id);
        let fact = LeaseFact { id, granted_ttl, remaining_ttl: 0 };
        self.facts.lock().leases.insert(id, fact);
        self.apply(vec![LeaseChange::Granted { id, ttl: granted_ttl }]);
    }

    pub(super) fn revoke(&self, id: i64) {
        self.end(&[id]);
    }

    fn end(&self, ids: &[i64]) {
        let mut changes = Vec::new();
        {
            let mut facts = self.facts.lock();
            for id in ids.iter().copied().map(LeaseId) {
                if facts.leases.remove(&id).is_some() {
                    facts.ended.push((id, Instant::now()));
                    changes.push(LeaseChange::Ended { id });
                }
            }
        }
        self.apply(changes);
    }

    fn apply(&self, changes: Vec<LeaseChange>) {
        let (at, lessor) = {
            let mut facts = self.facts.lock();
            facts.index += 1;
            (LogId::new(facts.term, facts.index), facts.lessor.clone().unwrap())
        };
        lessor.applied(at, &changes);
    }

    pub(super) fn alive(&self) -> Vec<i64> {
        self.facts.lock().leases.keys().map(|id| id.0).collect()
    }

    pub(super) fn remaining(&self, id: i64) -> Option<i64> {
        self.facts.lock().leases.get(&LeaseId(id)).map(|fact| fact.remaining_ttl)
    }

    pub(super) fn ended(&self) -> Vec<(LeaseId, Instant)> {
        self.facts.lock().ended.clone()
    }

    pub(super) fn expiries(&self) -> Vec<LeaseExpiry> {
        self.facts.lock().expiries.clone()
    }

    pub(super) fn checkpoints(&self) -> Vec<LeaseCheckpointRequest> {
        self.facts.lock().checkpoints.clone()
    }

    pub(super) fn confirmations(&self) -> usize {
        self.facts.lock().confirmations
    }

    async fn settled(self) -> Result<(), ProposalFailed> {
        loop {
            let changed = self.changed.notified();
            let fate = self.facts.lock().fate;
            match fate {
                Fate::Applied => return Ok(()),
                Fate::Failed => return Err(ProposalFailed("as the test wants".to_owned())),
                Fate::Waits => changed.await,
            }
        }
    }
}

impl LeaseFacts for Member {
    fn leases(&self) -> Vec<LeaseFact> {
        self.facts.lock().leases.values().copied().collect()
    }

    fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        vec![format!("key of {id}").into()]
    }
}

impl Leadership for Member {
    fn confirm(&self, _term: Term) -> BoxFuture<'static, Result<(), NotLeader>> {
        let mut facts = self.facts.lock();
        facts.confirmations += 1;
        let confirms = facts.confirms;
        let delay = facts.delays.pop_front().unwrap_or_default();
        async move {
            tokio::time::sleep(delay).await;
            if confirms { Ok(()) } else { Err(NotLeader) }
        }
        .boxed()
    }

    fn propose_expiry(
        &self,
        expiry: LeaseExpiry,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        self.facts.lock().expiries.push(expiry.clone());
        let member = self.clone();
        async move {
            member.clone().settled().await?;
            // As the state machine does: an expiry of another term is refused, which is an answer too.
            let term = member.facts.lock().term;
            if expiry.term == term {
                member.end(&expiry.lease_ids);
            }
            Ok(())
        }
        .boxed()
    }

    fn propose_checkpoint(
        &self,
        checkpoint: LeaseCheckpointRequest,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        self.facts.lock().checkpoints.push(checkpoint.clone());
        let member = self.clone();
        async move {
            member.clone().settled().await?;
            let mut changes = Vec::new();
            for rest in checkpoint.checkpoints {
                let id = LeaseId(rest.id);
                if let Some(fact) = member.facts.lock().leases.get_mut(&id) {
                    fact.remaining_ttl = rest.remaining_ttl;
                    let remaining_ttl = rest.remaining_ttl;
                    changes.push(LeaseChange::Checkpointed { id, remaining_ttl });
                }
            }
            member.apply(changes);
            Ok(())
        }
        .boxed()
    }
}

/// Lets `seconds` pass, with every task having its turn.
pub(super) async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}
