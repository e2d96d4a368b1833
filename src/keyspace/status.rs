//! What a member tells of itself.

use std::collections::BTreeSet;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;

use super::apply_figures::ApplyFigures;
use super::figures::KeyspaceFigures;
use super::members::{Promotions, Roster};
use super::write::ProposalCounts;
use super::{Keyspace, KeyspaceConfig, members};
use crate::consensus::{LeaderView, Members, RaftFacts, SnapshotFigures};
use crate::storage::{StoreFigures, StoreSeconds};

/// What Maintenance.Status, health and metrics tell of this member.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusFacts {
    /// Accounted size of the database, in bytes: grows with every revision, as bbolt's file does.
    pub db_size: u64,
    /// The part of it that is in use.
    pub db_size_in_use: u64,
    /// The quota, in bytes; below 0 when off.
    pub db_size_quota: i64,
    /// The leader, while it is known to lead.
    pub leader: Option<MemberId>,
    /// Committed log index.
    pub committed_index: u64,
    /// Applied log index.
    pub applied_index: u64,
    /// The term of the last applied entry.
    pub applied_term: u64,
    /// Alarms that stand.
    pub alarms: Vec<pb::AlarmMember>,
    /// Whether this member has no vote.
    pub learner: bool,
}

impl Keyspace {
    /// Who answers, and where it stands now: the whole header of a response.
    pub fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.0.config.cluster_id.0,
            member_id: self.0.config.member_id.0,
            revision: self.revision(),
            raft_term: self.applied_term(),
        }
    }

    /// The current revision of this member's state.
    pub fn revision(&self) -> i64 {
        self.0.state.machine.read().revision()
    }

    /// The revision below which nothing can be read; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.0.state.machine.read().compact_revision()
    }

    /// The term of the last applied entry: what etcd calls `raft_term` in headers.
    pub fn applied_term(&self) -> u64 {
        self.0.state.applied().map_or(0, |at| at.term.0)
    }

    /// Who leads now, and whether that may be believed.
    pub fn leader_view(&self) -> LeaderView {
        self.0.consensus.leader_view()
    }

    /// The same, to be told of changes.
    pub fn leader_changes(&self) -> tokio::sync::watch::Receiver<LeaderView> {
        self.0.consensus.leader_changes()
    }

    /// What raft knows of itself.
    pub fn raft_facts(&self) -> RaftFacts {
        self.0.consensus.facts()
    }

    /// Counts of whole states sent to other members and taken from them.
    pub fn snapshot_figures(&self) -> &SnapshotFigures {
        self.0.consensus.snapshot_figures()
    }

    /// The cluster level as applied here: what every member understands.
    pub fn cluster_level(&self) -> u32 {
        self.0.state.machine.read().cluster_level()
    }

    /// Every member as applied here, by id.
    pub fn members(&self) -> Vec<pb::Member> {
        members::list(&self.0.state.machine.read())
    }

    /// Who has a vote as applied here. A member that is to get one once it has caught up is not among them.
    pub fn voters(&self) -> BTreeSet<MemberId> {
        let machine = self.0.state.machine.read();
        let membership = machine.membership().membership.as_ref();
        let configs = membership.into_iter().flat_map(|membership| &membership.configs);
        configs.flat_map(|config| config.member_ids.iter().copied().map(MemberId)).collect()
    }

    /// Who the members are and who was one, as applied here, to be told of changes.
    pub fn roster(&self) -> tokio::sync::watch::Receiver<std::sync::Arc<Roster>> {
        self.0.roll.follow()
    }

    /// Resolves once this member has applied its own removal.
    pub async fn removed(&self) {
        let own = self.0.config.member_id;
        let mut roster = self.roster();
        if roster.wait_for(|roster| roster.removed.contains(&own)).await.is_err() {
            std::future::pending().await
        }
    }

    /// This member has no vote, and is not to get one by itself: it serves little.
    pub fn is_learner(&self) -> bool {
        self.0.roll.is_learner()
    }

    /// How promotions went while this member led, for metrics.
    pub fn promotions(&self) -> &Promotions {
        &self.0.roll.promotions
    }

    /// The members in this member's log and where they are reached, once they are other than `known`.
    pub async fn members_other_than(&self, known: &Members) -> Members {
        self.0.consensus.members_other_than(known).await
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &KeyspaceConfig {
        &self.0.config
    }

    /// Keys that are there now.
    pub fn key_count(&self) -> usize {
        self.0.state.machine.read().live_key_count()
    }

    /// Facts about leases, for metrics.
    pub fn lease_counters(&self) -> std::sync::Arc<super::lease::LeaseCounters> {
        self.0.lessor.counters()
    }

    /// What the store has moved and what it takes, for metrics. Looks at the state store's folder.
    pub fn store_figures(&self) -> StoreFigures {
        self.0.state.store().figures()
    }

    /// Requests on their way into the log, and those that failed on it, for metrics.
    pub fn proposal_counts(&self) -> &ProposalCounts {
        &self.0.writer.counts
    }

    /// How long entries take to apply, for metrics.
    pub fn apply_figures(&self) -> &ApplyFigures {
        &self.0.apply_figures
    }

    /// What calls and upkeep take, for metrics.
    pub fn figures(&self) -> &KeyspaceFigures {
        &self.0.figures
    }

    /// The times of the store's background work, for metrics.
    pub fn store_seconds(&self) -> StoreSeconds {
        self.0.state.store().seconds()
    }

    /// The alarms that stand, as applied here.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.0.state.machine.read().alarms(pb::AlarmType::None)
    }

    /// Whether users count, as applied here.
    pub fn auth_is_on(&self) -> bool {
        self.0.authority.is_on()
    }

    /// What Maintenance.Status tells.
    pub fn status(&self) -> StatusFacts {
        let facts = self.0.consensus.facts();
        let applied = self.0.state.applied();
        let store = self.0.state.store();
        StatusFacts {
            db_size: store.db_size(),
            db_size_in_use: store.db_size_in_use(),
            db_size_quota: self.0.config.told_quota(),
            leader: self.leader_view().leader(),
            committed_index: facts.committed.map_or(0, |at| at.index),
            applied_index: applied.map_or(0, |at| at.index),
            applied_term: self.applied_term(),
            alarms: self.alarms(),
            learner: self.is_learner(),
        }
    }
}
