//! Flags of checks and compaction, the dangerous ones, our own, and the names etcd has ignored for years.

use super::{Group, Key, Row};
use crate::support::flags::Kind;

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Features, name, kind, default)
}

const fn legacy(name: &'static str) -> Row {
    Row::new(Group::Hidden, name, Kind::Ignored, "")
        .silent()
        .key(Key::None)
        .help("Ignored by etcd for years.")
}

pub(super) const ROWS: [Row; 14] = [
    row("corrupt-check-time", Kind::Duration, "0s")
        .help("Time between two comparisons of the members' data by the leader; 0 for none."),
    row("compact-hash-check-time", Kind::Duration, "1m")
        .help("Time between two comparisons of what compactions left (gate CompactHashCheck)."),
    row("compaction-batch-limit", Kind::Int, "1000")
        .help("Keys that a compaction drops in one step."),
    row("compaction-sleep-interval", Kind::Duration, "10ms")
        .help("Time between two such steps; without the flag others only get their turn."),
    row("watch-progress-notify-interval", Kind::Duration, "10m")
        .help("Time between two progress notifications of a watch that asked for them."),
    row("warning-apply-duration", Kind::Duration, "100ms")
        .help("Applying an entry for longer is logged."),
    row("bootstrap-defrag-threshold-megabytes", Kind::Uint, "0")
        .help("Defragment before serving if so many megabytes would be won; 0 for never."),
    row("snapshot-catchup-entries", Kind::Uint, "5000")
        .help("Log entries kept behind a snapshot for members that are slow."),
    Row::new(Group::Unsafe, "force-new-cluster", Kind::Bool, "false").help(
        "Go on as a cluster of this member alone, with its data, after a quorum is lost for good.",
    ),
    Row::new(Group::Unsafe, "unsafe-no-fsync", Kind::Bool, "false")
        .no_effect()
        .help("No effect: what was acknowledged is always on the disk."),
    Row::new(Group::Member, "config-file", Kind::Text, "")
        .key(Key::None)
        .help("A YAML or JSON file with all settings; other flags and variables are then ignored."),
    Row::new(Group::Quorate, "runtime", Kind::OneOf(&["auto", "single", "multi"]), "")
        .help("Threads that serve: 'single', 'multi', or by the number of cores."),
    Row::new(Group::Quorate, "journal-segment-bytes", Kind::Uint, "67108864")
        .help("Size of a new journal segment; rounded up to 4 KiB, at least 64 KiB."),
    Row::new(Group::Quorate, "base-after-bytes", Kind::Uint, "67108864")
        .help("A base is written when the journal has grown by this and by the last base's size."),
];

pub(super) const LEGACY: [Row; 15] = [
    legacy("cluster-active-size"),
    legacy("cluster-remove-delay"),
    legacy("cluster-sync-interval"),
    legacy("config"),
    legacy("force"),
    legacy("max-result-buffer"),
    legacy("max-retry-attempts"),
    legacy("peer-heartbeat-interval"),
    legacy("peer-election-timeout"),
    legacy("retry-interval"),
    legacy("snapshot"),
    legacy("v"),
    legacy("vv"),
    legacy("test.coverprofile"),
    legacy("test.outputdir"),
];
