//! Flags of certificates, origins and users. TLS is not built yet: anything but the default is refused.

use super::{Group, Key, Row};
use crate::support::flags::Kind;

const TLS: &str = "TLS is not built yet.";

const fn client(name: &'static str, kind: Kind, key: &'static str) -> Row {
    Row::new(Group::Security, name, kind, "")
        .not_yet()
        .key(Key::In("client-transport-security", key))
        .help(TLS)
}

const fn peer(name: &'static str, kind: Kind, key: &'static str) -> Row {
    Row::new(Group::Security, name, kind, "")
        .not_yet()
        .key(Key::In("peer-transport-security", key))
        .help(TLS)
}

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Security, name, kind, default)
}

const fn auth(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Auth, name, kind, default)
}

pub(super) const ROWS: [Row; 29] = [
    client("cert-file", Kind::Text, "cert-file"),
    client("key-file", Kind::Text, "key-file"),
    client("client-cert-file", Kind::Text, "client-cert-file"),
    client("client-key-file", Kind::Text, "client-key-file"),
    client("client-cert-auth", Kind::Bool, "client-cert-auth"),
    client("trusted-ca-file", Kind::Text, "trusted-ca-file"),
    client("auto-tls", Kind::Bool, "auto-tls"),
    client("client-cert-allowed-hostname", Kind::Texts, "allowed-hostname"),
    client("client-crl-file", Kind::Text, "").key(Key::None),
    peer("peer-cert-file", Kind::Text, "cert-file"),
    peer("peer-key-file", Kind::Text, "key-file"),
    peer("peer-client-cert-file", Kind::Text, "client-cert-file"),
    peer("peer-client-key-file", Kind::Text, "client-key-file"),
    peer("peer-client-cert-auth", Kind::Bool, "client-cert-auth"),
    peer("peer-trusted-ca-file", Kind::Text, "trusted-ca-file"),
    peer("peer-auto-tls", Kind::Bool, "auto-tls"),
    peer("peer-cert-allowed-cn", Kind::Texts, "allowed-cn"),
    peer("peer-cert-allowed-hostname", Kind::Texts, "allowed-hostname"),
    peer("peer-skip-client-san-verification", Kind::Bool, "skip-client-san-verification"),
    peer("peer-crl-file", Kind::Text, "").key(Key::None),
    row("self-signed-cert-validity", Kind::Uint, "1").silent().help(TLS),
    row("cipher-suites", Kind::Texts, "").not_yet().help(TLS),
    row("tls-min-version", Kind::Text, "TLS1.2").silent().help(TLS),
    row("tls-max-version", Kind::Text, "").silent().help(TLS),
    row("cors", Kind::Urls { allowed: &["*"] }, "*")
        .help("Origins that browsers may come from; '*' or nothing allows all."),
    row("host-whitelist", Kind::UniqueTexts, "*")
        .help("Host names that plain HTTP requests may ask for; '*' or nothing allows all."),
    auth("auth-token", Kind::Text, "simple").help(
        "Tokens of users that logged in: 'simple', or 'jwt,sign-method=..,pub-key=..,priv-key=..,ttl=5m'.",
    ),
    auth("bcrypt-cost", Kind::Uint, "10")
        .help("How long hashing a password takes, doubling with each step from 4 to 31."),
    auth("auth-token-ttl", Kind::Uint, "300")
        .help("Seconds after its last use for which a simple token is good."),
];
