//! A3.4: agents stand for one lead; whoever leads is stopped until another one does, and goes on as if nothing had been.
//!
//! ```text
//!   member ◀── agents, each a process ── their ledgers: from when to when each was told that it leads
//!               ▲ SIGSTOP the leader ── another leads ── SIGCONT
//!   ledgers side by side, on the machine's one clock: no two at once; what a deposed one wrote late was refused
//! ```
//!
//! Lanes are elections of their own, with agents of their own, at the same member, so that rounds take less time.

mod holds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::holds::{Ledger, judge};
use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace};
use crate::pb::etcdserverpb::RangeRequest;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::verdict::Verdict;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a lane waits for a leader before it calls that a fault of the harness, not a slow one.
const LEADER_DEADLINE: Duration = Duration::from_secs(60);

/// S3.10: a leader that is not heard of is replaced within its TTL and this.
const TAKEOVER_SLACK: Duration = Duration::from_secs(1);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Whose agents campaign.
    #[arg(long)]
    ours: PathBuf,
    /// The server at which they do; ours or etcd's. That of `--ours` if it is not given.
    #[arg(long)]
    server: Option<PathBuf>,
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Agents of each lane.
    #[arg(long, default_value_t = 5)]
    candidates: usize,
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Seconds.
    #[arg(long, default_value_t = 2)]
    ttl: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs all rounds, then lays the ledgers side by side.
///
/// # Errors
/// What hinders the harness: no binary, an agent that ends, nobody who leads.
pub(crate) async fn campaign(options: Options) -> Result<Verdict> {
    ensure!(options.candidates > 1 && options.lanes > 0, "nobody would take over");
    let workspace = Workspace::create("campaign")?;
    let server = options.server.as_ref().unwrap_or(&options.ours);
    let spec = MemberSpec::single(server, workspace.path(), "member")?;
    let starting = spec.clone();
    let start = tokio::task::spawn_blocking(move || starting.start(START_DEADLINE));
    let member = start.await??;
    let mut lanes = JoinSet::new();
    for nth in 0..options.lanes {
        let lane = Lane::start(&options, nth, &spec, workspace.path())?;
        lanes.spawn(lane.run(options.share(nth)));
    }
    let mut told = Told::default();
    while let Some(lane) = lanes.join_next().await {
        told.add(lane??);
    }
    conclude(&options, workspace, member, told)
}

fn conclude(
    options: &Options,
    workspace: Workspace,
    member: Member,
    mut told: Told,
) -> Result<Verdict> {
    told.takeovers.sort();
    let slowest = told.takeovers.last().copied().unwrap_or_default();
    let middle = told.takeovers.get(told.takeovers.len() / 2).copied().unwrap_or_default();
    println!(
        "rounds {}, leads {}, late writes refused {}, unknown {}; takeover median {middle:.2?}, slowest \
         {slowest:.2?}; smallest gap between two leads {:.2?}",
        told.takeovers.len(),
        told.tally.leads,
        told.tally.refused,
        told.tally.unknown,
        told.tally.smallest_gap.unwrap_or_default(),
    );
    let rounds = options.rounds;
    let verdict = super::conclude(workspace, vec![member], told.findings, options.replay())?;
    match verdict {
        Verdict::Valid if told.tally.refused < rounds => Ok(Verdict::Unknown(format!(
            "{} late writes were refused, and {rounds} leaders were stopped",
            told.tally.refused
        ))),
        verdict => Ok(verdict),
    }
}

impl Options {
    /// How many of the rounds a lane has.
    fn share(&self, nth: usize) -> u64 {
        let lanes = self.lanes as u64;
        self.rounds / lanes + u64::from((nth as u64) < self.rounds % lanes)
    }

    fn replay(&self) -> String {
        let server = self.server.as_ref().map(|path| format!(" --server {}", path.display()));
        format!(
            "again: quorate-jepsen campaign --ours {}{} --rounds {} --candidates {} --lanes {} --ttl {} --seed {}",
            self.ours.display(),
            server.unwrap_or_default(),
            self.rounds,
            self.candidates,
            self.lanes,
            self.ttl,
            self.seed
        )
    }
}

/// What the lanes tell.
#[derive(Debug, Default)]
struct Told {
    takeovers: Vec<Duration>,
    tally: holds::Tally,
    findings: Vec<String>,
}

impl Told {
    fn add(&mut self, other: Told) {
        self.takeovers.extend(other.takeovers);
        self.tally.add(&other.tally);
        self.findings.extend(other.findings);
    }
}

/// One election and its agents.
struct Lane {
    election: String,
    endpoint: String,
    ttl: Duration,
    rng: StdRng,
    agents: Vec<Agent>,
}

/// One agent's process. Dropping it kills it.
struct Agent {
    name: String,
    ledger: PathBuf,
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl Agent {
    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has been told that it leads, with the key created at this revision: before that there is nothing to
    /// take from it.
    async fn until_told(&self, created: i64) -> Result<()> {
        let asked = Instant::now();
        while !Ledger::read(&self.ledger)?.has_won(created) {
            ensure!(asked.elapsed() < LEADER_DEADLINE, "{} is not told that it leads", self.name);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until it has found that it leads no more, and tried to write all the same.
    async fn until_over(&self, created: i64) -> Result<()> {
        let asked = Instant::now();
        while !Ledger::read(&self.ledger)?.has_lost(created) {
            ensure!(asked.elapsed() < LEADER_DEADLINE, "{} finds nothing lost", self.name);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(asked.elapsed() < START_DEADLINE, "agent {} does not stop", self.name);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Lane {
    fn start(options: &Options, nth: usize, member: &MemberSpec, root: &Path) -> Result<Lane> {
        let cluster = format!("lane{nth}");
        let config = root.join(format!("{cluster}.kat"));
        let ttl = options.ttl;
        fs::write(
            &config,
            format!(
                "kind: ClusterConfiguration\nmetadata: {{name: {cluster}}}\nspec: {{leaseTTL: {ttl}s}}\n"
            ),
        )?;
        let agents = (0..options.candidates).map(|candidate| {
            let name = format!("{cluster}-{candidate}");
            let ledger = root.join(format!("{name}.holds"));
            let log = fs::File::create(root.join(format!("{name}.log")))?;
            let child = Command::new(&options.ours)
                .args(["agent", "--endpoints", &member.endpoint(), "--node-name", &name])
                .arg("--config")
                .arg(&config)
                .arg("--holds-file")
                .arg(&ledger)
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start {}", options.ours.display()))?;
            Ok(Agent { name, ledger, child })
        });
        Ok(Lane {
            election: format!("/kat/leader/{cluster}"),
            endpoint: member.endpoint(),
            ttl: Duration::from_secs(ttl),
            rng: StdRng::seed_from_u64(options.seed.wrapping_mul(1000) + nth as u64),
            agents: agents.collect::<Result<_>>()?,
        })
    }

    async fn run(mut self, rounds: u64) -> Result<Told> {
        let mut client = Client::connect(&self.endpoint).await?;
        let mut told = Told::default();
        self.leader_but(&mut client, None).await?;
        for _ in 0..rounds {
            let took = self.round(&mut client).await?;
            if took > self.ttl + TAKEOVER_SLACK {
                told.findings.push(format!("{}: nobody took over for {took:?}", self.election));
            }
            told.takeovers.push(took);
        }
        for agent in &mut self.agents {
            agent.stop().await?;
        }
        let ledgers: Result<Vec<Ledger>> =
            self.agents.iter().map(|agent| Ledger::read(&agent.ledger)).collect();
        let (tally, findings) = judge(&self.election, &ledgers?);
        told.tally = tally;
        told.findings.extend(findings);
        Ok(told)
    }

    /// Stops whoever leads, at any moment of its keep-alives, until another one leads. How long that took.
    async fn round(&mut self, client: &mut Client) -> Result<Duration> {
        let (leader, created) = self.leader_but(client, None).await?;
        let nth = self.agents.iter().position(|agent| agent.name == leader);
        let nth = nth.with_context(|| format!("{leader} leads, who is no agent"))?;
        self.agents[nth].until_told(created).await?;
        sleep(Duration::from_secs_f64(self.rng.random_range(0.0..0.35))).await;
        let agent = &mut self.agents[nth];
        if let Some(status) = agent.child.try_wait()? {
            bail!("agent {leader} ended with {status}");
        }
        let pid = Pid::from_child(&agent.child);
        let stopped = Instant::now();
        kill_process(pid, Signal::STOP)?;
        let replaced = self.leader_but(client, Some(created)).await;
        let took = stopped.elapsed();
        let more = self.rng.random_range(0.0..0.1);
        sleep(Duration::from_secs_f64(more)).await;
        kill_process(pid, Signal::CONT)?;
        replaced?;
        // The last round's, too, tries before it is asked to stop.
        self.agents[nth].until_over(created).await?;
        Ok(took)
    }

    /// Who leads by the oldest key, unless that is the one created at this revision; its name, and when it was created.
    async fn leader_but(&self, client: &mut Client, but: Option<i64>) -> Result<(String, i64)> {
        let prefix = format!("{}/", self.election);
        let oldest = RangeRequest {
            key: prefix.clone().into(),
            range_end: format!("{}0", self.election).into(),
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        };
        let asked = Instant::now();
        loop {
            let found = client.kv.range(oldest.clone()).await?.into_inner();
            let first = found.kvs.into_iter().next();
            if let Some(kv) = first.filter(|kv| Some(kv.create_revision) != but) {
                return Ok((String::from_utf8_lossy(&kv.value).into_owned(), kv.create_revision));
            }
            ensure!(asked.elapsed() < LEADER_DEADLINE, "nobody leads {}", self.election);
            sleep(Duration::from_millis(5)).await;
        }
    }
}
