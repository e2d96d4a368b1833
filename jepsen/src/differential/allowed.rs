//! The differences that are not findings, each with the change in etcd that explains it.
//!
//! **Invariant:** at most eight rows; against the release we answer as (3.7.1) only what a row names.

use super::answer::Answer;
use super::call::Call;
use super::generate::Dialect;
use crate::pb::etcdserverpb::RangeResponse;
use crate::pb::mvccpb::KeyValue;

/// Which etcd answers beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl Release {
    /// Reads `3.5.1` out of a `etcd Version: 3.5.1` line.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|l| l.strip_prefix("etcd Version: "))?;
        let mut parts = line.trim().splitn(3, '.');
        let mut next = || parts.next()?.split('-').next()?.parse().ok();
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }

    fn before(self, major: u32, minor: u32, patch: u32) -> bool {
        self < Self { major, minor, patch }
    }

    pub(super) fn dialect(self) -> Dialect {
        Dialect {
            unknown_sorts: !self.before(3, 6, 0),
            range_stream: !self.before(3, 7, 0),
            hash_after_compaction: !self.before(3, 5, 16),
            manual_progress: !self.before(3, 5, 8),
            negative_starts: !self.before(3, 6, 6),
        }
    }
}

/// One difference, by name.
pub(super) struct Allowed {
    pub(super) name: &'static str,
    pub(super) explained_by: &'static str,
    applies: fn(Release, &Call, &Answer, &Answer) -> bool,
}

pub(super) const ALLOWED: [Allowed; 8] = [
    Allowed {
        name: "status fields",
        explained_by: "3.6 added storageVersion, dbSizeQuota and downgradeInfo; the version is the release's own",
        applies: status_fields,
    },
    Allowed {
        name: "which refusal of a txn with two faults",
        explained_by: "3.7 checks the revisions of a write txn's ranges with its other checks (#18667)",
        applies: which_refusal,
    },
    Allowed {
        name: "keys-only ranges tell no lease",
        explained_by: "3.7 serves keys_only from the index, which knows no leases",
        applies: keys_only_lease,
    },
    Allowed {
        name: "order of ties",
        explained_by: "Go 1.19 replaced the sort that reorders ties of short lists (3.5.1 was built with 1.16)",
        applies: order_of_ties,
    },
    Allowed {
        name: "unknown sort enums (not asked)",
        explained_by: "3.6 refuses them; 3.5.1 takes any order and ends in a panic on a target (#13554)",
        applies: not_asked,
    },
    Allowed {
        name: "watch edges: start below zero or at the compaction, id -1, progress on request (not asked)",
        explained_by: "3.6.6 refuses a negative start at once; 3.5.16 keeps tombstones there (#19179); 3.5.8 tells no progress to watchers behind (#15220)",
        applies: not_asked,
    },
    Allowed {
        name: "RangeStream with a sort target but no order; before 3.7 all of it (not asked)",
        explained_by: "new in 3.7, which sorts each chunk by the target and goes on after its last key: it skips and miscounts",
        applies: not_asked,
    },
    Allowed {
        name: "HashKV: its hash_revision; all of it after a compaction (not asked)",
        explained_by: "3.6 added the field; 3.5.16 keeps tombstones at the compacted revision (#19179)",
        applies: hash_revision,
    },
];

fn status_fields(release: Release, _: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let (Answer::Status(ours), Answer::Status(theirs)) = (ours, theirs) else {
        return false;
    };
    let mut ours = ours.clone();
    ours.version.clone_from(&theirs.version);
    ours.storage_version.clone_from(&theirs.storage_version);
    ours.db_size_quota = theirs.db_size_quota;
    ours.downgrade_info.clone_from(&theirs.downgrade_info);
    release.before(3, 6, 0) && ours == *theirs
}

fn which_refusal(release: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let refused = |answer: &Answer| matches!(answer, Answer::Refused { .. });
    release.before(3, 7, 0) && matches!(call, Call::Txn(_)) && refused(ours) && refused(theirs)
}

fn hash_revision(release: Release, _: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let (Answer::HashKv(ours), Answer::HashKv(theirs)) = (ours, theirs) else {
        return false;
    };
    let mut ours = *ours;
    ours.hash_revision = theirs.hash_revision;
    release.before(3, 6, 0) && ours == *theirs
}

/// The script leaves these calls out, see [`Dialect`].
fn not_asked(_: Release, _: &Call, _: &Answer, _: &Answer) -> bool {
    false
}

fn keys_only_lease(release: Release, _: &Call, ours: &Answer, theirs: &Answer) -> bool {
    release.before(3, 7, 0)
        && (ours.clone().reshaped(forget_keys_only_leases)
            == theirs.clone().reshaped(forget_keys_only_leases)
            || ours.clone().reshaped(forget_leases_and_order)
                == theirs.clone().reshaped(forget_leases_and_order))
}

fn forget_keys_only_leases(range: &mut RangeResponse) {
    if range.kvs.iter().all(|kv| kv.value.is_empty()) {
        for kv in &mut range.kvs {
            kv.lease = 0;
        }
    }
}

fn forget_leases_and_order(range: &mut RangeResponse) {
    forget_keys_only_leases(range);
    in_key_order(range);
}

fn order_of_ties(release: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let sorted = match call {
        Call::Range(request) => request.sort_target != 0,
        Call::Txn(_) => true,
        _ => false,
    };
    release.before(3, 6, 0)
        && sorted
        && (ours.clone().reshaped(in_key_order) == theirs.clone().reshaped(in_key_order)
            || same_sort_keys(call, ours, theirs))
}

/// A limit may cut a tie, and then the keys differ: what they were sorted by does not.
fn same_sort_keys(call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let (Call::Range(request), Answer::Range(ours), Answer::Range(theirs)) = (call, ours, theirs)
    else {
        return false;
    };
    let sorted_by = |range: &RangeResponse| -> Vec<(i64, Vec<u8>)> {
        let by = |kv: &KeyValue| match request.sort_target {
            1 => (kv.version, Vec::new()),
            2 => (kv.create_revision, Vec::new()),
            3 => (kv.mod_revision, Vec::new()),
            _ => (0, kv.value.to_vec()),
        };
        range.kvs.iter().map(by).collect()
    };
    ours.header == theirs.header
        && ours.count == theirs.count
        && ours.more == theirs.more
        && sorted_by(ours) == sorted_by(theirs)
}

fn in_key_order(range: &mut RangeResponse) {
    range.kvs.sort_by(|a, b| a.key.cmp(&b.key));
}

/// The row that explains why `ours` differs from `theirs`, if one does.
pub(super) fn explain(
    release: Release,
    call: &Call,
    ours: &Answer,
    theirs: &Answer,
) -> Option<&'static Allowed> {
    ALLOWED.iter().find(|row| (row.applies)(release, call, ours, theirs))
}
