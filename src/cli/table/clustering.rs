//! Flags of the cluster: who the members are and how they behave together.

use super::{Group, Key, Row};
use crate::support::flags::Kind;

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Clustering, name, kind, default)
}

const URLS: Kind = Kind::Urls { allowed: &[""] };

const fn discovery(name: &'static str, kind: Kind, default: &'static str, key: Key) -> Row {
    row(name, kind, default)
        .silent()
        .key(key)
        .help("Discovery through another etcd: not built yet.")
}

const fn client(key: &'static str) -> Key {
    Key::Deep("discovery-config", "client", key)
}

pub(super) const ROWS: [Row; 28] = [
    row("initial-advertise-peer-urls", URLS, "http://localhost:2380")
        .help("URLs at which the other members reach this one."),
    row("initial-cluster", Kind::Text, "default=http://localhost:2380")
        .help("The first members, as name=URL pairs."),
    row("initial-cluster-state", Kind::OneOf(&["new", "existing"]), "")
        .help("'new' begins a cluster, 'existing' joins one. Ignored at a restart."),
    row("initial-cluster-token", Kind::Text, "etcd-cluster")
        .help("Tells clusters apart that were begun with the same members."),
    row("advertise-client-urls", URLS, "http://localhost:2379")
        .help("URLs at which clients reach this member."),
    row("strict-reconfig-check", Kind::Bool, "true")
        .help("Whether to refuse membership changes that would lose the quorum."),
    row("pre-vote", Kind::Bool, "true")
        .help("Whether a member asks if it could win before it starts an election."),
    row("auto-compaction-mode", Kind::Text, "periodic")
        .help("What --auto-compaction-retention counts: 'periodic' time or 'revision's."),
    row("auto-compaction-retention", Kind::Text, "0")
        .help("History to keep; 0 keeps all. A bare number is hours, or revisions."),
    row("v2-deprecation", Kind::SomeOf(&V2_STAGES), "")
        .silent()
        .help("No effect: version 2 of the API is gone. Deprecated in etcd 3.6."),
    row("discovery-srv", Kind::Text, "").not_yet().help("DNS domain that names the first members."),
    row("discovery-srv-name", Kind::Text, "")
        .silent()
        .help("Suffix to the service name asked for with --discovery-srv."),
    row("discovery-token", Kind::Text, "")
        .not_yet()
        .key(Key::In("discovery-config", "token"))
        .help("Discovery through another etcd: not built yet."),
    row("discovery-endpoints", Kind::UniqueTexts, "")
        .not_yet()
        .key(client("endpoints"))
        .help("Discovery through another etcd: not built yet."),
    discovery("discovery-dial-timeout", Kind::Duration, "2s", client("dial-timeout")),
    discovery("discovery-request-timeout", Kind::Duration, "5s", client("request-timeout")),
    discovery("discovery-keepalive-time", Kind::Duration, "2s", client("keepalive-time")),
    discovery("discovery-keepalive-timeout", Kind::Duration, "6s", client("keepalive-timeout")),
    discovery("discovery-insecure-transport", Kind::Bool, "true", Key::None),
    discovery("discovery-insecure-skip-tls-verify", Kind::Bool, "false", Key::None),
    discovery("discovery-cert", Kind::Text, "", Key::None),
    discovery("discovery-key", Kind::Text, "", Key::None),
    discovery("discovery-cacert", Kind::Text, "", Key::None),
    discovery("discovery-user", Kind::Text, "", Key::None),
    discovery("discovery-password", Kind::Text, "", Key::None),
    discovery("discovery-fallback", Kind::OneOf(&["exit", "proxy"]), "", Key::None),
    row("max-learners", Kind::Int, "1").help("Members without a vote that the cluster may have."),
    row("downgrade-check-time", Kind::Duration, "5s")
        .silent()
        .help("Time between two looks at a downgrade under way."),
];

const V2_STAGES: [&str; 4] =
    ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];
