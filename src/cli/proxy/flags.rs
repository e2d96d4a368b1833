//! The flags of `grpc-proxy start`: etcd's, in its words (`server/etcdmain/grpc_proxy.go`), read by the rules of Go's
//! `pflag`.

use std::fmt::Write as _;

use crate::support::flags::Kind::{Bool, Duration, Int, Text, Texts, Uint, Uint32};
use crate::support::flags::{FlagSet, FlagSpec, Kind};
use crate::support::go::duration::GoDuration;
use crate::support::go::quote::quote;

/// One flag.
struct Row {
    name: &'static str,
    kind: Kind,
    /// As one would write it.
    default: &'static str,
    help: &'static str,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Row {
    Row { name, kind, default, help }
}

const ROWS: [Row; 40] = [
    row(
        "advertise-client-url",
        Text,
        "127.0.0.1:23790",
        "advertise address to register (must be reachable by client)",
    ),
    row("auto-tls", Bool, "", "proxy TLS using generated certificates"),
    row(
        "cacert",
        Text,
        "",
        "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
    ),
    row(
        "cert",
        Text,
        "",
        "identify secure connections with etcd servers using this TLS certificate file",
    ),
    row(
        "cert-file",
        Text,
        "",
        "identify secure connections to the proxy using this TLS certificate file",
    ),
    row("client-crl-file", Text, "", "proxy client certificate revocation list file."),
    row("data-dir", Text, "default.proxy", "Data directory for persistent data"),
    row("debug", Bool, "", "Enable debug-level logging for grpc-proxy."),
    row(
        "dial-keepalive-time",
        Duration,
        "",
        "keepalive time for client(grpc-proxy) connections (default 0, disable).",
    ),
    row(
        "dial-keepalive-timeout",
        Duration,
        "20s",
        "keepalive timeout for client(grpc-proxy) connections (default 20s).",
    ),
    row(
        "discovery-srv",
        Text,
        "",
        "domain name to query for SRV records describing cluster endpoints",
    ),
    row("discovery-srv-name", Text, "", "service name to query when using DNS discovery"),
    row(
        "enable-pprof",
        Bool,
        "",
        "Enable runtime profiling data via HTTP server. Address is at client URL + \"/debug/pprof/\"",
    ),
    row("endpoints", Texts, "127.0.0.1:2379", "comma separated etcd cluster endpoints"),
    row(
        "endpoints-auto-sync-interval",
        Duration,
        "",
        "etcd endpoints auto sync interval (disabled by default)",
    ),
    row("experimental-enable-grpc-logging", Bool, "", "logging all grpc requests and responses"),
    row(
        "experimental-leasing-prefix",
        Text,
        "",
        "leasing metadata prefix for disconnected linearized reads.",
    ),
    row(
        "experimental-serializable-ordering",
        Bool,
        "",
        "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
    ),
    row(
        "grpc-keepalive-interval",
        Duration,
        "2h0m0s",
        "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
    ),
    row(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        "Minimum interval duration that a client should wait before pinging proxy.",
    ),
    row(
        "grpc-keepalive-timeout",
        Duration,
        "20s",
        "Additional duration of wait before closing a non-responsive connection (0 to disable).",
    ),
    row("help", Bool, "", "help for start"),
    row("insecure-discovery", Bool, "", "accept insecure SRV records"),
    row(
        "insecure-skip-tls-verify",
        Bool,
        "",
        "skip authentication of etcd server TLS certificates (CAUTION: this option should be enabled \
         only for testing purposes)",
    ),
    row("key", Text, "", "identify secure connections with etcd servers using this TLS key file"),
    row("key-file", Text, "", "identify secure connections to the proxy using this TLS key file"),
    row("listen-addr", Text, "127.0.0.1:23790", "listen address"),
    row(
        "listen-cipher-suites",
        Texts,
        "",
        "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be \
         auto-populated by Go).",
    ),
    row(
        "max-concurrent-streams",
        Uint32,
        "4294967295",
        "Maximum concurrent streams that each client can open at a time.",
    ),
    row(
        "max-recv-bytes",
        Int,
        "2147483647",
        "message receive limits in bytes (default value is math.MaxInt32)",
    ),
    row(
        "max-send-bytes",
        Int,
        "1572864",
        "message send limits in bytes (default value is 1.5 MiB)",
    ),
    row(
        "metrics-addr",
        Text,
        "",
        "listen for endpoint /metrics requests on an additional interface",
    ),
    row("namespace", Text, "", "string to prefix to all keys for namespacing requests"),
    row(
        "permit-without-stream",
        Bool,
        "",
        "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
    ),
    row(
        "resolver-prefix",
        Text,
        "",
        "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
    ),
    row("resolver-ttl", Int, "", "specify TTL, in seconds, when registering proxy endpoints"),
    row(
        "self-signed-cert-validity",
        Uint,
        "1",
        "The validity period of the proxy certificates, unit is year",
    ),
    row(
        "tls-max-version",
        Text,
        "",
        "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty defers to \
         Go).",
    ),
    row(
        "tls-min-version",
        Text,
        "TLS1.2",
        "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
    ),
    row(
        "trusted-ca-file",
        Text,
        "",
        "verify certificates of TLS-enabled secure proxy using this CA bundle",
    ),
];

fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter()
}

/// What the arguments came to.
#[derive(Debug)]
pub(super) enum Read {
    Flags(FlagSet),
    /// `-h` or `--help`.
    Help,
}

/// Reads the arguments behind `start`; the error is in pflag's words.
pub(super) fn read(arguments: &[String]) -> Result<Read, String> {
    let specs = rows().map(|row| FlagSpec { name: row.name, kind: row.kind, default: row.default });
    let mut flags = FlagSet::new(specs);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix("--") else {
            match argument.strip_prefix('-').and_then(|letters| letters.chars().next()) {
                Some('h') => return Ok(Read::Help),
                Some(letter) => {
                    return Err(format!("unknown shorthand flag: '{letter}' in {argument}"));
                }
                // etcd does not look at what is no flag.
                None => continue,
            }
        };
        if body.is_empty() {
            break;
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(row) = rows().find(|row| row.name == name) else {
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match inline {
            Some(value) => value,
            None if matches!(row.kind, Bool) => "true".to_owned(),
            None => match rest.next() {
                Some(value) => value.clone(),
                None => return Err(format!("flag needs an argument: --{name}")),
            },
        };
        flags.set(row.name, &value).map_err(|why| {
            let why = complaint(row.kind, &value, why);
            format!("invalid argument {} for \"--{name}\" flag: {why}", quote(&value))
        })?;
    }
    if flags.bool("help") {
        return Ok(Read::Help);
    }
    Ok(Read::Flags(flags))
}

/// What Go's parsers say to a value that was refused.
fn complaint(kind: Kind, value: &str, why: String) -> String {
    let parsing = |call: &str| {
        let why = if why.contains("range") { "value out of range" } else { "invalid syntax" };
        format!("strconv.{call}: parsing {}: {why}", quote(value))
    };
    match kind {
        Bool => parsing("ParseBool"),
        Int => parsing("ParseInt"),
        Uint | Uint32 => parsing("ParseUint"),
        Duration => GoDuration::complaint(value),
        Kind::Text
        | Kind::Texts
        | Kind::Urls { .. }
        | Kind::UniqueTexts
        | Kind::OneOf(_)
        | Kind::SomeOf(_)
        | Kind::Gates(_)
        | Kind::Ignored => why,
    }
}

/// The usage and every flag, as cobra prints them.
pub(super) fn usage() -> String {
    let heads: Vec<String> = rows().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default();
    let mut out = "Usage:\n  quorate grpc-proxy start [flags]\n\nFlags:\n".to_owned();
    for (row, head) in rows().zip(&heads) {
        writeln!(out, "{head:width$}   {}{}", row.help, shown_default(row))
            .expect("writing to a string");
    }
    out
}

fn head(row: &Row) -> String {
    let kind = match row.kind {
        Text => " string",
        Texts => " strings",
        Int => " int",
        Uint => " uint",
        Uint32 => " uint32",
        Duration => " duration",
        Bool => "",
        // No flag of the table is one of these.
        Kind::Urls { .. }
        | Kind::UniqueTexts
        | Kind::OneOf(_)
        | Kind::SomeOf(_)
        | Kind::Gates(_)
        | Kind::Ignored => "",
    };
    let short = if row.name == "help" { "  -h, " } else { "      " };
    format!("{short}--{}{kind}", row.name)
}

fn shown_default(row: &Row) -> String {
    if row.default.is_empty() {
        return String::new();
    }
    match row.kind {
        Text => format!(" (default {})", quote(row.default)),
        Texts => format!(" (default [{}])", row.default),
        Int | Uint | Uint32 | Duration | Bool => format!(" (default {})", row.default),
        // No flag of the table is one of these.
        Kind::Urls { .. }
        | Kind::UniqueTexts
        | Kind::OneOf(_)
        | Kind::SomeOf(_)
        | Kind::Gates(_)
        | Kind::Ignored => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let arguments: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        read(&arguments).unwrap_err()
    }

    #[test]
    fn the_help_is_etcds_but_for_the_programs_name() {
        let etcd = include_str!("../../../tests/testdata/cli/grpc-proxy-help.txt");
        let ours = format!("start the grpc proxy\n\n{}", usage()).replace("quorate ", "etcd ");
        assert_eq!(ours, etcd);
    }

    #[test]
    fn flags_are_read_and_refused_as_by_pflag() {
        let arguments = ["--endpoints=a:1,b:2", "--debug", "--max-send-bytes", "5", "more"];
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let Ok(Read::Flags(flags)) = read(&arguments) else { panic!() };
        assert_eq!(flags.texts("endpoints"), ["a:1", "b:2"]);
        assert!(flags.bool("debug") && !flags.bool("auto-tls"));
        assert_eq!((flags.int("max-send-bytes"), flags.uint("self-signed-cert-validity")), (5, 1));
        assert_eq!(refused(&["--nope"]), "unknown flag: --nope");
        assert_eq!(refused(&["-x"]), "unknown shorthand flag: 'x' in -x");
        assert_eq!(refused(&["--key"]), "flag needs an argument: --key");
        assert_eq!(
            refused(&["--dial-keepalive-time=x"]),
            "invalid argument \"x\" for \"--dial-keepalive-time\" flag: time: invalid duration \"x\""
        );
        assert_eq!(
            refused(&["--resolver-ttl", "x"]),
            "invalid argument \"x\" for \"--resolver-ttl\" flag: strconv.ParseInt: parsing \"x\": invalid \
             syntax"
        );
    }
}
