//! The lessor: holds the deadlines while this member leads, and answers for them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::batch::LeaseChange;
use quorate_core::api::ids::{LeaseId, LogId, Term};
use quorate_core::api::pb::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use tokio::time::Instant;

use super::counters::LeaseCounters;
use super::deadlines::{Deadlines, Renewal};
use super::seams::{Leadership, LeaseFacts, NotLeader, ProposalFailed};
use crate::support::failpoints::failpoint;

/// How leases of a keyspace behave on this member.
#[derive(Clone, Copy, Debug)]
pub struct LessorOptions {
    /// `--election-timeout`: every lease gets this on top when leadership begins.
    pub election_timeout: Duration,
    /// An expiry that was not applied is proposed again after this: the request timeout.
    pub expiry_retry: Duration,
}

impl LessorOptions {
    /// So long after a quorum was asked for it a promise may be made.
    fn promise_within(&self) -> Duration {
        self.election_timeout / 2
    }

    /// etcd's: the request timeout is 5 s + two election timeouts.
    pub fn for_election_timeout(election_timeout: Duration) -> LessorOptions {
        LessorOptions {
            election_timeout,
            expiry_retry: Duration::from_secs(5) + 2 * election_timeout,
        }
    }
}

/// Why a lease was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// There is no such lease, or it has ended: the answer is TTL 0.
    #[error("the lease does not exist")]
    NotFound,
    /// Another member has to be asked.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// What had to be replicated first was not.
    #[error(transparent)]
    Failed(#[from] ProposalFailed),
}

/// How long a lease has to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds left, rounded down.
    pub ttl: i64,
    /// Seconds granted.
    pub granted_ttl: i64,
    /// The keys that hang on it, sorted; empty unless asked for.
    pub keys: Vec<Bytes>,
}

/// The leases of one keyspace, as this member leads them or not. Cheap to clone; one task runs [`Lessor::run`].
#[derive(Clone)]
pub struct Lessor(pub(super) Arc<Shared>);

pub(super) struct Shared {
    state: Mutex<State>,
    facts: Arc<dyn LeaseFacts>,
    pub(super) leadership: Arc<dyn Leadership>,
    pub(super) options: LessorOptions,
    pub(super) counters: Arc<LeaseCounters>,
}

#[derive(Debug)]
struct State {
    /// The term this member leads, as consensus told last.
    leads: Option<Term>,
    /// The term of the entry applied last.
    applied: Term,
    /// Held while both are the same.
    deadlines: Option<Deadlines>,
    /// Leases whose end was proposed in this term: should this member lead it again, after it was out of touch, the
    /// entries may still be committed, and nobody may have been promised anything meanwhile.
    ending: (Term, BTreeSet<LeaseId>),
    /// The newest term whose deadlines were held, and whether they were made once. Should it be led again, promises of
    /// its own are among what is inherited.
    held: (Term, bool),
    /// When deadlines were forgotten last: until then this member may have promised by them.
    forgotten: Option<Instant>,
    /// Since when leaders before a term are silent.
    heard: Option<(Term, Instant)>,
    /// Grants that were applied here a short while ago, oldest first: the entry may be an earlier leader's, its answer
    /// only now on its way.
    granted: VecDeque<(Instant, LeaseId)>,
}

impl State {
    fn forget_deadlines(&mut self) {
        if let Some(deadlines) = self.deadlines.take() {
            self.ending = (deadlines.term, deadlines.ending());
            self.forgotten = Some(Instant::now());
        }
    }
}

impl fmt::Debug for Lessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lessor").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Lessor {
    /// A lessor that leads nothing yet.
    pub fn new(
        facts: Arc<dyn LeaseFacts>,
        leadership: Arc<dyn Leadership>,
        options: LessorOptions,
    ) -> Lessor {
        Lessor(Arc::new(Shared {
            state: Mutex::new(State {
                leads: None,
                applied: Term(0),
                deadlines: None,
                ending: (Term(0), BTreeSet::new()),
                held: (Term(0), true),
                forgotten: None,
                heard: None,
                granted: VecDeque::new(),
            }),
            facts,
            leadership,
            options,
            counters: Arc::default(),
        }))
    }

    /// An entry was applied, and changed these leases. Called by the sink for every entry, in log order, after the
    /// state machine has it and without the state machine's lock.
    pub fn applied(&self, at: LogId, changes: &[LeaseChange]) {
        let mut state = self.0.state.lock();
        state.applied = at.term;
        if !changes.is_empty() {
            let now = Instant::now();
            for change in changes {
                match change {
                    LeaseChange::Granted { id, ttl } => {
                        self.0.counters.add_granted(*ttl);
                        self.note_grant(&mut state, *id, now);
                    }
                    LeaseChange::Ended { .. } => self.0.counters.add_revoked(),
                    LeaseChange::Checkpointed { .. } => {}
                }
                if let Some(deadlines) = &mut state.deadlines {
                    deadlines.follow(change, now);
                }
            }
        }
        self.promote_if_due(&mut state);
    }

    /// Whoever asked for a lease waits for it no longer than a request may take.
    fn note_grant(&self, state: &mut State, id: LeaseId, now: Instant) {
        let over = |at: Instant| now.duration_since(at) > self.0.options.expiry_retry;
        while state.granted.front().is_some_and(|(at, _)| over(*at)) {
            state.granted.pop_front();
        }
        state.granted.push_back((now, id));
    }

    /// This member leads `term` from now on, or no term (`None`). Deadlines begin when the term's first entry is
    /// applied too, in whichever order the two are told, and are forgotten with the term.
    pub fn leads(&self, term: Option<Term>) {
        let mut state = self.0.state.lock();
        if state.leads != term {
            state.forget_deadlines();
            state.leads = term;
        }
        self.promote_if_due(&mut state);
    }

    /// The state machine was replaced by a snapshot applied up to `at`: what was held is read anew.
    pub fn restored(&self, at: LogId) {
        let mut state = self.0.state.lock();
        state.applied = at.term;
        state.forget_deadlines();
        self.promote_if_due(&mut state);
    }

    /// Leaders of terms before `term` have asked nobody for a promise after `at`.
    pub fn last_heard(&self, term: Term, at: Instant) {
        let mut state = self.0.state.lock();
        state.heard = Some((term, at));
        self.count_from_heard(&mut state);
    }

    /// What was promised before this term was promised before its leaders fell silent, or by this member itself before
    /// it held this term's deadlines.
    fn count_from_heard(&self, state: &mut State) {
        if let Some((term, at)) = state.heard
            && state.held == (term, true)
            && let Some(deadlines) = &mut state.deadlines
            && deadlines.term == term
        {
            let promised = at + self.0.options.promise_within();
            let promised = state.forgotten.map_or(promised, |own| own.max(promised));
            deadlines.inherited_at(promised);
        }
    }

    fn promote_if_due(&self, state: &mut State) {
        if state.deadlines.is_none()
            && let Some(term) = state.leads
            && state.applied == term
        {
            let facts = self.0.facts.leases();
            let extension = self.0.options.election_timeout;
            let (of, ending) = std::mem::take(&mut state.ending);
            let ending = if of == term { ending } else { BTreeSet::new() };
            let mut deadlines = Deadlines::of_term(term, facts, Instant::now(), extension, &ending);
            for (at, id) in &state.granted {
                deadlines.granted_at(*id, *at);
            }
            state.deadlines = Some(deadlines);
            state.held = (term, state.held.0 != term);
            self.count_from_heard(state);
        }
    }

    /// Renews a lease and answers its TTL. One past its deadline is waited for until it has ended; then it is
    /// [`RenewError::NotFound`].
    ///
    /// A quorum is asked before each promise, and the promise begins when it was asked: another leader knows nothing
    /// of it, and gives every lease its time from a moment that is later than that (architecture 5). What memory says
    /// of this member's leadership is as old as the last time its process ran.
    pub async fn renew(&self, id: LeaseId) -> Result<i64, RenewError> {
        let mut cleared = false;
        loop {
            let term = self.term().ok_or(NotLeader)?;
            failpoint!(wait beforeCheckpointInLeaseRenew);
            let asked = Instant::now();
            self.0.leadership.confirm(term).await?;
            let renewal = self.holding(term, |held| {
                let now = Instant::now();
                let trusted = now.duration_since(asked) <= self.0.options.promise_within();
                trusted.then(|| held.renew(id, now, cleared))
            })?;
            match renewal {
                // The process stood still, or a quorum was long to answer.
                None => {}
                Some(Renewal::Renewed(ttl)) => {
                    self.0.counters.add_renewed();
                    return Ok(ttl);
                }
                Some(Renewal::Unknown) => return Err(RenewError::NotFound),
                Some(Renewal::Expired(mut end)) => {
                    // An error says that the sender is gone, and that is what is waited for.
                    let _ = end.changed().await;
                }
                Some(Renewal::Checkpointed) => {
                    self.clear_checkpoint(id).await?;
                    cleared = true;
                }
            }
        }
    }

    async fn clear_checkpoint(&self, id: LeaseId) -> Result<(), ProposalFailed> {
        let full = LeaseCheckpoint { id: id.0, remaining_ttl: 0 };
        let checkpoint = LeaseCheckpointRequest { checkpoints: vec![full] };
        self.0.leadership.propose_checkpoint(checkpoint).await
    }

    /// How long a lease has to live; `None` if there is no such lease.
    pub async fn time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<TimeToLive>, NotLeader> {
        let term = self.term().ok_or(NotLeader)?;
        failpoint!(wait beforeLookupWhenLeaseTimeToLive);
        let left = || self.holding(term, |held| held.left(id, Instant::now()));
        let found = match left()? {
            Some(found) => Some(found),
            None => {
                self.0.leadership.confirm(term).await?;
                left()?
            }
        };
        let keys = |id| {
            if with_keys { self.0.facts.keys(id) } else { Vec::new() }
        };
        let live = found.map(|(granted_ttl, ttl)| TimeToLive { ttl, granted_ttl, keys: keys(id) });
        // Keys were read outside the lock: still the leader, still the truth.
        self.holding(term, |_| live)
    }

    /// Every lease that this member knows: leading, by deadline; else by id.
    pub fn leases(&self) -> Vec<LeaseId> {
        if let Some(deadlines) = &self.0.state.lock().deadlines {
            return deadlines.by_deadline();
        }
        let facts = self.0.facts.leases();
        facts.into_iter().map(|fact| fact.id).collect()
    }

    /// Facts for the metrics page.
    pub fn counters(&self) -> Arc<LeaseCounters> {
        Arc::clone(&self.0.counters)
    }

    /// The term whose deadlines are held.
    pub(super) fn term(&self) -> Option<Term> {
        let state = self.0.state.lock();
        state.deadlines.as_ref().map(|deadlines| deadlines.term)
    }

    /// Runs `work` on the deadlines of `term`, if they are still held.
    pub(super) fn holding<R>(
        &self,
        term: Term,
        work: impl FnOnce(&mut Deadlines) -> R,
    ) -> Result<R, NotLeader> {
        let mut state = self.0.state.lock();
        match &mut state.deadlines {
            Some(deadlines) if deadlines.term == term => Ok(work(deadlines)),
            Some(_) | None => Err(NotLeader),
        }
    }
}
