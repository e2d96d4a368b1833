//! The differences that are not findings, each with the change in etcd that explains it.
//!
//! **Invariant:** at most eight rows hold against the release we answer as (3.7.1), and only what they name differs from
//! it; the others are of older releases, in which etcd differs from itself.

use super::answer::Answer;
use super::call::Call;
use super::generate::Dialect;
use super::upkeep::UpkeepCall;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest};

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
            unknown_enums: !self.before(3, 6, 0),
            range_stream: !self.before(3, 7, 0),
            keeps_last_tombstone: !self.before(3, 5, 16),
            negative_starts: !self.before(3, 6, 6),
            negative_leases: !self.before(3, 5, 3),
            counts_nested_puts: !self.before(3, 7, 1),
            stable_to_twelve: !self.before(3, 6, 0),
        }
    }

    /// Whether a progress request is answered for watchers that have not caught up, or have nothing to watch yet.
    pub(super) fn tells_progress_always(self) -> bool {
        self.before(3, 5, 8)
    }

    /// Whether watchers whose start revision lies ahead are told nothing until then.
    pub(super) fn keeps_future_watchers_silent(self) -> bool {
        !self.before(3, 6, 2)
    }

    /// The flag that sets how often watchers are told of progress.
    pub(super) fn progress_flag(self) -> &'static str {
        if self.before(3, 6, 0) {
            "--experimental-watch-progress-notify-interval"
        } else {
            "--watch-progress-notify-interval"
        }
    }

    /// Whether its HTTP answers are ours too: they name the release.
    pub(super) fn speaks_our_http(self) -> bool {
        !self.before(3, 7, 0)
    }

    /// What Status tells as the version of the storage; nothing before 3.6.
    pub(super) fn storage_version(self) -> Option<String> {
        (!self.before(3, 6, 0)).then(|| format!("{}.{}.0", self.major, self.minor))
    }

    /// Whether two alarms at once are both obeyed.
    pub(super) fn obeys_two_alarms(self) -> bool {
        !self.before(3, 6, 0)
    }

    /// The answer as a client of this release reads it: fields that came later are dropped, and so is the version
    /// unless it is the one we report.
    pub(super) fn read(self, mut answer: Answer) -> Answer {
        match &mut answer {
            Answer::Status(status) => {
                if self.before(3, 7, 1) {
                    status.version.clear();
                    status.storage_version.clear();
                }
                if self.before(3, 6, 0) {
                    status.db_size_quota = 0;
                    status.downgrade_info = None;
                }
            }
            Answer::HashKv(hash) if self.before(3, 6, 0) => hash.hash_revision = 0,
            Answer::Several(answers) => {
                for answer in answers {
                    *answer = self.read(std::mem::replace(answer, Answer::Done));
                }
            }
            _ => {}
        }
        answer
    }

    /// Whether this release streams `request` whole. Else it is asked for it as a range.
    pub(super) fn streams(self, request: &RangeRequest) -> bool {
        !self.before(3, 7, 0) && !is_sorted(request)
    }
}

/// One difference, by name, with the change in etcd that explains it.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) name: &'static str,
    /// What differs, and what the test does about it.
    pub(super) how: &'static str,
    /// Numbers of etcd's pull requests with the release they came in, or the file that does it.
    pub(super) change: &'static str,
    /// It is there against the release we answer as, too.
    pub(super) newest: bool,
    applies: Applies,
}

/// What becomes of the calls.
#[derive(Debug)]
enum Applies {
    /// They are made, and answers may differ so.
    Answers(fn(Release, &Call, &Answer, &Answer) -> bool),
    /// They are made in another way, or an answer may be missing; counted where that happens.
    Elsewhere,
    /// The script leaves them out, see [`Dialect`].
    NotAsked,
}

pub(super) const STREAM: &str = "RangeStream";
pub(super) const PROGRESS: &str = "progress";
pub(super) const SNAPSHOTS: &str = "snapshots";

pub(super) const ALLOWED: [Allowed; 14] = [
    Allowed {
        name: STREAM,
        how: "with a sort target and no order, and before 3.7: etcd is asked for a range",
        change: "etcd#21631 (3.7.0) brought it: each chunk is sorted, and the next begins after its last key",
        newest: true,
        applies: Applies::Answers(stream),
    },
    Allowed {
        name: "etcd panics",
        how: "never asked: a txn that deletes up to `\\0` and puts with ignore_value or ignore_lease; an alarm request with an unknown action; before 3.6: unknown sort enums and alarms",
        change: "etcd#14149 kept the panic for txns that write; v3rpc/maintenance.go reads the answer that such an action has not; etcd#13555 refuses the sorts, etcd#13878 takes the alarms (3.6.0)",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: SNAPSHOTS,
        how: "ours is UNIMPLEMENTED to whom etcd sends a snapshot",
        change: "ours: a snapshot is a bbolt file (etcd's server/storage/backend/backend.go), which is not written yet",
        newest: true,
        applies: Applies::Answers(no_snapshot),
    },
    Allowed {
        name: "figures of etcd alone",
        how: "not looked for: metrics `go_` and `etcd_debugging_store_{reads,writes}_total`; `memstats` and `cmdline` of /debug/vars",
        change: "Go's runtime; the store of version 2, into which a restart replays members (v2store/metrics.go); Go's expvar.go shows the command line, which may hold a password",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "granted again",
        how: "never asked: a grant of a range that a role has beside another from the same key",
        change: "etcd's auth/store.go looks at the first range from a key alone, and keeps both grants",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "ranges of nothing",
        how: "never asked by users: ranges that end where they begin or before",
        change: "etcd's auth/range_perm_cache.go asks a tree of intervals, which promises nothing of such ones",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "downgrade",
        how: "never asked: the one target that etcd accepts, 3.6",
        change: "ours: no earlier release reads our files, nor does etcd (etcdserver/version/downgrade.go), so none is accepted",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "leases of no leader",
        how: "never asked: Proclaim and Resign with a leader without a lease",
        change: "etcd's v3election/election.go makes a lease of 60 s for a resignation too, and leaves it; ours does not",
        newest: true,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "which refusal",
        how: "before 3.7: of a txn with two faults",
        change: "etcd#21432 (3.7.0) checks the revisions of a txn's ranges with its other checks",
        newest: false,
        applies: Applies::Answers(which_refusal),
    },
    Allowed {
        name: "keys only",
        how: "before 3.7: such ranges tell leases",
        change: "etcd#21791 (3.7.0) serves them from the index, which knows no leases",
        newest: false,
        applies: Applies::Answers(keys_only_lease),
    },
    Allowed {
        name: "no space",
        how: "before 3.5.7: a txn that costs nothing is refused over the quota; before 3.6 not asked: NOSPACE raised under CORRUPT; before 3.7.1 not asked under an alarm: nested txns",
        change: "etcd#14884 (3.5.7) lets it pass; etcd#13878 (3.6.0): the later alarm no longer hides the other; etcd#22139 (3.7.1) counts nested puts",
        newest: false,
        applies: Applies::Answers(free_txn),
    },
    Allowed {
        name: PROGRESS,
        how: "before 3.5.8: told of watchers that have not caught up; before 3.6.2: not asked of watchers of the future",
        change: "etcd#15695 (3.5.8) synchronised it with the stream; etcd#20286 (3.6.2)",
        newest: false,
        applies: Applies::Elsewhere,
    },
    Allowed {
        name: "last tombstone",
        how: "before 3.5.16 not asked: HashKV after a compaction, watches from one",
        change: "etcd#18474 (3.5.16) keeps a tombstone at the compacted revision",
        newest: false,
        applies: Applies::NotAsked,
    },
    Allowed {
        name: "negative numbers",
        how: "before 3.6.6 not asked: watches from below revision 0, the watcher id -1; before 3.5.3: negative lease ids",
        change: "etcd#20707 (3.6.6) refuses the start; etcd#14296 (3.5.5), etcd#13676 (3.5.3) no longer lose the ids",
        newest: false,
        applies: Applies::NotAsked,
    },
];

/// Sorted by something else than the key, and not refused: an order or bounds of revisions are.
fn is_sorted(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let refused = request.sort_order != 0 || bounds != [0; 4];
    (1..=4).contains(&request.sort_target) && !refused
}

fn stream(release: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let asked_for_a_range = match call {
        Call::RangeStream(request) => !release.streams(request),
        Call::Burst(burst) => !release.streams(&burst.stream),
        _ => false,
    };
    asked_for_a_range && ours.clone().into_range() == theirs.clone().into_range()
}

fn no_snapshot(_: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let unimplemented = matches!(ours, Answer::Refused { code, .. } if code == "Unimplemented");
    matches!(call, Call::Upkeep(UpkeepCall::Snapshot))
        && unimplemented
        && matches!(theirs, Answer::Text { .. })
}

fn free_txn(release: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let no_space =
        matches!(theirs, Answer::Refused { text, .. } if text.ends_with("space exceeded"));
    release.before(3, 5, 7)
        && no_space
        && matches!((call, ours), (Call::Txn(txn), Answer::Txn(_)) if !puts(txn))
}

fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(txn)) => puts(txn),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

fn which_refusal(release: Release, call: &Call, ours: &Answer, theirs: &Answer) -> bool {
    let (Answer::Refused { text: ours, .. }, Answer::Refused { text: theirs, .. }) = (ours, theirs)
    else {
        return false;
    };
    let of_a_revision = |text: &str| text.contains("mvcc: required revision");
    release.before(3, 7, 0)
        && matches!(call, Call::Txn(_))
        && (of_a_revision(ours) || of_a_revision(theirs))
}

fn keys_only_lease(release: Release, _: &Call, ours: &Answer, theirs: &Answer) -> bool {
    release.before(3, 7, 0)
        && ours.clone().reshaped(forget_keys_only_leases)
            == theirs.clone().reshaped(forget_keys_only_leases)
}

fn forget_keys_only_leases(range: &mut RangeResponse) {
    if range.kvs.iter().all(|kv| kv.value.is_empty()) {
        for kv in &mut range.kvs {
            kv.lease = 0;
        }
    }
}

/// The row that explains why `ours` differs from `theirs`, if one does.
pub(super) fn explain(
    release: Release,
    call: &Call,
    ours: &Answer,
    theirs: &Answer,
) -> Option<&'static Allowed> {
    ALLOWED.iter().find(|row| match row.applies {
        Applies::Answers(applies) => applies(release, call, ours, theirs),
        Applies::Elsewhere | Applies::NotAsked => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_its_cause_and_few_are_of_the_newest_release() {
        for row in &ALLOWED {
            assert!(row.change.contains("etcd#") || row.change.contains(".go"), "{row:?}");
        }
        let newest = ALLOWED.iter().filter(|row| row.newest).count();
        assert!(newest <= 8, "{newest}");
    }

    #[test]
    fn a_release_reads_from_what_etcd_prints() {
        let release = Release::parse("etcd Version: 3.5.1\nGit SHA: e8732fb5f\n").unwrap();
        assert_eq!(release, Release { major: 3, minor: 5, patch: 1 });
        assert!(!release.dialect().range_stream && release.tells_progress_always());
        assert!(Release::parse("quorate 0.1").is_none());
    }
}
