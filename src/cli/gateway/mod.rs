//! `quorate gateway start`: carries TCP connections to the members of a cluster, without looking into them.
//!
//! ```text
//!   client ──> --listen-addr ──> an endpoint that answers ──> member
//!                                  └── refuses: put aside, tried again after --retry-delay
//! ```
//!
//! Flags, order of choice and texts are etcd's (`server/etcdmain/gateway.go`, `server/proxy/tcpproxy`).

mod choice;

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber as _;

use self::choice::{Remote, Remotes};
use super::EXIT_FAILED;
use super::daemon::{Signals, notify};
use super::discovered::Wanted;
use super::environment::Environment;
use crate::support::go::duration::GoDuration;
use crate::support::go::quote::quote;
use crate::support::listen::words;
use crate::support::srv::{Names, Record};
use crate::support::telemetry::{self, Format, Output, Severity};
use crate::support::urls::split_host_port;

/// What a retry delay of 0 means.
const DEFAULT_RETRY: Duration = Duration::from_secs(300);

/// The sub-program's command line.
#[derive(Debug, Parser)]
#[command(name = "gateway", about = "gateway related command", disable_version_flag = true)]
struct Line {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the gateway.
    Start,
}

#[derive(Args, Clone, Debug)]
struct Flags {
    /// Listen address.
    #[arg(long, global = true, default_value = "127.0.0.1:23790")]
    listen_addr: String,
    /// DNS domain whose SRV records name the endpoints.
    #[arg(long, global = true, default_value = "")]
    discovery_srv: String,
    /// Suffix to the service name asked for with --discovery-srv.
    #[arg(long, global = true, default_value = "")]
    discovery_srv_name: String,
    /// Accept SRV records of endpoints without TLS.
    #[arg(long, global = true)]
    insecure_discovery: bool,
    /// CA file with which discovered endpoints are verified.
    #[arg(long, global = true, default_value = "")]
    trusted_ca_file: String,
    /// Endpoints of the cluster, parted by commas.
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Time after which an endpoint that failed is tried again.
    #[arg(long, global = true, default_value = "1m0s", value_parser = duration)]
    retry_delay: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    GoDuration::parse(text).map(GoDuration::to_std).ok_or_else(|| GoDuration::complaint(text))
}

/// A gateway that was asked for.
#[derive(Debug)]
pub struct Gateway {
    flags: Flags,
    arguments: Vec<String>,
}

/// Its arguments, for completions and manual pages.
pub(super) fn command() -> clap::Command {
    Line::command()
}

/// Reads the command line (the program's name first, then `gateway`); otherwise the exit code, after all was said.
pub fn read(arguments: &[String]) -> Result<Gateway, u8> {
    match Line::try_parse_from(arguments.iter().skip(1)) {
        Ok(Line { flags, action: Action::Start }) => {
            Ok(Gateway { flags, arguments: arguments.to_vec() })
        }
        Err(why) if !why.use_stderr() => {
            say(&mut io::stdout(), &why.to_string());
            Err(0)
        }
        Err(why) => {
            say(&mut io::stderr(), &why.to_string());
            Err(EXIT_FAILED)
        }
    }
}

fn say(to: &mut impl Write, text: &str) {
    // A closed output is no reason to say more.
    let _ = to.write_all(text.as_bytes());
}

impl Gateway {
    /// Carries connections until a signal comes; the exit code.
    pub async fn run(self, environment: &Environment) -> u8 {
        let log = match telemetry::dispatch(Severity::Info, Format::Json, &[Output::Stderr]) {
            Ok(log) => log,
            Err(why) => {
                say(&mut io::stderr(), &format!("{}\n", words(&why)));
                return EXIT_FAILED;
            }
        };
        match self.serve(environment).with_subscriber(log).await {
            Ok(()) => 0,
            Err(why) => {
                say(&mut io::stdout(), &format!("{why}\n"));
                EXIT_FAILED
            }
        }
    }

    async fn serve(self, environment: &Environment) -> Result<(), String> {
        tracing::info!(args = ?self.arguments, "Running: ");
        let mut signals = Signals::listen().map_err(|why| words(&why))?;
        let records = self.records().await?;
        self.refuse_itself(&records).await?;
        let address = &self.flags.listen_addr;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|why| format!("listen tcp {address}: {}", words(&why)))?;
        notify(environment);
        let retry =
            if self.flags.retry_delay.is_zero() { DEFAULT_RETRY } else { self.flags.retry_delay };
        let proxy = Proxy { remotes: Arc::new(Remotes::new(records)), retry };
        tokio::select! {
            () = proxy.run(listener) => Ok(()),
            (name, _) = signals.next() => {
                tracing::info!(signal = name, "received signal; shutting down");
                Ok(())
            }
        }
    }

    /// Who may be asked: what DNS says, else what the flag says.
    async fn records(&self) -> Result<Vec<Record>, String> {
        if !self.flags.discovery_srv.is_empty() {
            let found = self.discovered().await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        self.flags.endpoints.iter().map(|endpoint| record(endpoint)).collect()
    }

    async fn discovered(&self) -> Result<Vec<Record>, String> {
        let wanted = Wanted {
            domain: &self.flags.discovery_srv,
            suffix: &self.flags.discovery_srv_name,
            trusted_ca_file: &self.flags.trusted_ca_file,
            insecure: self.flags.insecure_discovery,
        };
        let found = wanted.find(&Names::of_the_system()?).await?;
        Ok(found.into_iter().map(|client| client.record).collect())
    }

    /// A gateway that is its own endpoint would call itself for ever.
    async fn refuse_itself(&self, records: &[Record]) -> Result<(), String> {
        let address = &self.flags.listen_addr;
        let invalid = |_| format!("failed to validate listen address: {address}");
        let (host, port) = split_host_port(address).map_err(invalid)?;
        let own = addresses(&host, 0)
            .await
            .map_err(|_| format!("failed to resolve listen host: {host}"))?;
        for Record { target, port: theirs, .. } in records {
            let found = addresses(target, *theirs)
                .await
                .map_err(|_| format!("failed to resolve endpoint host: {target}"))?;
            if theirs.to_string() != port {
                continue;
            }
            if let Some(same) = found.intersection(&own).next() {
                return Err(format!(
                    "SRV or endpoint ({target}:{theirs}->{same}:{theirs}) should not resolve to the \
                     gateway listen addr ({address})"
                ));
            }
        }
        Ok(())
    }
}

async fn addresses(host: &str, port: u16) -> io::Result<HashSet<IpAddr>> {
    Ok(lookup_host((host, port)).await?.map(|address| address.ip()).collect())
}

/// `host:port`, also behind a scheme: this is TCP.
fn record(endpoint: &str) -> Result<Record, String> {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    let fault = || format!("error parsing endpoint {}", quote(endpoint));
    let (host, port) = split_host_port(bare).map_err(|_| fault())?;
    let port = port.parse().map_err(|_| fault())?;
    Ok(Record { target: host, port, priority: 0, weight: 0 })
}

struct Proxy {
    remotes: Arc<Remotes>,
    retry: Duration,
}

impl Proxy {
    async fn run(&self, listener: TcpListener) {
        let endpoints: Vec<String> = self.remotes.iter().map(Remote::address).collect();
        tracing::info!(?endpoints, "ready to proxy client requests");
        let mut retries = tokio::time::interval(self.retry);
        retries.tick().await;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => {
                        let remotes = Arc::clone(&self.remotes);
                        let retry = self.retry;
                        connections.spawn(
                            async move { carry(client, &remotes, retry).await }
                                .with_current_subscriber(),
                        );
                    }
                    Err(why) => {
                        tracing::warn!(error = %words(&why), "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                _ = retries.tick() => {
                    let (remotes, retry) = (Arc::clone(&self.remotes), self.retry);
                    connections.spawn(
                        async move { reactivate(&remotes, retry).await }.with_current_subscriber(),
                    );
                }
                Some(ended) = connections.join_next() => {
                    if let Err(why) = ended {
                        tracing::error!(error = %why, "carrying a connection failed");
                    }
                }
            }
        }
    }
}

/// After an accept that failed, for want of descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One connection, to the first endpoint that answers; closed if none does.
async fn carry(mut client: TcpStream, remotes: &Remotes, retry: Duration) {
    while let Some(remote) = remotes.pick() {
        let address = remote.address();
        match TcpStream::connect(&address).await {
            Ok(mut member) => {
                set_no_delay(&client);
                set_no_delay(&member);
                // Either end may break at any time; there is nobody to tell but the other, by closing.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut member).await;
                return;
            }
            Err(why) => {
                remote.put_aside();
                let interval = GoDuration::from_std(retry).to_string();
                tracing::warn!(address, interval, error = %words(&why), "deactivated endpoint");
            }
        }
    }
}

fn set_no_delay(stream: &TcpStream) {
    if let Err(why) = stream.set_nodelay(true) {
        tracing::debug!(error = %words(&why), "a connection may be slow");
    }
}

async fn reactivate(remotes: &Remotes, retry: Duration) {
    for remote in remotes.iter().filter(|remote| !remote.is_active()) {
        let address = remote.address();
        match TcpStream::connect(&address).await {
            Ok(_) => {
                remote.take_back();
                tracing::info!(address, "activated");
            }
            Err(why) => {
                let interval = GoDuration::from_std(retry).to_string();
                tracing::warn!(
                    address,
                    interval,
                    error = %words(&why),
                    "failed to activate endpoint (stay inactive for another interval)"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    fn line(words: &[&str]) -> Result<Gateway, u8> {
        let arguments: Vec<String> =
            ["quorate", "gateway"].iter().chain(words).map(|&word| word.to_owned()).collect();
        read(&arguments)
    }

    #[test]
    fn flags_stand_before_or_behind_start() {
        let before = line(&["--endpoints=http://a:1,b:2", "start"]).unwrap();
        assert_eq!(before.flags.endpoints, ["http://a:1", "b:2"]);
        let behind = line(&["start", "--retry-delay", "10s"]).unwrap();
        assert_eq!(behind.flags.retry_delay, Duration::from_secs(10));
        assert_eq!(behind.flags.listen_addr, "127.0.0.1:23790");
        assert_eq!(line(&["stop"]).unwrap_err(), EXIT_FAILED);
    }

    #[test]
    fn endpoints_are_hosts_with_ports() {
        let found = record("https://[::1]:2379").unwrap();
        assert_eq!((found.target.as_str(), found.port), ("::1", 2379));
        assert_eq!(record("nowhere").unwrap_err(), "error parsing endpoint \"nowhere\"");
    }

    #[tokio::test]
    async fn a_gateway_that_is_its_own_endpoint_is_refused() {
        let gateway = line(&["start", "--endpoints=127.0.0.1:23790"]).unwrap();
        let records = gateway.records().await.unwrap();
        assert_eq!(
            gateway.refuse_itself(&records).await.unwrap_err(),
            "SRV or endpoint (127.0.0.1:23790->127.0.0.1:23790) should not resolve to the gateway listen \
             addr (127.0.0.1:23790)"
        );
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_who_refuses_is_put_aside() {
        let member = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Bound, so that nobody else gets its port, and not listening.
        let refusing = TcpSocket::new_v4().unwrap();
        refusing.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let [port, dead] =
            [member.local_addr(), refusing.local_addr()].map(|address| address.unwrap().port());
        let echo = tokio::spawn(async move {
            let (mut stream, _) = member.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            word
        });
        let records = [dead, port].map(|port| record(&format!("127.0.0.1:{port}")).unwrap());
        let remotes = Arc::new(Remotes::new(records.to_vec()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy { remotes: Arc::clone(&remotes), retry: Duration::from_secs(60) };
        let running = tokio::spawn(async move { proxy.run(listener).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, &echo.await.unwrap()), (b"pong", b"ping"));
        assert!(!remotes.iter().next().unwrap().is_active());
        running.abort();
    }
}
