//! Floor 5, host: opens, shuts and keeps together what the keyspaces of one process share.
//!
//! ```text
//!   claim ──> Directory (locked, whose it is) ── Host::open ──> journal ──> keyspace of group 0 <──> peers
//!   Host::shutdown: keyspace, then peers, then journal (sealed), then the lock
//! ```
//!
//! **Invariant:** no etcd semantics here; a keyspace is opened and shut, never looked into.

mod membership;
pub mod peers;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_core::api::ids::GroupId;
use tokio::task::JoinHandle;

use self::peers::{PeerTiming, Peers, PeersConfig, Served, Service};
use crate::consensus::PeerError;
use crate::keyspace::{Keyspace, KeyspaceConfig, OpenError, Seams};
use crate::storage::StoreOptions;
use crate::storage::device::FileDevice;
pub use crate::storage::directory::{Directory, DirectoryError};
use crate::storage::directory::{create_private, open_directory};
use crate::storage::journal::{
    Journal, JournalError, JournalId, JournalObserver, JournalOptions, JournalUsage, Runner,
    entry_bytes_max,
};
use crate::support::clock::SystemClock;
use crate::support::spawn::Blocking;
use crate::support::tls::Connector;

/// Slices of long work that run at once beside the runtime.
const BLOCKING_SLICES: usize = 4;

/// A member could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The data directory was refused; the text says what to do.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The journal was refused.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The keyspace was refused.
    #[error(transparent)]
    Keyspace(#[from] OpenError),
    /// The directory is a member's that has never voted, and who the others are was not told.
    #[error(
        "the data directory is a member's that has not begun yet, and --initial-cluster does not describe its \
         cluster: start it with the flags it was made with, or, if it found the others by discovery, remove the \
         directory, which holds nothing yet"
    )]
    NeverBegun,
    /// The operating system refused.
    #[error("cannot open {folder}: {source}")]
    Io {
        /// Which folder.
        folder: String,
        /// Its answer.
        source: std::io::Error,
    },
}

/// Locks a data directory for this process and tells whose it is.
pub fn claim(data_dir: &Path) -> Result<Directory, HostError> {
    Ok(open_directory(data_dir)?)
}

/// Sizes on the disk that a member chooses for itself, from one start to the next.
#[derive(Clone, Copy, Debug)]
pub struct DiskSizes {
    /// Of a new journal segment, in bytes; rounded up to 4 KiB, at least 64 KiB.
    pub segment_bytes: u64,
    /// How far the journal grows before a base is written, in bytes.
    pub base_after_bytes: u64,
}

/// What a small disk is divided by for a segment, and for the journal's growth between two bases.
const SHARES: u64 = 32;
/// No segment is made smaller than this for a small disk's sake.
const SEGMENT_LEAST: u64 = 8 << 20;
/// No base is written more often than this for its sake.
const BASE_AFTER_LEAST: u64 = 4 << 20;

impl DiskSizes {
    /// These, or smaller ones on a disk of few gigabytes: two segments wait prepared, and as many are kept free before
    /// growth is refused. Requests of `request_bytes_max` still fit.
    pub fn fit(self, disk_bytes: u64, request_bytes_max: usize) -> Self {
        let share = disk_bytes / SHARES;
        let least = SEGMENT_LEAST.max(5 * request_bytes_max as u64);
        DiskSizes {
            segment_bytes: self.segment_bytes.min(share.max(least)),
            base_after_bytes: self.base_after_bytes.min(share.max(BASE_AFTER_LEAST)),
        }
    }

    /// The size that a new segment really gets.
    pub fn segment(self) -> u64 {
        self.segment_bytes.clamp(64 << 10, 1 << 40).next_multiple_of(4096)
    }

    /// The longest log entry that such a segment can take, in bytes.
    pub fn entry_bytes_max(self) -> usize {
        entry_bytes_max(self.segment())
    }
}

/// Beside the longest entry, a frame carries others that were read along with it, and their heads.
const FRAME_SLACK: usize = 4 << 20;

/// Reads what the journal has done; it keeps nothing open that matters.
#[derive(Clone, Debug)]
pub struct JournalGauge(Journal);

impl JournalGauge {
    /// How full the journal is and what it has done since it was opened.
    pub fn usage(&self) -> JournalUsage {
        self.0.usage()
    }
}

/// One member's open keyspaces and what they share.
pub struct Host {
    keyspace: Keyspace,
    peers: Peers,
    follow_members: JoinHandle<()>,
    journal: Journal,
    _directory: Directory,
}

/// A keyspace as the other members' frames reach it.
#[derive(Debug)]
struct Asked(Keyspace);

impl Service for Asked {
    fn serve(&self, ask: Bytes) -> BoxFuture<'static, Served> {
        let keyspace = self.0.clone();
        async move {
            match keyspace.serve_peer(ask).await {
                Ok(answer) => Served::Answer(answer),
                Err(error @ PeerError::BadFrame(_)) => {
                    tracing::warn!(%error, "a peer's frame is not understood");
                    Served::NotServed(error.to_string())
                }
                Err(error @ PeerError::Raft(_)) => Served::Failed(error.to_string()),
            }
        }
        .boxed()
    }
}

fn device(folder: &Path) -> Result<Arc<FileDevice>, HostError> {
    create_private(folder)?;
    let opened = FileDevice::open(folder).map(Arc::new);
    opened.map_err(|source| HostError::Io { folder: folder.display().to_string(), source })
}

impl Host {
    /// Opens the journal and the keyspace of group 0 in a claimed directory.
    pub async fn open(
        mut directory: Directory,
        config: KeyspaceConfig,
        sizes: DiskSizes,
        observer: Arc<dyn JournalObserver>,
        tls: Connector,
    ) -> Result<Host, HostError> {
        let blocking = Arc::new(Blocking::bounded(BLOCKING_SLICES));
        let folder = directory.journal();
        let sizes = match device(&folder)?.total_space() {
            Ok(bytes) => sizes.fit(bytes, config.request_bytes_max),
            // What cannot be asked is taken as large enough.
            Err(_) => sizes,
        };
        let expected = directory.identity().map(|identity| JournalId(identity.journal));
        let options = JournalOptions {
            segment_bytes: sizes.segment(),
            expected,
            observer,
            ..JournalOptions::default()
        };
        let opened = blocking.run(move || {
            let device = device(&folder)?;
            Ok::<_, HostError>(Journal::open(device, options, Runner::Thread)?)
        });
        let journal = opened.await?;
        let log = journal.group(GroupId(0));
        let state = log.state();
        let is_new = state.last.is_none() && state.vote.is_none();
        if is_new && config.initial_members.is_empty() && config.introducers.is_empty() {
            return Err(HostError::NeverBegun);
        }
        directory.settle(journal.id().0, is_new, config.cluster_id, config.member_id)?;
        let folder = directory.group(GroupId(0));
        let mut store = StoreOptions::new(GroupId(0), folder.clone(), device(&folder)?);
        store.base_after_bytes = sizes.base_after_bytes;
        store.base_after_requests = config.base_after_requests;
        store.lone_voter = Some(config.member_id);
        store.forced_voter = config.force_new_cluster.then_some(config.member_id);
        let timing = PeerTiming::for_election_timeout(config.election_timeout);
        let peers = Peers::new(PeersConfig {
            cluster: config.cluster_id,
            member: config.member_id,
            frame_bytes_max: sizes.entry_bytes_max() + FRAME_SLACK,
            timing,
            tls,
        });
        let seams = Seams {
            clock: Arc::new(SystemClock::default()),
            blocking,
            transport: Arc::new(peers.clone()),
            incarnation: rand::random(),
        };
        let keyspace = Keyspace::open(config, store, log, seams).await?;
        peers.serve(GroupId(0), Arc::new(Asked(keyspace.clone())));
        let follow_members = membership::follow(keyspace.clone(), peers.clone()).await;
        Ok(Host { keyspace, peers, follow_members, journal, _directory: directory })
    }

    /// The streams to and from the other members.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Resolves once this member was removed from its cluster, and was given the time to say so: it is to stop, and its
    /// directory is of no use any more.
    pub async fn removed(&self) {
        membership::removed(&self.keyspace, &self.peers).await
    }

    /// The keyspace of group 0.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The journal's figures, for metrics.
    pub fn journal_gauge(&self) -> JournalGauge {
        JournalGauge(self.journal.clone())
    }

    /// Stops everything in order; what was acknowledged is on the disk.
    pub async fn shutdown(self) -> Result<(), HostError> {
        self.keyspace.shutdown().await;
        self.follow_members.abort();
        if let Err(error) = self.follow_members.await
            && error.is_panic()
        {
            tracing::error!(%error, "following the membership failed");
        }
        self.peers.shutdown().await;
        let journal = self.journal;
        drop(self.keyspace);
        Blocking::bounded(1).run(move || journal.close()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_gets_small_segments_that_still_take_a_request() {
        const ASKED: DiskSizes = DiskSizes { segment_bytes: 64 << 20, base_after_bytes: 64 << 20 };
        for (disk, request, segment, base_after) in [
            (1 << 40, 1536 << 10, 64 << 20, 64 << 20),
            (1 << 30, 1536 << 10, 32 << 20, 32 << 20),
            (100 << 20, 1536 << 10, 8 << 20, 4 << 20),
            (100 << 20, 8 << 20, 40 << 20, 4 << 20),
        ] {
            let fitted = ASKED.fit(disk, request);
            assert_eq!((fitted.segment_bytes, fitted.base_after_bytes), (segment, base_after));
            assert!(fitted.entry_bytes_max() > request + (64 << 10));
        }
        let small = DiskSizes { segment_bytes: 1 << 20, base_after_bytes: 16 << 10 };
        assert_eq!(small.fit(1 << 40, 200_000).segment_bytes, 1 << 20, "never larger");
    }
}
