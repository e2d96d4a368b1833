//! Flags of certificates, origins and users.

use super::{Group, Key, Row};
use crate::support::flags::Kind;

const fn client(name: &'static str, kind: Kind, key: &'static str, help: &'static str) -> Row {
    Row::new(Group::Security, name, kind, "")
        .key(Key::In("client-transport-security", key))
        .help(help)
}

const fn peer(name: &'static str, kind: Kind, key: &'static str, help: &'static str) -> Row {
    Row::new(Group::Security, name, kind, "")
        .key(Key::In("peer-transport-security", key))
        .help(help)
}

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Security, name, kind, default)
}

const fn auth(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Auth, name, kind, default)
}

pub(super) const ROWS: [Row; 29] = [
    client(
        "cert-file",
        Kind::Text,
        "cert-file",
        "Certificate shown to clients; read again when it changes.",
    ),
    client("key-file", Kind::Text, "key-file", "Its key."),
    client(
        "client-cert-file",
        Kind::Text,
        "client-cert-file",
        "Checked at start; nothing here dials clients.",
    ),
    client("client-key-file", Kind::Text, "client-key-file", "Its key."),
    client(
        "client-cert-auth",
        Kind::Bool,
        "client-cert-auth",
        "Clients must show a certificate; its common name is a user.",
    ),
    client(
        "trusted-ca-file",
        Kind::Text,
        "trusted-ca-file",
        "Authorities of clients' certificates, which this alone demands; read again when it changes.",
    ),
    client(
        "auto-tls",
        Kind::Bool,
        "auto-tls",
        "Show clients a certificate that is made at the first start.",
    ),
    client(
        "client-cert-allowed-hostname",
        Kind::Texts,
        "allowed-hostname",
        "Host names of which a client's certificate must have one.",
    ),
    client(
        "client-crl-file",
        Kind::Text,
        "",
        "Serial numbers of clients' certificates that are revoked; read again when it changes.",
    )
    .key(Key::None),
    peer(
        "peer-cert-file",
        Kind::Text,
        "cert-file",
        "Certificate shown to members; read again when it changes.",
    ),
    peer("peer-key-file", Kind::Text, "key-file", "Its key."),
    peer(
        "peer-client-cert-file",
        Kind::Text,
        "client-cert-file",
        "Certificate shown to members that are dialled, if it is another one.",
    ),
    peer("peer-client-key-file", Kind::Text, "client-key-file", "Its key."),
    peer(
        "peer-client-cert-auth",
        Kind::Bool,
        "client-cert-auth",
        "Members that connect must show a certificate.",
    ),
    peer(
        "peer-trusted-ca-file",
        Kind::Text,
        "trusted-ca-file",
        "Authorities of members' certificates, which this alone demands; read again when it changes.",
    ),
    peer(
        "peer-auto-tls",
        Kind::Bool,
        "auto-tls",
        "Encrypt between members with certificates made at the first start; nobody is verified.",
    ),
    peer(
        "peer-cert-allowed-cn",
        Kind::Texts,
        "allowed-cn",
        "Common names of which a member's certificate must have one.",
    ),
    peer(
        "peer-cert-allowed-hostname",
        Kind::Texts,
        "allowed-hostname",
        "Host names of which a member's certificate must have one.",
    ),
    peer(
        "peer-skip-client-san-verification",
        Kind::Bool,
        "skip-client-san-verification",
        "Members may connect from addresses that their certificates do not name.",
    ),
    peer(
        "peer-crl-file",
        Kind::Text,
        "",
        "Serial numbers of members' certificates that are revoked; read again when it changes.",
    )
    .key(Key::None),
    row("self-signed-cert-validity", Kind::Uint, "1")
        .help("Years that certificates made here are valid."),
    row("cipher-suites", Kind::Texts, "")
        .help("Cipher suites of TLS1.2, by Go's names; those of TLS1.3 are fixed."),
    row("tls-min-version", Kind::Text, "TLS1.2").help("TLS1.2 or TLS1.3."),
    row("tls-max-version", Kind::Text, "").help("TLS1.2 or TLS1.3; nothing is the newest."),
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
