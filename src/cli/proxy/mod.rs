//! `quorate grpc-proxy start`: answers clients for a cluster's members (etcd `server/etcdmain/grpc_proxy.go`).
//!
//! ```text
//!   flags ── checked ── TLS ── bind ── Proxy ── serve ── "started gRPC proxy" ── signal ── drain ── exit 0
//! ```

mod flags;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber as _;

use self::flags::Read;
use super::EXIT_FAILED;
use super::daemon::{Signals, notify};
use super::discovered::Wanted;
use super::environment::Environment;
use crate::service::proxy::{Chores, Proxy, ProxySettings, Resolver, UpstreamSettings};
use crate::service::serve::{ConnectionLimits, Entrance, Security, Tasks, Traffic, serve};
use crate::support::aside::Aside;
use crate::support::flags::FlagSet;
use crate::support::go::duration::GoDuration;
use crate::support::go::quote::quote;
use crate::support::listen::{SocketOptions, bind, words};
use crate::support::shutdown::Drain;
use crate::support::srv::{Client, Names};
use crate::support::telemetry::{self, Format, Output, Severity};
use crate::support::tls::{Connector, Endpoint, Protocol, Side, TlsSettings, Version, self_signed};
use crate::support::urls::{Url, parse_list};

/// How long open calls may go on after a signal. Streams do not end by themselves, and clients make them again.
const DRAIN: Duration = Duration::from_millis(500);

const COMMAND: &str = "\
grpc-proxy related command

Usage:
  quorate grpc-proxy [command]

Available Commands:
  start       start the grpc proxy

Flags:
  -h, --help   help for grpc-proxy

Use \"quorate grpc-proxy [command] --help\" for more information about a command.
";

/// A proxy that was asked for.
#[derive(Debug)]
pub struct GrpcProxy {
    flags: FlagSet,
}

/// Reads the command line (the program's name first, then `grpc-proxy`); otherwise the exit code, after all was said.
pub fn read(arguments: &[String]) -> Result<GrpcProxy, u8> {
    let say = |to: &mut dyn Write, text: &str| {
        // Nowhere is left to say that nobody listens.
        let _ = to.write_all(text.as_bytes());
    };
    let refuse = |usage: &str, why: &str| {
        say(&mut io::stderr(), &format!("Error: {why}\n{usage}\n{why}"));
        EXIT_FAILED
    };
    let behind = arguments.get(3..).unwrap_or_default();
    match arguments.get(2).map(String::as_str) {
        Some("start") => {}
        Some(flag) if flag.starts_with('-') && flag != "-h" && flag != "--help" => {
            let usage = COMMAND.split_once("\n\n").map_or(COMMAND, |(_, usage)| usage);
            return Err(refuse(usage, &format!("unknown flag: {flag}")));
        }
        _ => {
            say(&mut io::stdout(), COMMAND);
            return Err(0);
        }
    }
    let flags = match flags::read(behind) {
        Ok(Read::Flags(flags)) => flags,
        Ok(Read::Help) => {
            say(&mut io::stdout(), &format!("start the grpc proxy\n\n{}", flags::usage()));
            return Err(0);
        }
        Err(why) => return Err(refuse(&flags::usage(), &why)),
    };
    match fault(&flags) {
        None => Ok(GrpcProxy { flags }),
        Some(why) => {
            say(&mut io::stderr(), &format!("{why}\n"));
            Err(EXIT_FAILED)
        }
    }
}

/// What is wrong with the flags together, in etcd's order (`checkArgs`), and what is not served.
fn fault(flags: &FlagSet) -> Option<String> {
    let (prefix, ttl) = (flags.text("resolver-prefix"), flags.int("resolver-ttl"));
    if !prefix.is_empty() && ttl < 1 {
        return Some(format!("invalid resolver-ttl {ttl}"));
    }
    if prefix.is_empty() && ttl > 0 {
        return Some(format!("invalid resolver-prefix {}", quote(&prefix)));
    }
    let advertised = flags.text("advertise-client-url");
    if !prefix.is_empty() && advertised.is_empty() {
        return Some(format!("invalid advertise-client-url {}", quote(&advertised)));
    }
    if flags.bool("auto-tls") && flags.uint("self-signed-cert-validity") == 0 {
        return Some("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
    }
    let (least, most) = (flags.text("tls-min-version"), flags.text("tls-max-version"));
    let (min, max) = match (Version::parse(&least), Version::parse(&most)) {
        (Ok(min), Ok(max)) => (min, max),
        (Err(why), _) => return Some(format!("tls-min-version is invalid: {why}")),
        (_, Err(why)) => return Some(format!("tls-max-version is invalid: {why}")),
    };
    if max.is_some() && min > max {
        return Some(format!("min version ({least}) is greater than max version ({most})"));
    }
    if min == Some(Version::Tls13) && !suites(flags).is_empty() {
        let why = "cipher suites cannot be configured when only TLS1.3 is enabled";
        return Some(why.to_owned());
    }
    let leasing = !flags.text("experimental-leasing-prefix").is_empty();
    leasing.then(|| {
        "--experimental-leasing-prefix is not supported: linearizable reads are asked of the members"
            .to_owned()
    })
}

fn suites(flags: &FlagSet) -> Vec<String> {
    flags.texts("listen-cipher-suites").into_iter().filter(|name| !name.is_empty()).collect()
}

/// A duration that is not zero or less.
fn some(duration: GoDuration) -> Option<Duration> {
    (duration.0 > 0).then(|| duration.to_std())
}

/// A limit in bytes; what is none is 0.
fn bytes(flags: &FlagSet, name: &str) -> usize {
    usize::try_from(flags.int(name)).unwrap_or(0)
}

impl GrpcProxy {
    /// Answers until a signal comes; the exit code.
    pub async fn run(self, environment: &Environment) -> u8 {
        let least = if self.flags.bool("debug") { Severity::Debug } else { Severity::Info };
        let log = telemetry::dispatch(least, Format::Json, &[Output::Stderr])
            .expect("standard error is always there");
        match self.serve(environment).with_subscriber(log).await {
            Ok(()) => 0,
            Err(why) => {
                let _ = io::stderr().write_all(format!("{why}\n").as_bytes());
                EXIT_FAILED
            }
        }
    }

    async fn serve(self, environment: &Environment) -> Result<(), String> {
        let mut signals = Signals::listen().map_err(|why| words(&why))?;
        let aside = self.aside()?;
        let front = self.front_tls(aside.as_ref())?;
        let address = self.flags.text("listen-addr");
        let client = self.entrance(&plain_url(&address), Traffic::Both, front.as_ref())?;
        tracing::info!(address, "listening for gRPC proxy client requests");
        let metrics = self.metrics_entrance(front.as_ref())?;
        let settings = self.settings(aside.as_ref(), front.as_ref()).await?;
        let (proxy, chores) = Proxy::new(settings)?;
        let tasks = Tasks::new(Some(tracing::dispatcher::get_default(Clone::clone)));
        let mut drain = Drain::default();
        let mut loops = JoinSet::new();
        for entrance in [Some(client), metrics].into_iter().flatten() {
            let draining = drain.join().expect("the drain has just been made");
            let run = serve(entrance, proxy.clone(), self.limits(), tasks.clone(), draining);
            loops.spawn(run.with_current_subscriber());
        }
        tracing::info!(address, "started gRPC proxy");
        notify(environment);
        let (name, _) = signals.next().await;
        tracing::info!(signal = name, "received signal; shutting down");
        drain.start();
        stop(proxy, chores, loops).await;
        tracing::info!(address, "stop listening gRPC proxy client requests");
        Ok(())
    }

    fn aside(&self) -> Result<Option<Arc<Aside>>, String> {
        let names = ["cert-file", "key-file", "trusted-ca-file", "cert", "key", "cacert"];
        let switches = ["auto-tls", "insecure-skip-tls-verify"];
        let secure = names.iter().any(|name| !self.flags.text(name).is_empty())
            || switches.iter().any(|name| self.flags.bool(name));
        if !secure {
            return Ok(None);
        }
        let started = Aside::start("tls");
        let aside = started.map_err(|why| format!("cannot start a thread: {}", words(&why)))?;
        Ok(Some(Arc::new(aside)))
    }

    /// TLS towards clients, if it is asked for.
    fn front_tls(&self, aside: Option<&Arc<Aside>>) -> Result<Option<Side>, String> {
        let flags = &self.flags;
        let mut settings = TlsSettings {
            cert_file: flags.text("cert-file"),
            key_file: flags.text("key-file"),
            trusted_ca_file: flags.text("trusted-ca-file"),
            ..TlsSettings::default()
        };
        if settings == TlsSettings::default() {
            if !flags.bool("auto-tls") {
                return Ok(None);
            }
            let folder = Path::new(&flags.text("data-dir")).join("fixtures").join("proxy");
            let url = Url { scheme: "https".to_owned(), ..plain_url(&flags.text("listen-addr")) };
            settings = self_signed(&folder, &[url], flags.uint("self-signed-cert-validity"))?;
        }
        let read = |name| Version::parse(&flags.text(name)).ok().flatten();
        let protocol =
            Protocol::new(read("tls-min-version"), read("tls-max-version"), &suites(flags))?;
        tracing::info!("tls-info" = %settings, "gRPC proxy server TLS");
        if settings.is_empty() {
            return Err(
                "failed to create TLS listener: KeyFile and CertFile are not presented".into()
            );
        }
        settings.crl_file = flags.text("client-crl-file");
        Side::open(&settings, protocol, aside.cloned()).map(Some)
    }

    /// TLS towards the members, if it is asked for.
    fn upstream_tls(&self, aside: Option<&Arc<Aside>>) -> Result<Option<Connector>, String> {
        let flags = &self.flags;
        let skip = flags.bool("insecure-skip-tls-verify");
        let settings = TlsSettings {
            cert_file: flags.text("cert"),
            key_file: flags.text("key"),
            trusted_ca_file: flags.text("cacert"),
            self_signed: skip,
            ..TlsSettings::default()
        };
        if settings == TlsSettings::default() {
            return Ok(None);
        }
        let side = Side::open(&settings, Protocol::default(), aside.cloned())?;
        // With a name in its certificate the proxy would be a user, and every client with it.
        if let Some(name) = side.common_name() {
            let path = &settings.cert_file;
            return Err(format!("cert has non empty Common Name ({name}): {path}"));
        }
        if skip {
            tracing::warn!(
                "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of \
                 etcd server TLS certificates. This option should be enabled only for testing purposes."
            );
        }
        tracing::info!("tls-info" = %settings, "gRPC proxy client TLS");
        Ok(Some(side.connector()))
    }

    fn entrance(
        &self,
        url: &Url,
        traffic: Traffic,
        side: Option<&Side>,
    ) -> Result<Entrance, String> {
        let listener = bind(url, SocketOptions::default()).map_err(|why| why.to_string())?;
        // As with etcd's proxy, a client's certificate must name the address it comes from: what that kind demands.
        let security = match side.and_then(|side| side.acceptor(Endpoint::Metrics)) {
            Some(acceptor) => Security::Tls(acceptor),
            None => Security::Plain,
        };
        Ok(Entrance { listener, traffic, security })
    }

    fn metrics_entrance(&self, side: Option<&Side>) -> Result<Option<Entrance>, String> {
        let text = self.flags.text("metrics-addr");
        if text.is_empty() {
            return Ok(None);
        }
        let url = parse_list(&text).ok().and_then(|urls| urls.into_iter().next());
        let url = url.ok_or_else(|| format!("cannot parse {}", quote(&text)))?;
        if url.is_secure() && side.is_none() {
            let place = url.socket_path();
            return Err(format!(
                "cannot listen on TLS for {place}: KeyFile and CertFile are not presented"
            ));
        }
        let side = side.filter(|_| url.is_secure());
        let entrance = self.entrance(&url, Traffic::MetricsOnly, side)?;
        tracing::info!(address = %url, "gRPC proxy listening for metrics");
        Ok(Some(entrance))
    }

    fn limits(&self) -> ConnectionLimits {
        let flags = &self.flags;
        let timeout = flags.duration("grpc-keepalive-timeout");
        let interval = some(flags.duration("grpc-keepalive-interval"));
        ConnectionLimits {
            streams_max: u32::try_from(flags.uint("max-concurrent-streams")).unwrap_or(u32::MAX),
            ping_interval: interval.filter(|_| timeout.0 > 0),
            ping_timeout: timeout.to_std(),
            drain: DRAIN,
        }
    }

    async fn settings(
        &self,
        aside: Option<&Arc<Aside>>,
        front: Option<&Side>,
    ) -> Result<ProxySettings, String> {
        let flags = &self.flags;
        let prefix = flags.text("resolver-prefix");
        let resolver = Resolver { prefix, ttl_s: flags.int("resolver-ttl") };
        Ok(ProxySettings {
            endpoints: self.endpoints().await?,
            upstream: UpstreamSettings {
                tls: self.upstream_tls(aside)?,
                ping_interval: some(flags.duration("dial-keepalive-time")),
                ping_timeout: flags.duration("dial-keepalive-timeout").to_std(),
                ping_idle: flags.bool("permit-without-stream"),
                send_bytes_max: bytes(flags, "max-send-bytes"),
                receive_bytes_max: bytes(flags, "max-recv-bytes"),
            },
            sync_interval: some(flags.duration("endpoints-auto-sync-interval")),
            namespace: flags.text("namespace"),
            advertised: flags.text("advertise-client-url"),
            own_tls: front.map(Side::connector),
            resolver: (!resolver.prefix.is_empty()).then_some(resolver),
            ordered: flags.bool("experimental-serializable-ordering"),
            logs_calls: flags.bool("experimental-enable-grpc-logging"),
            pprof: flags.bool("enable-pprof"),
        })
    }

    /// Where the members are: what DNS says, else what the flag says.
    async fn endpoints(&self) -> Result<Vec<String>, String> {
        let domain = self.flags.text("discovery-srv");
        if domain.is_empty() {
            return Ok(self.flags.texts("endpoints"));
        }
        let wanted = Wanted {
            domain: &domain,
            suffix: &self.flags.text("discovery-srv-name"),
            trusted_ca_file: &self.flags.text("cacert"),
            insecure: self.flags.bool("insecure-discovery"),
        };
        let found = wanted.find(&Names::of_the_system()?).await?;
        let endpoints: Vec<String> = found.iter().map(Client::url).collect();
        if endpoints.is_empty() { Ok(self.flags.texts("endpoints")) } else { Ok(endpoints) }
    }
}

/// `host:port` as a place to listen on.
fn plain_url(address: &str) -> Url {
    Url::plain(address)
}

async fn stop(proxy: Proxy, chores: Chores, mut loops: JoinSet<()>) {
    while let Some(ended) = loops.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "a listener's task failed");
        }
    }
    proxy.stop(chores).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Result<GrpcProxy, u8> {
        let arguments: Vec<String> =
            ["quorate", "grpc-proxy"].iter().chain(words).map(|&word| word.to_owned()).collect();
        read(&arguments)
    }

    fn told(words: &[&str]) -> Option<String> {
        let arguments: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let Ok(Read::Flags(flags)) = flags::read(&arguments) else { panic!() };
        fault(&flags)
    }

    #[test]
    fn help_is_no_fault_and_an_unknown_flag_is() {
        assert_eq!(line(&[]).unwrap_err(), 0);
        assert_eq!(line(&["--help"]).unwrap_err(), 0);
        assert_eq!(line(&["start", "-h"]).unwrap_err(), 0);
        assert_eq!(line(&["start", "--nope"]).unwrap_err(), EXIT_FAILED);
        assert!(line(&["start", "--endpoints", "127.0.0.1:1"]).is_ok());
    }

    #[test]
    fn flags_that_do_not_fit_are_refused_in_etcds_words() {
        for (words, want) in [
            (vec!["--resolver-prefix=p"], "invalid resolver-ttl 0"),
            (vec!["--resolver-ttl=5"], "invalid resolver-prefix \"\""),
            (
                vec!["--resolver-prefix=p", "--resolver-ttl=5", "--advertise-client-url="],
                "invalid advertise-client-url \"\"",
            ),
            (
                vec!["--auto-tls", "--self-signed-cert-validity=0"],
                "selfSignedCertValidity is invalid,it should be greater than 0",
            ),
            (
                vec!["--tls-min-version=TLS1.0"],
                "tls-min-version is invalid: unexpected TLS version \"TLS1.0\" (must be one of: TLS1.2, \
                 TLS1.3)",
            ),
            (
                vec!["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
                "min version (TLS1.3) is greater than max version (TLS1.2)",
            ),
            (
                vec!["--tls-min-version=TLS1.3", "--listen-cipher-suites=X"],
                "cipher suites cannot be configured when only TLS1.3 is enabled",
            ),
        ] {
            assert_eq!(told(&words).as_deref(), Some(want), "{words:?}");
        }
        assert_eq!(told(&["--resolver-prefix=p", "--resolver-ttl=5"]), None);
        assert!(told(&["--experimental-leasing-prefix=l"]).unwrap().contains("not supported"));
    }
}
