//! Comparing the members' data, and raising the CORRUPT alarm (etcd `server/etcdserver/corrupt.go`).
//!
//! ```text
//!   at a start    own hash ── peers' at that revision ── same compact revision, other hash? ──▶ refuse to serve
//!   periodic      the leader: the same, and again after a read round: whoever differs first ──▶ CORRUPT
//!   compactions   the leader: the hashes that compactions left, newest first: whoever is not of the majority
//!                 ──▶ CORRUPT; without a majority for member 0, which stands for the whole cluster
//! ```
//!
//! A member that does not answer, or answers for another compact revision, says nothing about the data.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::state_machine::KvHash;

use crate::keyspace::error::KeyspaceError;

/// What comparing needs of the keyspace.
pub(crate) trait Hasher: Send + Sync {
    /// This member.
    fn member(&self) -> MemberId;
    /// Whether it leads: nobody else compares.
    fn leads(&self) -> bool;
    /// Its own hash at `revision`, 0 for the newest, and its newest revision.
    fn hash(
        &self,
        revision: i64,
    ) -> impl Future<Output = Result<(KvHash, i64), KeyspaceError>> + Send;
    /// The hash of every other member at `revision`.
    fn peers(&self, revision: i64) -> impl Future<Output = Vec<PeerHash>> + Send;
    /// The hashes that finished compactions left.
    fn compactions(&self) -> Vec<KvHash>;
    /// Waits until this member is as new as any acknowledged write.
    fn linearize(&self) -> impl Future<Output = Result<(), KeyspaceError>> + Send;
    /// Raises the CORRUPT alarm for `member`.
    fn raise(&self, member: MemberId) -> impl Future<Output = ()> + Send;
}

/// What another member answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerHash {
    pub(crate) member: MemberId,
    pub(crate) told: Result<Told, NoHash>,
}

/// A member's hash, and the newest revision that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) hash: KvHash,
    pub(crate) current: i64,
}

/// Why a member has no hash at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHash {
    #[error("required revision has been compacted")]
    Compacted,
    #[error("required revision is a future revision")]
    Future,
    #[error("no response")]
    Silent,
}

/// A member's data differ from the others'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} found data inconsistency with peers")]
pub(crate) struct Inconsistent(MemberId);

/// Compares a keyspace's members.
pub(crate) struct Checker<H> {
    hasher: H,
    /// The newest compaction whose hash all members had alike.
    checked: i64,
}

impl<H: Hasher> Checker<H> {
    pub(crate) fn new(hasher: H) -> Self {
        Checker { hasher, checked: 0 }
    }

    /// The comparison before a member serves.
    pub(crate) async fn initial(&self) -> Result<Result<(), Inconsistent>, KeyspaceError> {
        let own = self.hasher.member();
        tracing::info!("local-member-id" = %own, "starting initial corruption check");
        let (hash, _) = self.hasher.hash(0).await?;
        let mut differs = false;
        for peer in self.hasher.peers(hash.revision).await {
            let id = peer.member;
            match peer.told {
                Ok(told) if told.hash.hash == hash.hash => {}
                Ok(told) if told.hash.compact_revision == hash.compact_revision => {
                    differs = true;
                    tracing::warn!(
                        "local-member-id" = %own,
                        "local-member-revision" = hash.revision,
                        "local-member-compact-revision" = hash.compact_revision,
                        "local-member-hash" = hash.hash,
                        "remote-peer-id" = %id,
                        "remote-peer-revision" = told.current,
                        "remote-peer-compact-revision" = told.hash.compact_revision,
                        "remote-peer-hash" = told.hash.hash,
                        "found different hash values from remote peer"
                    );
                }
                Ok(told) => tracing::warn!(
                    "local-member-id" = %own,
                    "local-member-compact-revision" = hash.compact_revision,
                    "remote-peer-id" = %id,
                    "remote-peer-compact-revision" = told.hash.compact_revision,
                    "found different compact revision values from remote peer"
                ),
                Err(NoHash::Future) => {
                    tracing::warn!("remote-peer-id" = %id, "cannot fetch hash from slow remote peer");
                }
                Err(NoHash::Compacted) => tracing::warn!(
                    "remote-peer-id" = %id,
                    "cannot fetch hash from remote peer; local member is behind"
                ),
                Err(NoHash::Silent) => {
                    tracing::warn!("remote-peer-id" = %id, "cannot fetch hash from remote peer");
                }
            }
        }
        if differs {
            return Ok(Err(Inconsistent(own)));
        }
        tracing::info!(
            "local-member-id" = %own,
            "initial corruption checking passed; no corruption"
        );
        Ok(Ok(()))
    }

    /// The comparison that `--corrupt-check-time` spaces.
    async fn periodic(&self) -> Result<(), KeyspaceError> {
        let (first, _) = self.hasher.hash(0).await?;
        let peers = self.hasher.peers(first.revision).await;
        self.hasher.linearize().await?;
        let (second, newest) = self.hasher.hash(0).await?;
        let suspects = self.suspects(first, second, newest, &peers);
        // One alarm is enough to stop writes; who else differs is in the log.
        if let Some(suspect) = suspects.first() {
            self.hasher.raise(*suspect).await;
        }
        let checked = peers.iter().filter(|peer| peer.told.is_ok()).count();
        tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
        Ok(())
    }

    /// Whose data cannot be right, this member first.
    fn suspects(
        &self,
        first: KvHash,
        second: KvHash,
        newest: i64,
        peers: &[PeerHash],
    ) -> Vec<MemberId> {
        let mut suspects = Vec::new();
        let same =
            second.revision == first.revision && second.compact_revision == first.compact_revision;
        if same && second.hash != first.hash {
            tracing::warn!(?first, ?second, "found hash mismatch");
            suspects.push(self.hasher.member());
        }
        for peer in peers {
            let (id, Ok(told)) = (peer.member, peer.told) else { continue };
            if told.current > newest {
                tracing::warn!(
                    "leader-revision" = newest,
                    "follower-revision" = told.current,
                    "follower-peer-id" = %id,
                    "revision from follower must be less than or equal to leader's"
                );
                suspects.push(id);
            }
            let compacted = told.hash.compact_revision;
            if compacted > second.compact_revision {
                tracing::warn!(
                    "leader-compact-revision" = second.compact_revision,
                    "follower-compact-revision" = compacted,
                    "follower-peer-id" = %id,
                    "compact revision from follower must be less than or equal to leader's"
                );
                suspects.push(id);
            }
            if compacted == first.compact_revision && told.hash.hash != first.hash {
                tracing::warn!(
                    "leader-compact-revision" = first.compact_revision,
                    "leader-hash" = first.hash,
                    "follower-hash" = told.hash.hash,
                    "follower-peer-id" = %id,
                    "same compact revision then hashes must match"
                );
                suspects.push(id);
            }
        }
        suspects
    }

    /// The comparison that `--compact-hash-check-time` spaces: of what compactions left, newest first, until one could
    /// be compared with every member.
    async fn compactions(&mut self) {
        tracing::info!("local-member-id" = %self.hasher.member(), "starting compact hash check");
        let mut hashes = self.hasher.compactions();
        hashes.retain(|hash| hash.revision > self.checked);
        hashes.sort_by_key(|hash| std::cmp::Reverse(hash.revision));
        let mut count = 0;
        for hash in hashes {
            count += 1;
            let peers = self.hasher.peers(hash.revision).await;
            if !peers.is_empty() && self.compare(hash, &peers).await {
                break;
            }
        }
        tracing::info!("number-of-hashes-checked" = count, "finished compaction hash check");
    }

    /// Whether every member was compared, or an alarm raised.
    async fn compare(&mut self, own: KvHash, peers: &[PeerHash]) -> bool {
        let mut by_hash = BTreeMap::from([(own.hash, vec![self.hasher.member()])]);
        let mut compared = 0;
        for peer in peers {
            let reason = match peer.told {
                Ok(told) if told.hash.compact_revision == own.compact_revision => {
                    by_hash.entry(told.hash.hash).or_default().push(peer.member);
                    compared += 1;
                    continue;
                }
                Ok(told) => format!(
                    "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                    told.hash.compact_revision, own.compact_revision
                ),
                Err(silent) => silent.to_string(),
            };
            tracing::warn!("peer-id" = %peer.member, reason, "Skipped peer's hash");
        }
        let (revision, compact_revision) = (own.revision, own.compact_revision);
        if by_hash.len() > 1 {
            self.accuse(own, by_hash, peers.len() + 1).await;
            return true;
        }
        let all = compared == peers.len();
        if all {
            self.checked = self.checked.max(revision);
            tracing::info!(
                "number-of-peers-checked" = compared,
                revision,
                "compactRevision" = compact_revision,
                "successfully checked hash on whole cluster"
            );
        } else {
            tracing::warn!(
                "number-of-peers-checked" = compared,
                "number-of-peers" = peers.len(),
                revision,
                "compactRevision" = compact_revision,
                "skipped revision in compaction hash check; was not able to check all peers"
            );
        }
        all
    }

    /// Hashes differ: a majority of all members is right; without one nobody is known to be wrong.
    async fn accuse(&self, own: KvHash, by_hash: BTreeMap<u32, Vec<MemberId>>, members: usize) {
        let majority = by_hash.values().any(|ids| ids.len() > members / 2);
        if !majority {
            tracing::error!(
                "leader-id" = %self.hasher.member(),
                "leader-revision" = own.revision,
                "leader-hash" = own.hash,
                "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"
            );
            self.hasher.raise(MemberId(0)).await;
        }
        for (hash, ids) in by_hash {
            if ids.len() > members / 2 {
                continue;
            }
            let named: Vec<String> = ids.iter().map(MemberId::to_string).collect();
            tracing::error!(
                "leader-id" = %self.hasher.member(),
                "leader-revision" = own.revision,
                "leader-hash" = own.hash,
                "peer-hash" = hash,
                "peer-ids" = named.join(","),
                "quorum-exist" = majority,
                "Detected compaction hash mismatch"
            );
            if majority {
                for id in ids {
                    self.hasher.raise(id).await;
                }
            }
        }
    }
}

/// Compares all data every so often, on the leader; the keyspace's owner drops it.
pub(crate) async fn check_periodically(hasher: impl Hasher, every: Duration) {
    let checker = Checker::new(hasher);
    tracing::info!(
        "local-member-id" = %checker.hasher.member(),
        interval = ?every,
        "enabled corruption checking"
    );
    loop {
        tokio::time::sleep(every).await;
        if !checker.hasher.leads() {
            continue;
        }
        if let Err(error) = checker.periodic().await {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

/// Compares the hashes of compactions every so often, on the leader; the keyspace's owner drops it.
pub(crate) async fn check_compactions(hasher: impl Hasher, every: Duration) {
    let mut checker = Checker::new(hasher);
    loop {
        tokio::time::sleep(every).await;
        if checker.hasher.leads() {
            checker.compactions().await;
        }
    }
}

#[cfg(test)]
#[path = "corrupt_test.rs"]
mod tests;
