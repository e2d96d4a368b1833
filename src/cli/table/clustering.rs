//! Flags of the cluster: who the members are and how they behave together.

use super::{Group, Key, Row};
use crate::support::flags::Kind;

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Clustering, name, kind, default)
}

const URLS: Kind = Kind::Urls { allowed: &[""] };

/// A flag of the discovery service; in a file it stands under `client` of `discovery-config`.
const fn discovery(name: &'static str, kind: Kind, default: &'static str, key: Key) -> Row {
    row(name, kind, default).key(key)
}

const fn client(key: &'static str) -> Key {
    Key::Deep("discovery-config", "client", key)
}

const fn client_of(part: &'static str, key: &'static str) -> Key {
    Key::Deepest("discovery-config", "client", part, key)
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
    row("discovery-srv", Kind::Text, "")
        .help("DNS domain whose service records name the first members, instead of --initial-cluster."),
    row("discovery-srv-name", Kind::Text, "")
        .help("Suffix to the service names asked for with --discovery-srv."),
    discovery("discovery-token", Kind::Text, "", Key::In("discovery-config", "token"))
        .help("Name of the new cluster at the discovery service; one token makes one cluster."),
    discovery("discovery-endpoints", Kind::UniqueTexts, "", client("endpoints"))
        .help("Another etcd cluster at which the first members find each other, instead of --initial-cluster."),
    discovery("discovery-dial-timeout", Kind::Duration, "2s", client("dial-timeout"))
        .help("Time to connect to a discovery endpoint, and to log in there."),
    discovery("discovery-request-timeout", Kind::Duration, "5s", client("request-timeout"))
        .help("Time for one request to the discovery service."),
    discovery("discovery-keepalive-time", Kind::Duration, "2s", client("keepalive-time"))
        .help("Time between pings while the others are waited for; at least 10s."),
    discovery("discovery-keepalive-timeout", Kind::Duration, "6s", client("keepalive-timeout"))
        .help("Time in which a ping must be answered."),
    discovery(
        "discovery-insecure-transport",
        Kind::Bool,
        "true",
        client_of("secure", "insecure-transport"),
    )
    .help("Whether to speak without TLS where neither a file nor https:// asks for it."),
    discovery(
        "discovery-insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        client_of("secure", "insecure-skip-tls-verify"),
    )
    .help("Whether to take any certificate of the discovery service. For tests only."),
    discovery("discovery-cert", Kind::Text, "", client_of("secure", "cert"))
        .help("Certificate file shown to the discovery service."),
    discovery("discovery-key", Kind::Text, "", client_of("secure", "key"))
        .help("Key file of that certificate."),
    discovery("discovery-cacert", Kind::Text, "", client_of("secure", "cacert"))
        .help("CA file with which the discovery service is verified."),
    discovery("discovery-user", Kind::Text, "", client_of("auth", "username"))
        .secret()
        .help("User at the discovery service, as name or name:password."),
    discovery("discovery-password", Kind::Text, "", client_of("auth", "password"))
        .secret()
        .help("Password of that user."),
    row("discovery-fallback", Kind::OneOf(&["exit", "proxy"]), "")
        .silent()
        .key(Key::None)
        .help("No effect: a member that cannot join always exits."),
    row("max-learners", Kind::Int, "1").help("Members without a vote that the cluster may have."),
    row("downgrade-check-time", Kind::Duration, "5s")
        .silent()
        .help("Time between two looks at a downgrade under way."),
];

const V2_STAGES: [&str; 4] =
    ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];
