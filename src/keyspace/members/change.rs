//! Adding, removing, promoting and moving members.
//!
//! ```text
//!   call --> strict checks here --> the leader is asked, until it answers:
//!              its applied state is as new as its log --> checks --> one entry over that very membership --> applied
//!              another change came first, a new leader: from the start
//!   answer <-- applied here too
//! ```
//!
//! As in etcd, adding, removing and moving have no time limit here: without a quorum they last as long as the client
//! waits (etcd `server/etcdserver/server.go`, `configure`).
//!
//! **Invariant:** a change whose fate is unknown is asked for again as such, and answered as made if it was.
//! **Invariant:** a leader that is to go hands leadership over, and its successor removes it.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::member_change::Change;
use quorate_core::api::pb::internal::member_changed::Outcome;
use quorate_core::api::pb::internal::{
    Blank, MemberChange, MemberChanged, MemberRefusal as WireRefusal, MembersNow, NewMember,
    PeerUrls,
};
use quorate_core::state_machine::StateMachine;
use tokio::time::{Instant, timeout};

use super::checks::{self, HEALTHY_AFTER, Seen};
use crate::consensus;
use crate::consensus::ChangeError;
use crate::keyspace::Keyspace;
use crate::keyspace::error::{KeyspaceError, MemberRefusal, TimeoutKind};
use crate::support::urls::{parse_list, texts};

/// Between two tries to have the leader answer.
const RETRY: Duration = Duration::from_millis(50);
/// Between two tries of the leader to change a membership that is being changed.
const AGAIN: Duration = Duration::from_millis(10);
/// So long a change that was made is waited for here.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

/// What the leader makes of a change.
enum Plan {
    Refuse(MemberRefusal),
    /// It was made before.
    Done,
    /// This member is to be removed, and others can lead.
    HandOver,
    Make {
        over: LogId,
        change: consensus::MemberChange,
    },
}

impl Keyspace {
    /// MemberAdd: the new member, and all of them with it. A voter counts as one at once, and votes once it has caught
    /// up.
    pub async fn member_add(
        &self,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(pb::Member, Vec<pb::Member>), KeyspaceError> {
        let peer_urls = parse_urls(peer_urls)?;
        self.require_admin().await?;
        let seconds = self.0.clock.unix_ms().div_euclid(1000);
        let id = super::member_id(&peer_urls, &seconds.to_string());
        self.check_strictly(HEALTHY_AFTER, |seen| seen.may_add(is_learner))?;
        let new = NewMember { member_id: id.0, peer_urls: peer_urls.clone(), is_learner };
        let members = self.have_changed(Change::Add(new), false, None).await?;
        let member =
            pb::Member { id: id.0, peer_ur_ls: peer_urls, is_learner, ..pb::Member::default() };
        Ok((member, members))
    }

    /// MemberAdd under an id that was drawn before: asked again with the same id and URLs, it is answered as made. A
    /// member joins a fleet right after the one before it, so who is connected at all counts as such; but only once that
    /// one votes, or it would start with a list of members that holds no longer. Whom the registry of a fleet does not
    /// list is not added.
    pub async fn member_add_as(
        &self,
        id: MemberId,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<Vec<pb::Member>, KeyspaceError> {
        let peer_urls = parse_urls(peer_urls)?;
        self.require_admin().await?;
        let new = NewMember { member_id: id.0, peer_urls, is_learner };
        if !self.members().iter().any(|member| is_it(member, &new)) {
            self.check_strictly(Duration::ZERO, |seen| seen.may_add(is_learner))?;
        }
        self.have_changed(Change::Add(new), true, None).await
    }

    /// MemberRemove: the members without it.
    pub async fn member_remove(&self, id: MemberId) -> Result<Vec<pb::Member>, KeyspaceError> {
        self.require_admin().await?;
        self.check_strictly(HEALTHY_AFTER, |seen| seen.may_remove(id))?;
        self.have_changed(Change::Remove(id.0), false, None).await
    }

    /// MemberRemove as the fleet asks for it, which also undoes what was just done: who is connected at all counts as
    /// such, and one that was removed before is answered as removed.
    pub async fn member_remove_for_fleet(
        &self,
        id: MemberId,
    ) -> Result<Vec<pb::Member>, KeyspaceError> {
        self.require_admin().await?;
        if self.members().iter().any(|member| member.id == id.0) {
            self.check_strictly(Duration::ZERO, |seen| seen.may_remove(id))?;
        }
        self.have_changed(Change::Remove(id.0), true, None).await
    }

    /// MemberUpdate: the members with that one's new peer URLs, which are taken as they are.
    pub async fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> Result<Vec<pb::Member>, KeyspaceError> {
        self.require_admin().await?;
        let to = PeerUrls { member_id: id.0, peer_urls };
        self.have_changed(Change::Update(to), false, None).await
    }

    /// MemberPromote: the members with that learner as a voter.
    pub async fn member_promote(&self, id: MemberId) -> Result<Vec<pb::Member>, KeyspaceError> {
        self.require_admin().await?;
        let limit = self.0.config.request_timeout();
        self.have_changed(Change::Promote(id.0), false, Some(limit)).await
    }

    /// Whether a fleet may be joined by one more voter, as far as this member can see. Nothing is changed.
    pub fn may_be_joined(&self) -> Result<(), MemberRefusal> {
        self.look_strictly(Duration::ZERO, |seen| seen.may_add(false))?;
        checks::nobody_is_on_its_way(&self.members(), &self.voters())
    }

    fn check_strictly(
        &self,
        healthy_after: Duration,
        check: impl FnOnce(Seen<'_, &dyn Fn(MemberId) -> Option<Duration>>) -> Result<(), MemberRefusal>,
    ) -> Result<(), KeyspaceError> {
        self.look_strictly(healthy_after, check).map_err(|refusal| {
            let own = self.0.config.member_id;
            tracing::warn!("local-member-id" = %own, ?refusal, "rejecting a change of the members");
            KeyspaceError::Members(refusal)
        })
    }

    /// What `--strict-reconfig-check` asks of the member that the request came to. Who has been connected for longer
    /// than `healthy_after` is healthy.
    fn look_strictly(
        &self,
        healthy_after: Duration,
        check: impl FnOnce(Seen<'_, &dyn Fn(MemberId) -> Option<Duration>>) -> Result<(), MemberRefusal>,
    ) -> Result<(), MemberRefusal> {
        if !self.0.config.strict_reconfig_check {
            return Ok(());
        }
        let members = self.members();
        let own = self.0.config.member_id;
        let connected_for = |id: MemberId| self.0.consensus.connected_for(id);
        let seen = Seen {
            members: &members,
            own,
            healthy_after,
            connected_for: &connected_for as &dyn Fn(_) -> _,
        };
        check(seen)
    }

    /// Has the leader make the change; asks until it answers, for `limit` if there is one. `again`: it may have been
    /// made before.
    async fn have_changed(
        &self,
        change: Change,
        again: bool,
        limit: Option<Duration>,
    ) -> Result<Vec<pb::Member>, KeyspaceError> {
        let asked = async {
            let mut change = MemberChange { again, change: Some(change) };
            loop {
                match self.ask_once(&Ask::MemberChange(change.clone())).await {
                    Answer::MemberChanged(changed) => return changed,
                    Answer::NotLeader(Blank {}) => {}
                    Answer::Failed(Blank {})
                    | Answer::LeaseRenewed(_)
                    | Answer::LeaseTimeToLive(_)
                    | Answer::HashKv(_)
                    | Answer::Compacted(Blank {})
                    | Answer::FutureRevision(Blank {})
                    | Answer::Pending(Blank {})
                    | Answer::SilentForMs(_)
                    | Answer::KnownLevel(_) => change.again = true,
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let limited = async {
            match limit {
                Some(limit) => timeout(limit, asked).await.ok(),
                None => Some(asked.await),
            }
        };
        let changed = tokio::select! {
            changed = limited => changed,
            _cause = self.0.consensus.wait_ended() => return Err(KeyspaceError::Stopped),
        };
        match changed.map(|changed| changed.outcome) {
            None => Err(KeyspaceError::Timeout(TimeoutKind::Plain)),
            Some(Some(Outcome::Done(now))) => {
                let own = self.0.config.member_id.0;
                // A member that is gone hears no more of it; and too late is no failure: the change is made.
                if now.members.iter().any(|member| member.id == own) {
                    let applied = self.0.state.wait_applied(now.log_index);
                    drop(timeout(APPLIED_WITHIN, applied).await);
                }
                Ok(now.members)
            }
            Some(Some(Outcome::Refused(why))) => Err(KeyspaceError::Members(refusal(why)?)),
            Some(None) => Err(KeyspaceError::Unimplemented("what a newer leader answered")),
        }
    }

    /// Makes a change as the leader.
    pub(in crate::keyspace) async fn change_as_leader(&self, asked: &MemberChange) -> Answer {
        let Some(change) = &asked.change else {
            // Of a later version of this software.
            return Answer::Failed(Blank {});
        };
        let answer = self.try_change(change, asked.again).await;
        if let (Change::Promote(_), Answer::MemberChanged(changed)) = (change, &answer) {
            self.count_promotion(changed);
        }
        answer
    }

    async fn try_change(&self, change: &Change, again: bool) -> Answer {
        loop {
            // Whatever was committed before is applied here then, and so is the membership that is in force.
            let Ok(index) = self.0.consensus.read_index().await else {
                return Answer::NotLeader(Blank {});
            };
            if !self.0.consensus.leads() || self.0.state.wait_applied(index).await.is_err() {
                return Answer::NotLeader(Blank {});
            }
            let plan = self.plan(&self.0.state.machine.read(), change, again);
            let (over, make) = match plan {
                Plan::Refuse(refusal) => return refused(refusal),
                Plan::Done => return self.done(),
                Plan::HandOver => return self.hand_over().await,
                Plan::Make { over, change } => (over, change),
            };
            match self.0.consensus.change_members(over, &make).await {
                Ok(_applied) => return self.done(),
                Err(ChangeError::NotLeader) => return Answer::NotLeader(Blank {}),
                Err(ChangeError::Moved(why)) => {
                    tracing::debug!(why, "the members are being changed already; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(ChangeError::Discarded | ChangeError::Stopped(_)) => {
                    return Answer::Failed(Blank {});
                }
            }
        }
    }

    fn plan(&self, machine: &StateMachine, change: &Change, again: bool) -> Plan {
        let stored = machine.membership();
        let Some(over) = stored.log_id.map(|at| LogId::new(at.term, at.index)) else {
            return Plan::Refuse(MemberRefusal::NotFound);
        };
        let configs = stored.membership.iter().flat_map(|membership| &membership.configs);
        let voters =
            configs.flat_map(|voters| voters.member_ids.iter().copied().map(MemberId)).collect();
        let known = Known { machine, members: super::list(machine), voters };
        let planned = match change {
            Change::Add(new) => known.add(new, self.0.config.learners_max, again),
            Change::Remove(id) => known.remove(MemberId(*id), self.0.config.member_id, again),
            Change::Update(to) => known.update(to),
            Change::Promote(id) => {
                let id = MemberId(*id);
                let progress = self.0.consensus.progress(id);
                known.promote(id, progress, self.0.config.strict_reconfig_check, again)
            }
        };
        match planned {
            Ok(Step::Make(change)) => Plan::Make { over, change },
            Ok(Step::Done) => Plan::Done,
            Ok(Step::HandOver) => Plan::HandOver,
            Err(refusal) => Plan::Refuse(refusal),
        }
    }

    /// Asked again, the change is made by whoever leads then.
    async fn hand_over(&self) -> Answer {
        let began = Instant::now();
        let limit = self.0.config.election_timeout;
        match self.0.consensus.transfer_to_any(limit).await {
            Ok(target) => {
                let took = began.elapsed();
                tracing::info!(%target, ?took, "leadership moved: this member is to be removed");
            }
            Err(error) => {
                tracing::warn!(%error, "this leader is to be removed and none follows it")
            }
        }
        Answer::NotLeader(Blank {})
    }

    fn done(&self) -> Answer {
        let machine = self.0.state.machine.read();
        let log_index = machine.applied().map_or(0, |at| at.index);
        let now = MembersNow { log_index, members: super::list(&machine) };
        Answer::MemberChanged(MemberChanged { outcome: Some(Outcome::Done(now)) })
    }

    fn count_promotion(&self, changed: &MemberChanged) {
        match &changed.outcome {
            Some(Outcome::Done(_)) => self.0.roll.promotions.count(Ok(())),
            Some(Outcome::Refused(why)) => {
                if let Ok(refusal) = refusal(*why) {
                    self.0.roll.promotions.count(Err(refusal));
                }
            }
            None => {}
        }
    }
}

/// What is to be done for a change that is allowed.
enum Step {
    Make(consensus::MemberChange),
    Done,
    HandOver,
}

/// What the leader knows when it decides.
struct Known<'a> {
    machine: &'a StateMachine,
    members: Vec<pb::Member>,
    voters: BTreeSet<MemberId>,
}

impl Known<'_> {
    fn add(&self, new: &NewMember, learners_max: i64, again: bool) -> Result<Step, MemberRefusal> {
        let id = MemberId(new.member_id);
        let mut members = self.members.iter();
        if again && members.any(|member| is_it(member, new)) {
            return Ok(Step::Done);
        }
        checks::is_new(&self.members, self.machine.removed_members(), id, &new.peer_urls)?;
        if again {
            self.may_join_fleet(id)?;
        }
        if new.is_learner {
            checks::fits_learner(&self.members, learners_max)?;
        }
        let (peer_urls, votes) = (new.peer_urls.clone(), !new.is_learner);
        Ok(Step::Make(consensus::MemberChange::Add { id, peer_urls, votes }))
    }

    /// Who joins a fleet is asked for by its id, and may be asked for late, or twice.
    fn may_join_fleet(&self, id: MemberId) -> Result<(), MemberRefusal> {
        let fleet = self.machine.fleet();
        if fleet.record().is_some() && fleet.node(id).is_none() {
            // Its join was given up meanwhile.
            return Err(MemberRefusal::NotFound);
        }
        // The one before it may be about to start with a list of the members as they are now.
        checks::nobody_is_on_its_way(&self.members, &self.voters)
    }

    fn remove(&self, id: MemberId, own: MemberId, again: bool) -> Result<Step, MemberRefusal> {
        if !self.members.iter().any(|member| member.id == id.0) {
            let by_us = again && self.machine.removed_members().contains(&id);
            return if by_us { Ok(Step::Done) } else { Err(MemberRefusal::NotFound) };
        }
        // Nobody could ever undo it.
        if self.voters.iter().all(|voter| *voter == id) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if id == own {
            return Ok(Step::HandOver);
        }
        Ok(Step::Make(consensus::MemberChange::Remove(id)))
    }

    fn update(&self, to: &PeerUrls) -> Result<Step, MemberRefusal> {
        let id = MemberId(to.member_id);
        checks::may_move(&self.members, id, &to.peer_urls)?;
        let peer_urls = to.peer_urls.clone();
        Ok(Step::Make(consensus::MemberChange::Move { id, peer_urls }))
    }

    /// In etcd's order: known, in sync, enough started, a learner.
    fn promote(
        &self,
        id: MemberId,
        progress: Option<consensus::Progress>,
        strict: bool,
        again: bool,
    ) -> Result<Step, MemberRefusal> {
        let member = self.members.iter().find(|member| member.id == id.0);
        let member = member.ok_or(MemberRefusal::NotFound)?;
        if again && !member.is_learner {
            return Ok(Step::Done);
        }
        if !progress.is_some_and(checks::is_in_sync) {
            return Err(MemberRefusal::LearnerNotReady);
        }
        if strict {
            checks::may_promote(&self.members)?;
        }
        if !member.is_learner {
            return Err(MemberRefusal::NotLearner);
        }
        Ok(Step::Make(consensus::MemberChange::Promote(id)))
    }
}

fn is_it(member: &pb::Member, new: &NewMember) -> bool {
    member.id == new.member_id && member.peer_ur_ls == new.peer_urls
}

/// Each a URL of etcd's kind; sorted, as etcd keeps them.
fn parse_urls(given: &[String]) -> Result<Vec<String>, KeyspaceError> {
    let bad = KeyspaceError::Members(MemberRefusal::BadUrls);
    if given.is_empty() || given.iter().any(|url| url.contains(',')) {
        return Err(bad);
    }
    parse_list(&given.join(",")).map(|urls| texts(&urls)).map_err(|_why| bad)
}

fn refused(refusal: MemberRefusal) -> Answer {
    let why = match refusal {
        MemberRefusal::IdExists => WireRefusal::IdExists,
        MemberRefusal::PeerUrlExists => WireRefusal::PeerUrlExists,
        MemberRefusal::NotFound => WireRefusal::NotFound,
        MemberRefusal::NotLearner => WireRefusal::NotLearner,
        MemberRefusal::LearnerNotReady => WireRefusal::LearnerNotReady,
        MemberRefusal::TooManyLearners => WireRefusal::TooManyLearners,
        MemberRefusal::NotEnoughStarted => WireRefusal::NotEnoughStarted,
        // Of the member that was asked, never of the leader.
        MemberRefusal::BadUrls | MemberRefusal::Unhealthy => WireRefusal::Unspecified,
    };
    Answer::MemberChanged(MemberChanged { outcome: Some(Outcome::Refused(why as i32)) })
}

fn refusal(why: i32) -> Result<MemberRefusal, KeyspaceError> {
    match WireRefusal::try_from(why) {
        Ok(WireRefusal::IdExists) => Ok(MemberRefusal::IdExists),
        Ok(WireRefusal::PeerUrlExists) => Ok(MemberRefusal::PeerUrlExists),
        Ok(WireRefusal::NotFound) => Ok(MemberRefusal::NotFound),
        Ok(WireRefusal::NotLearner) => Ok(MemberRefusal::NotLearner),
        Ok(WireRefusal::LearnerNotReady) => Ok(MemberRefusal::LearnerNotReady),
        Ok(WireRefusal::TooManyLearners) => Ok(MemberRefusal::TooManyLearners),
        Ok(WireRefusal::NotEnoughStarted) => Ok(MemberRefusal::NotEnoughStarted),
        Ok(WireRefusal::Unspecified) | Err(_) => {
            Err(KeyspaceError::Unimplemented("a refusal that a newer leader gave"))
        }
    }
}
