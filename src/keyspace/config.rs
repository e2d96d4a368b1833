//! What one keyspace is opened with: what all members must agree on, and what may differ.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::ids::{ClusterId, GroupId, MemberId};

use super::auth::AuthSettings;
use crate::consensus::{SnapshotLimits, Transport};
use crate::support::clock::Clock;
use crate::support::spawn::Blocking;

/// Settings of one keyspace on one member.
#[derive(Clone, Debug)]
pub struct KeyspaceConfig {
    /// Which raft group of the process.
    pub group: GroupId,
    /// The keyspace's cluster id ([`crate::keyspace::members::cluster_id`]).
    pub cluster_id: ClusterId,
    /// This member ([`crate::keyspace::members::member_id`]).
    pub member_id: MemberId,
    /// `--name`, told to the other members once this one runs.
    pub name: String,
    /// `--advertise-client-urls`, told likewise.
    pub client_urls: Vec<String>,
    /// The first members: used on a first start only, afterwards the log knows them.
    pub initial_members: Vec<InitialMember>,
    /// Peer URLs of members that are there already, where this one is added to them: they bring it up. Used until its
    /// log knows the members.
    pub introducers: Vec<String>,
    /// `--force-new-cluster`: this member goes on alone, with the data it has.
    pub force_new_cluster: bool,
    /// `--strict-reconfig-check`; on in etcd.
    pub strict_reconfig_check: bool,
    /// `--max-learners`; 1 in etcd.
    pub learners_max: i64,
    /// `--heartbeat-interval`; 100 ms in etcd.
    pub heartbeat: Duration,
    /// `--election-timeout`; 1 s in etcd.
    pub election_timeout: Duration,
    /// `--max-request-bytes`; 1.5 MiB in etcd.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`; 128 in etcd.
    pub txn_ops_max: usize,
    /// `--quota-backend-bytes` as typed: 0 means 2 GiB, below 0 means no quota.
    pub quota_bytes: i64,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub auto_compaction: Option<AutoCompaction>,
    /// How fast what a compaction drops goes away.
    pub sweep_pace: SweepPace,
    /// `--watch-progress-notify-interval`; 10 min in etcd.
    pub watch_progress_interval: Duration,
    /// `--snapshot-catchup-entries`: requests that the log keeps behind a base; 5,000 in etcd.
    pub catch_up_requests: u64,
    /// A base is written when so many requests were applied since the last one, unless that one is larger than they are
    /// (`--snapshot-count`).
    pub base_after_requests: u64,
    /// How whole states are sent to members that are too far behind.
    pub snapshots: SnapshotLimits,
    /// How clients say who they are.
    pub auth: AuthSettings,
    /// `--corrupt-check-time`: how often the leader compares the members' data; never in etcd.
    pub corrupt_check: Option<Duration>,
    /// `--compact-hash-check-time`, with the gate `CompactHashCheck`: how often it compares what compactions left.
    pub compact_hash_check: Option<Duration>,
    /// `--warning-apply-duration`: an entry that takes longer to apply is logged; 100 ms in etcd.
    pub slow_apply: Duration,
}

impl KeyspaceConfig {
    /// etcd's defaults for the first start of a member that is alone.
    pub fn single(cluster_id: ClusterId, member: InitialMember) -> Self {
        KeyspaceConfig {
            group: GroupId(0),
            cluster_id,
            member_id: member.id,
            name: "default".to_owned(),
            client_urls: Vec::new(),
            initial_members: vec![member],
            introducers: Vec::new(),
            force_new_cluster: false,
            strict_reconfig_check: true,
            learners_max: 1,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            request_bytes_max: 3 * 512 * 1024,
            txn_ops_max: 128,
            quota_bytes: 0,
            auto_compaction: None,
            sweep_pace: SweepPace::default(),
            watch_progress_interval: Duration::from_secs(600),
            catch_up_requests: 5000,
            base_after_requests: 10_000,
            snapshots: SnapshotLimits::default(),
            auth: AuthSettings::default(),
            corrupt_check: None,
            compact_hash_check: None,
            slow_apply: Duration::from_millis(100),
        }
    }

    /// How long a request may take: etcd's `ReqTimeout` (server/config/config.go).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The quota in bytes as it is told; below 0 when off.
    pub fn told_quota(&self) -> i64 {
        match self.quota_bytes {
            0 => 2 << 30,
            set => set,
        }
    }

    /// The quota in bytes, `None` when off.
    pub fn quota(&self) -> Option<u64> {
        match self.quota_bytes {
            0 => Some(2 << 30),
            below if below < 0 => None,
            bytes => Some(bytes.unsigned_abs()),
        }
    }
}

/// One of the members that a keyspace begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its id, by etcd's formula.
    pub id: MemberId,
    /// Where the other members reach it.
    pub peer_urls: Vec<String>,
}

/// What a compaction drops goes away in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepPace {
    /// Keys in one step, under the machine's lock (`--compaction-batch-limit`); not 0.
    pub keys_max: usize,
    /// Between two steps (`--compaction-sleep-interval`); `None`: others get their turn, no more.
    pub rest: Option<Duration>,
}

impl Default for SweepPace {
    fn default() -> Self {
        SweepPace { keys_max: 1000, rest: None }
    }
}

/// Compaction by itself, on the leader only (etcd `server/etcdserver/api/v3compactor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keep what was written within this period.
    Periodic(Duration),
    /// Keep this many revisions; looked at every five minutes.
    Revision(i64),
}

/// What the keyspace takes from its host, so that a simulation may put its own in.
#[derive(Clone, Debug)]
pub struct Seams {
    /// The hour, stamped into entries.
    pub clock: Arc<dyn Clock>,
    /// Where slices of long work run.
    pub blocking: Arc<Blocking>,
    /// Frames to other members.
    pub transport: Arc<dyn Transport>,
    /// Random, drawn at process start: only this process has waiters for entries that carry it.
    pub incarnation: u64,
}
