//! The deadlines of one term's leases: a book without a clock; every call is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::api::batch::LeaseChange;
use quorate_core::api::ids::{LeaseId, Term};
use tokio::sync::watch;
use tokio::time::Instant;

use super::seams::LeaseFact;

/// Leases with a longer rest than this are checkpointed, and as often (etcd `lessor.go`,
/// `defaultLeaseCheckpointInterval`).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// When each lease ends, as long as this member leads `term`.
#[derive(Debug)]
pub(super) struct Deadlines {
    pub(super) term: Term,
    leases: BTreeMap<LeaseId, Held>,
    /// When each lease is next looked at: at its deadline, later again if its expiry was not applied.
    due: BTreeSet<(Instant, LeaseId)>,
    checkpoints: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug)]
struct Held {
    granted_ttl: i64,
    /// As replicated; 0 means full.
    remaining_ttl: i64,
    deadline: Instant,
    due_at: Instant,
    checkpoint_at: Option<Instant>,
    /// This rest was proposed, and what became of it is not known yet.
    proposed_rest: Option<i64>,
    /// Its end was proposed in this term, and may be committed at any time.
    ending: bool,
    /// What was left of it when it came from a term before, while nothing is promised in this one. A rest that was
    /// checkpointed since does not count from a moment before this term.
    inherited: Option<Duration>,
    /// When its grant was applied here, if whoever asked for it may not have heard of it before.
    granted_at: Option<Instant>,
    /// Dropped with the lease: whoever waits for its end hears of it.
    end: Option<watch::Sender<()>>,
}

/// What trying to renew a lease finds.
#[derive(Debug)]
pub(super) enum Renewal {
    /// The deadline was moved; the TTL granted.
    Renewed(i64),
    /// Its replicated rest must be cleared first, or another leader would cut the lease short. It may be one that is
    /// still on its way: then what is known after the clearing is looked at anew.
    Checkpointed,
    /// It is past its deadline. The receiver's sender goes when the lease does.
    Expired(watch::Receiver<()>),
    /// There is no such lease.
    Unknown,
}

impl Deadlines {
    /// Every lease begins with what was left of it, or its full TTL, and `extension` on top; those that are `ending`
    /// have none.
    pub(super) fn of_term(
        term: Term,
        facts: Vec<LeaseFact>,
        now: Instant,
        extension: Duration,
        ending: &BTreeSet<LeaseId>,
    ) -> Deadlines {
        let mut deadlines = Deadlines {
            term,
            leases: BTreeMap::new(),
            due: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
        };
        for fact in facts {
            let rest = rest_of(fact.granted_ttl, fact.remaining_ttl);
            let ending = ending.contains(&fact.id);
            let left = if ending { Duration::ZERO } else { seconds(rest) + extension };
            deadlines.hold(fact, now + left, now);
            if let Some(held) = deadlines.leases.get_mut(&fact.id) {
                held.ending = ending;
                held.inherited = (!ending).then_some(seconds(rest));
            }
        }
        deadlines
    }

    /// A lease from before was granted here at `at`: whoever is told so counts from no earlier moment.
    pub(super) fn granted_at(&mut self, id: LeaseId, at: Instant) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.granted_at = Some(at);
        }
    }

    /// What was promised of leases that come from before was promised until `at`: that is from when their rest counts,
    /// if it ends them sooner.
    pub(super) fn inherited_at(&mut self, at: Instant) {
        for (id, held) in &mut self.leases {
            let Some(rest) = held.inherited.filter(|_| !held.ending) else {
                continue;
            };
            let deadline = held.granted_at.map_or(at, |granted_at| granted_at.max(at)) + rest;
            if deadline < held.deadline {
                self.due.remove(&(held.due_at, *id));
                held.deadline = deadline;
                held.due_at = deadline;
                self.due.insert((deadline, *id));
            }
        }
    }

    /// Follows what was applied.
    pub(super) fn follow(&mut self, change: &LeaseChange, now: Instant) {
        match *change {
            LeaseChange::Granted { id, ttl } => {
                let fact = LeaseFact { id, granted_ttl: ttl, remaining_ttl: 0 };
                self.hold(fact, now + seconds(ttl), now);
            }
            LeaseChange::Ended { id } => self.release(id),
            LeaseChange::Checkpointed { id, remaining_ttl } => {
                if let Some(held) = self.leases.get_mut(&id) {
                    held.remaining_ttl = remaining_ttl;
                    if held.proposed_rest == Some(remaining_ttl) {
                        held.proposed_rest = None;
                    }
                    self.schedule_checkpoint(id, now);
                }
            }
        }
    }

    fn hold(&mut self, fact: LeaseFact, deadline: Instant, now: Instant) {
        self.release(fact.id);
        let held = Held {
            granted_ttl: fact.granted_ttl,
            remaining_ttl: fact.remaining_ttl,
            deadline,
            due_at: deadline,
            checkpoint_at: None,
            proposed_rest: None,
            ending: false,
            inherited: None,
            granted_at: None,
            end: None,
        };
        self.leases.insert(fact.id, held);
        self.due.insert((deadline, fact.id));
        self.schedule_checkpoint(fact.id, now);
    }

    fn release(&mut self, id: LeaseId) {
        if let Some(held) = self.leases.remove(&id) {
            self.due.remove(&(held.due_at, id));
            if let Some(at) = held.checkpoint_at {
                self.checkpoints.remove(&(at, id));
            }
        }
    }

    /// Moves the deadline of a lease that has not passed it. `cleared`: a checkpointed rest was cleared already.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant, cleared: bool) -> Renewal {
        let Some(held) = self.leases.get_mut(&id) else {
            return Renewal::Unknown;
        };
        if held.ending || held.deadline <= now {
            let end = held.end.get_or_insert_with(|| watch::Sender::new(()));
            return Renewal::Expired(end.subscribe());
        }
        if held.proposed_rest.is_some() || (held.remaining_ttl > 0 && !cleared) {
            return Renewal::Checkpointed;
        }
        self.due.remove(&(held.due_at, id));
        held.inherited = None;
        held.deadline = now + seconds(held.granted_ttl);
        held.due_at = held.deadline;
        self.due.insert((held.due_at, id));
        let ttl = held.granted_ttl;
        if held.checkpoint_at.is_none() {
            self.schedule_checkpoint(id, now);
        }
        Renewal::Renewed(ttl)
    }

    /// Some lease is due to end.
    pub(super) fn any_expired(&self, now: Instant) -> bool {
        self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Up to `limit` leases past their deadline, longest first. They are named again after `retry`, unless they have
    /// ended by then.
    pub(super) fn take_expired(
        &mut self,
        now: Instant,
        limit: usize,
        retry: Duration,
    ) -> Vec<LeaseId> {
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(held) = self.leases.get_mut(&id) {
                debug_assert!(held.deadline <= now, "never early");
                held.due_at = now + retry;
                held.ending = true;
                self.due.insert((held.due_at, id));
                expired.push(id);
            }
        }
        expired
    }

    /// Leases whose end was proposed in this term and not applied yet.
    pub(super) fn ending(&self) -> BTreeSet<LeaseId> {
        let ending = self.leases.iter().filter(|(_, held)| held.ending);
        ending.map(|(id, _)| *id).collect()
    }

    fn schedule_checkpoint(&mut self, id: LeaseId, now: Instant) {
        let Some(held) = self.leases.get_mut(&id) else {
            return;
        };
        if let Some(at) = held.checkpoint_at.take() {
            self.checkpoints.remove(&(at, id));
        }
        if seconds(rest_of(held.granted_ttl, held.remaining_ttl)) > CHECKPOINT_INTERVAL {
            let at = now + CHECKPOINT_INTERVAL;
            held.checkpoint_at = Some(at);
            self.checkpoints.insert((at, id));
        }
    }

    /// Some lease is due for a checkpoint.
    pub(super) fn any_checkpoint(&self, now: Instant) -> bool {
        self.checkpoints.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Up to `limit` leases whose rest is to be replicated, with the seconds left, rounded up. Each is due again
    /// when its checkpoint is applied, or an interval from now.
    pub(super) fn take_checkpoints(&mut self, now: Instant, limit: usize) -> Vec<(LeaseId, i64)> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(&(at, id)) = self.checkpoints.first()
            && at <= now
        {
            self.schedule_checkpoint(id, now);
            let Some(held) = self.leases.get_mut(&id) else {
                continue;
            };
            let left = held.deadline.saturating_duration_since(now);
            let rest = left.as_millis().div_ceil(1000) as i64;
            if rest > 0 && rest < held.granted_ttl {
                held.proposed_rest = Some(rest);
                taken.push((id, rest));
            }
        }
        taken
    }

    /// Rests that were taken were not seen to be applied. They may be yet, ahead of all that is proposed from now on:
    /// so they count as applied.
    pub(super) fn doubt_checkpoints(&mut self, rests: &[(LeaseId, i64)]) {
        for (id, rest) in rests {
            if let Some(held) = self.leases.get_mut(id)
                && held.proposed_rest.take_if(|proposed| proposed == rest).is_some()
            {
                held.remaining_ttl = *rest;
            }
        }
    }

    /// The TTL granted and the whole seconds left; 0 when the lease is past its deadline but has not ended.
    pub(super) fn left(&self, id: LeaseId, now: Instant) -> Option<(i64, i64)> {
        let held = self.leases.get(&id)?;
        let left = held.deadline.saturating_duration_since(now).as_secs();
        Some((held.granted_ttl, left as i64))
    }

    /// Every lease, the one that ends first in front.
    pub(super) fn by_deadline(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> =
            self.leases.iter().map(|(id, held)| (held.deadline, *id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, id)| id).collect()
    }
}

fn rest_of(granted_ttl: i64, remaining_ttl: i64) -> i64 {
    if remaining_ttl > 0 { remaining_ttl } else { granted_ttl }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
