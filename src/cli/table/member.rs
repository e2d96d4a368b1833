//! Flags of this process: name, directory, listeners, limits.

use super::{Group, Key, Row};
use crate::embed::gates;
use crate::support::flags::Kind;

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Member, name, kind, default)
}

const URLS: Kind = Kind::Urls { allowed: &[""] };

pub(super) const ROWS: [Row; 29] = [
    row("name", Kind::Text, "default").help("Name of this member, for people."),
    row("data-dir", Kind::Text, "").help("Directory that holds the data. Default: <name>.etcd."),
    row("wal-dir", Kind::Text, "")
        .no_effect()
        .help("No effect: the journal lives in the data directory."),
    row("snapshot-count", Kind::Uint, "10000")
        .help("Committed requests after which the state is written down and the log shortened."),
    row("heartbeat-interval", Kind::Uint, "100").help("Time between heartbeats, in milliseconds."),
    row("election-timeout", Kind::Uint, "1000")
        .help("Time without a leader after which members elect one, in milliseconds."),
    row("initial-election-tick-advance", Kind::Bool, "true")
        .help("Whether the first election may come early."),
    row("listen-peer-urls", URLS, "http://localhost:2380")
        .help("URLs to listen on for the other members."),
    row("listen-client-urls", URLS, "http://localhost:2379")
        .help("URLs to listen on for gRPC, and for HTTP unless --listen-client-http-urls is set."),
    row("listen-client-http-urls", URLS, "")
        .help("URLs to listen on for HTTP alone; --listen-client-urls then serve gRPC alone."),
    row("max-snapshots", Kind::Uint, "5")
        .silent()
        .help("No effect: old state goes as soon as the new one is safe. Deprecated in etcd 3.6."),
    row("max-wals", Kind::Uint, "5")
        .no_effect()
        .help("No effect: the journal reuses its segments."),
    row("memory-mlock", Kind::Bool, "false")
        .no_effect()
        .help("No effect: there is no memory-mapped database."),
    row("quota-backend-bytes", Kind::Int, "0")
        .help("Size of the data at which writes are refused; 0 is 2 GiB, below 0 is no limit."),
    row("backend-bbolt-freelist-type", Kind::Text, "")
        .no_effect()
        .help("No effect: it belongs to etcd's database."),
    row("backend-batch-interval", Kind::Duration, "")
        .no_effect()
        .help("No effect: it belongs to etcd's database."),
    row("backend-batch-limit", Kind::Int, "0")
        .no_effect()
        .help("No effect: it belongs to etcd's database."),
    row("max-txn-ops", Kind::Uint, "128").help("Operations allowed in one transaction."),
    row("max-request-bytes", Kind::Uint, "1572864").help("Size of the largest request accepted."),
    row("max-concurrent-streams", Kind::Uint32, "4294967295")
        .help("Streams that one client connection may have open."),
    row("grpc-keepalive-min-time", Kind::Duration, "5s")
        .no_effect()
        .help("No effect: clients may ping as often as they like."),
    row("grpc-keepalive-interval", Kind::Duration, "2h")
        .help("Time between the server's pings to a client; 0 for none."),
    row("grpc-keepalive-timeout", Kind::Duration, "20s")
        .help("Time for the answer to a ping before the connection is closed; 0 for no limit."),
    row("socket-reuse-port", Kind::Bool, "false")
        .key(Key::In("socket-options", "reuse-port"))
        .help("Whether several processes may listen on one port (SO_REUSEPORT)."),
    row("socket-reuse-address", Kind::Bool, "false")
        .key(Key::In("socket-options", "reuse-address"))
        .help("Whether to bind while old connections linger (SO_REUSEADDR); always on."),
    row("enable-grpc-gateway", Kind::Bool, "true").help("Whether JSON is served below /v3."),
    row("raft-read-timeout", Kind::Duration, "5s")
        .no_effect()
        .key(Key::None)
        .help("No effect: it belongs to etcd's peer protocol."),
    row("raft-write-timeout", Kind::Duration, "5s")
        .no_effect()
        .key(Key::None)
        .help("No effect: it belongs to etcd's peer protocol."),
    row("feature-gates", Kind::Gates(gates::check), "")
        .help("Name=bool pairs that switch features that are not settled yet."),
];
