//! Certificates, and then the authority that signs them, are replaced on disk under load: no request fails, new
//! connections see what is new, and who should be refused is, with one line in the log.
//!
//! ```text
//!   three members, mutual TLS ── 500 requests a second: long connections, and a new one for each call ───────────────▶
//!      certificates anew │ bundles: old + new │ certificates of the new authority │ bundles: new │ all looked at
//!   load ends ── expired, revoked, strangers', wrong names, none, plain: refused on both ports ── a member restarts
//! ```

mod load;
mod refusals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::block_in_place;
use tokio::time::sleep;

use self::load::{Load, Told};
use crate::cluster::START_DEADLINE;
use crate::member::{Workspace, panics_in};
use crate::pb::etcdserverpb::RangeRequest;
use crate::tls::{Authority, Dialer, Folder, Made, Secured, Speaks, Trusting, Wanted, address_of};
use crate::verdict::Verdict;

/// Common name that members must have, and the name that must stand in one member's peers' certificates.
const MEMBER: &str = "member";
const MEMBER_HOST: &str = "member.example";
/// The name that one member wants to see in clients' certificates.
const CLIENT_HOST: &str = "clients.example";
/// The member with rules for host names; the others have one for peers' common names.
const STRICT_HOSTS: usize = 1;
/// The share of the rate that must be reached for a run to count.
const KEPT_UP: f64 = 0.95;
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Between two members' files.
const APART: Duration = Duration::from_millis(150);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    /// Requests a second, of all clients.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seconds of load before each replacement, and after the last.
    #[arg(long, default_value_t = 8.0)]
    every: f64,
    /// Keeps the authority: etcd cannot take up another one without a restart.
    #[arg(long)]
    same_authority: bool,
}

/// Rotates under load, then looks at who is refused.
///
/// # Errors
/// What hinders the harness.
pub(crate) async fn rotation(options: Options) -> Result<Verdict> {
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let workspace = Workspace::create("rotation")?;
    let mut trial = Trial::start(&options, &workspace)?;
    let mut findings = Vec::new();
    let ran = trial.run(&options, &mut findings).await;
    let mut enough = true;
    match ran {
        Ok(kept_up) => enough = kept_up,
        Err(error) => findings.push(format!("{error:#}")),
    }
    for member in &mut trial.members {
        let ended = member.member.as_mut().and_then(|member| member.ended());
        findings.extend(ended.map(|how| format!("{} ended by itself: {how}", member.spec.name)));
        findings.extend(panics_in(&member.spec.log)?);
    }
    drop(trial);
    if !findings.is_empty() {
        findings.push(format!("kept: {}", workspace.path().display()));
        return Ok(Verdict::Invalid(findings));
    }
    workspace.discard()?;
    if !enough {
        return Ok(Verdict::Unknown("the machine does not keep up: lower --rate".to_owned()));
    }
    Ok(Verdict::Valid)
}

struct Trial {
    members: Vec<Secured>,
    client: Folder,
    authority: Authority,
    /// Who signed before, if it is trusted no more.
    retired: Option<Authority>,
    /// What each member shows, to clients and to members.
    shown: Vec<[Made; 2]>,
    client_shows: Made,
    bundle: String,
}

fn of_server() -> Wanted {
    // etcd's gateway shows it to the server itself.
    Wanted::named("server").of_host(CLIENT_HOST)
}

fn of_member() -> Wanted {
    Wanted::named(MEMBER).of_host(MEMBER_HOST)
}

fn of_client() -> Wanted {
    Wanted::named("client").of_host(CLIENT_HOST)
}

impl Trial {
    /// Starts three members that trust one authority.
    fn start(options: &Options, workspace: &Workspace) -> Result<Self> {
        let authority = Authority::new("first")?;
        let mut members = Secured::lay_out(&options.server, workspace.path(), 3)?;
        let client = Folder::create(workspace.path().join("client"))?;
        let nobody = authority.revoke(&[])?;
        let mut shown = Vec::new();
        for (nth, member) in members.iter_mut().enumerate() {
            let pair = [authority.sign(&of_server())?, authority.sign(&of_member())?];
            for (folder, made) in [&member.server, &member.peer].into_iter().zip(&pair) {
                folder.show(made)?;
                folder.trust(&authority.pem)?;
                folder.revoke(&nobody)?;
            }
            member.spec.extra.extend(if nth == STRICT_HOSTS {
                vec![
                    format!("--client-cert-allowed-hostname={CLIENT_HOST}"),
                    format!("--peer-cert-allowed-hostname={MEMBER_HOST}"),
                ]
            } else {
                vec![format!("--peer-cert-allowed-cn={MEMBER}")]
            });
            shown.push(pair);
        }
        for member in &mut members {
            member.member = Some(member.spec.launch()?);
        }
        for member in members.iter_mut().filter_map(|member| member.member.as_mut()) {
            block_in_place(|| member.await_ready(START_DEADLINE))?;
        }
        let client_shows = authority.sign(&of_client())?;
        client.show(&client_shows)?;
        client.trust(&authority.pem)?;
        let bundle = authority.pem.clone();
        Ok(Self { members, client, authority, retired: None, shown, client_shows, bundle })
    }

    /// Whether the machine kept up with the load.
    async fn run(&mut self, options: &Options, findings: &mut Vec<String>) -> Result<bool> {
        let pause = Duration::from_secs_f64(options.every);
        let endpoints: Vec<_> = self.members.iter().map(|member| member.spec.endpoint()).collect();
        let begun = Instant::now();
        let load = Load::start(&endpoints, &self.client, options.rate);
        sleep(pause).await;
        self.replace_certificates(&load, "certificates anew").await?;
        sleep(pause).await;
        let old = std::mem::take(&mut self.bundle);
        if !options.same_authority {
            let second = Authority::new("second")?;
            self.retired = Some(std::mem::replace(&mut self.authority, second));
            let both = format!("{old}{}", self.authority.pem);
            self.trust(&load, &both, "old and new authority trusted").await?;
            sleep(pause).await;
            self.replace_certificates(&load, "certificates of the new authority").await?;
            sleep(pause).await;
            let new = self.authority.pem.clone();
            self.trust(&load, &new, "new authority alone trusted").await?;
            sleep(pause).await;
        } else {
            self.bundle = old;
        }
        let told = load.end().await?;
        let seconds = begun.elapsed().as_secs_f64();
        let kept_up = told.rate(seconds) >= KEPT_UP * options.rate;
        self.judge(&told, seconds, findings);
        refusals::check(self, findings).await?;
        self.restart().await?;
        Ok(kept_up)
    }

    /// New certificates for all members and clients, one after another; then new connections are looked at.
    async fn replace_certificates(&mut self, load: &Load, what: &str) -> Result<()> {
        for (nth, member) in self.members.iter().enumerate() {
            let pair = [self.authority.sign(&of_server())?, self.authority.sign(&of_member())?];
            member.server.show(&pair[0])?;
            member.peer.show(&pair[1])?;
            self.shown[nth] = pair;
            sleep(APART).await;
        }
        self.client_shows = self.authority.sign(&of_client())?;
        self.client.show(&self.client_shows)?;
        self.look().await.with_context(|| what.to_owned())?;
        println!("{what}: {}", load.told_so_far());
        Ok(())
    }

    /// A new bundle for all members and clients.
    async fn trust(&mut self, load: &Load, bundle: &str, what: &str) -> Result<()> {
        for member in &self.members {
            member.server.trust(bundle)?;
            member.peer.trust(bundle)?;
            sleep(APART).await;
        }
        self.client.trust(bundle)?;
        self.bundle = bundle.to_owned();
        self.look().await.with_context(|| what.to_owned())?;
        println!("{what}: {}", load.told_so_far());
        Ok(())
    }

    /// The client port and the peer port of each member, with what they show.
    fn ports(&self) -> Result<Vec<(String, SocketAddr, &Made)>> {
        let mut ports = Vec::new();
        for (member, [server, peer]) in self.members.iter().zip(&self.shown) {
            let name = &member.spec.name;
            let client_port = address_of(&member.spec.endpoint())?;
            ports.push((format!("{name}'s client port"), client_port, server));
            let peer_port = address_of(&member.peer_endpoint())?;
            ports.push((format!("{name}'s peer port"), peer_port, peer));
        }
        Ok(ports)
    }

    /// New connections are shown the newest certificate.
    async fn look(&self) -> Result<()> {
        for (port, address, made) in self.ports()? {
            let shows = if port.ends_with("peer port") { made } else { &self.client_shows };
            let dialer = Dialer::new(&Trusting::showing(&self.bundle, shows), Speaks::Http1)?;
            let shown = dialer.shown_at(address).await.with_context(|| port.clone())?;
            ensure!(shown == made.der, "{port}: not certificate {}", made.serial);
        }
        Ok(())
    }

    fn judge(&self, told: &Told, seconds: f64, findings: &mut Vec<String>) {
        println!(
            "{} requests in {seconds:.0} s ({:.0}/s), {} connections made, {} made anew, slowest {:.1?}, {} failed",
            told.answered,
            told.rate(seconds),
            told.dialled,
            told.redialled,
            told.slowest,
            told.failed.len()
        );
        findings.extend(told.failed.iter().take(5).map(|why| format!("a request failed: {why}")));
        if told.failed.len() > 5 {
            findings.push(format!("{} requests failed in all", told.failed.len()));
        }
        if told.redialled > 0 {
            findings.push(format!("{} standing connections were lost", told.redialled));
        }
    }

    /// One member starts anew, with nothing but what is new: it must be heard, and hear.
    async fn restart(&mut self) -> Result<()> {
        let strict = &mut self.members[STRICT_HOSTS];
        let member = strict.member.take().context("it runs")?;
        block_in_place(|| member.stop(STOP_DEADLINE))?;
        let started = block_in_place(|| strict.spec.start(START_DEADLINE))?;
        println!("{} is ready {:.1?} after a restart", strict.spec.name, started.ready_after());
        strict.member = Some(started);
        let dialer =
            Dialer::new(&Trusting::showing(&self.bundle, &self.client_shows), Speaks::Grpc)?;
        let client = dialer.client(&strict.spec.endpoint()).await?;
        let read = RangeRequest { key: "rotation".into(), ..RangeRequest::default() };
        client.kv.clone().range(read).await.context("a linearizable read after the restart")?;
        Ok(())
    }
}
