//! What one keyspace is opened with: what all members must agree on, and what may differ.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::ids::{ClusterId, GroupId, MemberId};

use crate::consensus::Transport;
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
    /// Where the group keeps its base files and sled.
    pub directory: PathBuf,
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
    /// Newest values kept in memory beside the index, in bytes.
    pub value_budget_bytes: usize,
    /// sled's page cache, in bytes.
    pub sled_cache_bytes: u64,
    /// Committed history that waits for sled in memory, in bytes; the proposer waits when it is full.
    pub tail_bytes: usize,
}

impl KeyspaceConfig {
    /// etcd's defaults for a single member that keeps its files below `directory`.
    pub fn single(cluster_id: ClusterId, member: InitialMember, directory: PathBuf) -> Self {
        KeyspaceConfig {
            group: GroupId(0),
            cluster_id,
            member_id: member.id,
            name: "default".to_owned(),
            client_urls: Vec::new(),
            initial_members: vec![member],
            directory,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            request_bytes_max: 3 * 512 * 1024,
            txn_ops_max: 128,
            quota_bytes: 0,
            auto_compaction: None,
            value_budget_bytes: 512 << 20,
            sled_cache_bytes: 64 << 20,
            tail_bytes: 64 << 20,
        }
    }

    /// How long a request may take: etcd's `ReqTimeout` (server/config/config.go).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The quota in bytes, `None` when off.
    pub fn quota(&self) -> Option<u64> {
        match self.quota_bytes {
            0 => Some(2 << 30),
            below if below < 0 => None,
            bytes => Some(bytes.unsigned_abs()),
        }
    }

    /// The smallest TTL a lease is granted, in seconds: ceil(1.5 x election timeout) (etcd's `minTTL`).
    pub fn lease_ttl_min(&self) -> i64 {
        let ms = self.election_timeout.as_millis() * 3 / 2;
        i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX).max(1)
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
