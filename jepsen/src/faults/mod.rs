//! A cluster under load from every member, hurt again and again, and judged (A1.3: leader after leader killed).
//!
//! ```text
//!   puts · txns · registers · leases · watchers, at home at each member ──▶ m0 ⇄ m1 ⇄ m2 ◀── nemesis: fault, heal, fault …
//!   prober, at whoever answers ────────────────────────────────────────▶        ◀── logs: who led in which term
//!        │ what each was told                                                  │ healed: one history from every member
//!        └──────────────────────────────▶ judge ◀───────────────────────────────┘
//! ```
//!
//! **Invariant:** the seed fixes which faults come in which order, for how long, and what clients do; how they interleave
//! is the machine's.

pub(crate) mod agreement;
pub(crate) mod machine;
mod nemesis;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::machine::{Stalls, Watch};
use self::nemesis::{Done, Fault, Nemesis};
use crate::cluster::census::{Claim, elected};
use crate::cluster::network::permitted;
use crate::cluster::{Cluster, START_DEADLINE};
use crate::member::{Workspace, panics_in};
use crate::traffic::leases::{End, TTL};
use crate::traffic::prober::{Probes, probe};
use crate::traffic::{Arena, Crowd, Traffic, judge};
use crate::verdict::Verdict;

/// After a fault is undone, its consequences still count as its own.
const AFTERMATH: Duration = Duration::from_secs(3);
/// The load goes on so long after the last fault, so that leases end undisturbed.
const QUIET: Duration = Duration::from_secs(10);
/// Over the TTL: one election timeout, and one second.
const LEASE_LATE_MAX: Duration = Duration::from_secs(2);
/// Fewer acknowledged writes than this per second of run prove nothing.
const FEWEST_WRITES_PER_SECOND: u64 = 5;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Which faults, in random order; each once before any comes again.
    #[arg(long = "fault", value_enum, value_delimiter = ',', default_values_t = [Fault::KillLeader])]
    faults: Vec<Fault>,
    /// Seconds from one fault's beginning to the next's.
    #[arg(long, default_value_t = 10.0)]
    every: f64,
    /// Seconds of faults.
    #[arg(long = "for", default_value_t = 120.0)]
    seconds: f64,
    /// No more faults than this.
    #[arg(long, default_value_t = usize::MAX)]
    times: usize,
    /// Seconds a fault lasts, at least.
    #[arg(long, default_value_t = 1.0)]
    hold_min: f64,
    /// Seconds a fault lasts, at most.
    #[arg(long, default_value_t = 5.0)]
    hold_max: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds without a successful write that a fault may cost, where a majority is left.
    #[arg(long, default_value_t = 3.0)]
    gap_max: f64,
    /// Seconds without a successful write that a transfer may cost: one election timeout, and the client's own.
    #[arg(long, default_value_t = 1.5)]
    transfer_gap_max: f64,
    /// Puts of 1 KiB that a follower misses before it comes back, for the faults that let one lag.
    #[arg(long, default_value_t = 4000)]
    lag_puts: usize,
    /// Runs, each with a cluster of its own and the next seed.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Data lies on disks whose power can be cut.
    #[arg(long)]
    power_disks: bool,
    /// Breaks these disks on purpose: syncs of files with this in their path do nothing; empty is every file.
    #[arg(long)]
    ignore_sync: Vec<String>,
    /// More flags for the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

impl Options {
    /// The command that makes the same choices as the run with `seed`.
    fn replay(&self, seed: u64) -> String {
        let mut arguments = Vec::new();
        let mut skip = false;
        for argument in std::env::args().skip(1) {
            let ours = ["--seed", "--runs"].into_iter().find(|name| argument.starts_with(name));
            if let Some(name) = ours {
                skip = argument == name;
            } else if skip {
                skip = false;
            } else {
                arguments.push(argument);
            }
        }
        format!("again: quorate-jepsen {} --seed {seed}", arguments.join(" "))
    }

    fn crowd(&self) -> Crowd {
        let each = self.members;
        Crowd {
            puts: each,
            counters: each,
            rewrites: 1,
            registers: 2 * each,
            leases: each,
            watchers: each,
        }
    }
}

/// Runs load and faults, then judges.
///
/// # Errors
/// What hinders the harness: no namespaces, no binary.
pub(crate) async fn faults(options: Options) -> Result<Verdict> {
    permitted()?;
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    ensure!(options.hold_min <= options.hold_max, "--hold-min is above --hold-max");
    ensure!(
        options.members >= 5 || !options.faults.contains(&Fault::KillTwo),
        "two at once leave no majority of {}",
        options.members
    );
    ensure!(
        options.power_disks || !options.faults.iter().any(|fault| fault.needs_power_disks()),
        "power cuts need --power-disks"
    );
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        verdict = Box::pin(run_all(&options)) => verdict,
        _ = terminated.recv() => Ok(Verdict::Unknown("interrupted".into())),
        _ = ctrl_c() => Ok(Verdict::Unknown("interrupted".into())),
    }
}

/// Ends with the first run that is invalid; one that is unknown is told in the end.
async fn run_all(options: &Options) -> Result<Verdict> {
    let mut unknown = None;
    for seed in options.seed..options.seed + options.runs {
        println!("{}", options.replay(seed));
        match run(options, seed).await? {
            Verdict::Valid => {}
            Verdict::Unknown(why) => {
                println!("seed {seed}: unknown: {why}");
                unknown = Some(why);
            }
            invalid @ Verdict::Invalid(_) => return Ok(invalid),
        }
    }
    Ok(unknown.map_or(Verdict::Valid, Verdict::Unknown))
}

async fn run(options: &Options, seed: u64) -> Result<Verdict> {
    let workspace = Workspace::create("faults")?;
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = start(options, &workspace, &mut rng)?;
    let arena = Arena::new(cluster.endpoints().clone());
    let hold = (options.hold_min, options.hold_max);
    let mut nemesis =
        Nemesis::new(cluster, StdRng::from_rng(&mut rng), hold, options.lag_puts).await?;
    let traffic = Traffic::start(&arena, seed, options.crowd());
    let prober = tokio::spawn(probe(arena.clone()));
    let machine = Watch::begin(workspace.path(), arena.clone())?;
    let mut findings = Vec::new();
    let done = hurt(&mut nemesis, options, &arena, &mut rng, &mut findings).await;
    sleep(QUIET).await;
    arena.end();
    let mut cluster = nemesis.cluster;
    let received = cluster.figure_sum("etcd_network_snapshot_receive_success").await;
    let told = traffic.finish(&arena).await?;
    let (probes, stalls) = (prober.await?, machine.end()?);
    findings.extend(cluster.ended());
    let mut summary = judge::Summary::default();
    match agreed(&cluster, &told, &mut findings).await {
        Ok(truth) => {
            let (found, judged) = judge::judge_by(&truth, &told);
            findings.extend(found);
            summary = judged;
        }
        Err(error) => findings.push(format!("after everything was healed: {error:#}")),
    }
    let elections = read_logs(&cluster, options, &mut findings)?;
    let terms = agreement::one_leader_a_term(&elections, &mut findings);
    let stalled = no_gaps(&done, &probes, &stalls, options, &mut findings);
    let ends: Vec<_> = told.leases.iter().flat_map(|held| &held.ends).collect();
    leases_end(&ends, &done, &mut findings);
    if let Some(received) = received {
        println!(
            "whole states received by members, as they count since their last start: {received}"
        );
    }
    println!(
        "faults {}, elections in the logs {terms}, probes {} with {} retries; {summary}",
        done.len(),
        probes.written.len(),
        probes.retries
    );
    drop(cluster);
    if !findings.is_empty() {
        findings.push(format!("kept: {}", workspace.path().display()));
        findings.push(options.replay(seed));
        return Ok(Verdict::Invalid(findings));
    }
    workspace.discard()?;
    if let Some(stalled) = stalled {
        return Ok(Verdict::Unknown(stalled));
    }
    let enough = (options.seconds as u64).saturating_mul(FEWEST_WRITES_PER_SECOND);
    if summary.writes < enough.min(500) || done.is_empty() {
        return Ok(Verdict::Unknown(format!("too little happened: {summary}")));
    }
    Ok(Verdict::Valid)
}

/// A cluster whose members were started in an order of the seed's.
fn start(options: &Options, workspace: &Workspace, rng: &mut StdRng) -> Result<Cluster> {
    let place = workspace.path();
    let mut cluster = Cluster::lay_out(&options.server, place, options.members, &options.flags)?;
    if options.power_disks {
        cluster.power_disks(place, &options.ignore_sync)?;
    }
    let mut order: Vec<_> = (0..options.members).collect();
    order.shuffle(rng);
    cluster.start_all(&order)?;
    Ok(cluster)
}

/// The elections in the members' logs; panics there are findings.
fn read_logs(
    cluster: &Cluster,
    options: &Options,
    findings: &mut Vec<String>,
) -> Result<Vec<Claim>> {
    let mut elections = Vec::new();
    for nth in 0..options.members {
        let log = &cluster.spec(nth).log;
        // A member whose disk is gone says so, and ends; sled panics over what a cut left of it, and is made anew.
        let mut panics = panics_in(log)?;
        let expected = |line: &str| {
            line.to_lowercase().contains("input/output error") || line.contains("/sled-")
        };
        panics.retain(|line| !(options.power_disks && expected(line)));
        findings.extend(panics.into_iter().map(|line| format!("m{nth}: panic: {line}")));
        elections.extend(elected(&String::from_utf8_lossy(&std::fs::read(log)?)));
    }
    Ok(elections)
}

async fn agreed(
    cluster: &Cluster,
    told: &judge::Told,
    findings: &mut Vec<String>,
) -> Result<judge::Truth> {
    cluster.leader(START_DEADLINE).await?;
    judge::leases_gone(&cluster.client(0).await?, told).await?;
    let all: Vec<_> = (0..cluster.len()).collect();
    agreement::agreed(cluster, &all, findings).await
}

/// Faults until the time is over. One that cannot be undone is a finding, and the last.
async fn hurt(
    nemesis: &mut Nemesis,
    options: &Options,
    arena: &Arena,
    rng: &mut StdRng,
    findings: &mut Vec<String>,
) -> Vec<Done> {
    let mut done: Vec<Done> = Vec::new();
    // Each of them comes once before any comes again.
    let mut deck = Vec::new();
    while arena.now().as_secs_f64() < options.seconds && done.len() < options.times {
        let begun = done.last().map_or(0.0, |last| last.from.as_secs_f64());
        let next = begun + options.every * rng.random_range(0.8..1.2);
        sleep(Duration::from_secs_f64(next).saturating_sub(arena.now())).await;
        if deck.is_empty() {
            deck.clone_from(&options.faults);
            deck.shuffle(rng);
        }
        let Some(fault) = deck.pop() else { break };
        match nemesis.inflict(fault, arena).await {
            Ok(one) => done.push(one),
            Err(error) => {
                findings.push(format!("{fault:?} at {:.1?}: {error:#}", arena.now()));
                break;
            }
        }
        let ended = nemesis.cluster.ended();
        if !ended.is_empty() {
            break;
        }
    }
    done
}

/// The longest time without a successful write, fault by fault. A gap in which the machine stood still proves nothing:
/// it is returned.
fn no_gaps(
    done: &[Done],
    probes: &Probes,
    stalls: &Stalls,
    options: &Options,
    findings: &mut Vec<String>,
) -> Option<String> {
    let usual = Duration::from_secs_f64(options.gap_max);
    let of_transfers = Duration::from_secs_f64(options.transfer_gap_max);
    let mut longest: BTreeMap<Fault, (Duration, u32)> = BTreeMap::new();
    let mut without_quorum = Vec::new();
    let mut stalled = None;
    let mut told_of = None;
    for (nth, one) in done.iter().enumerate() {
        let next = done.get(nth + 1).map_or(Duration::MAX, |next| next.from);
        let (gap, since) = probes.longest_gap(one.from, (one.to + AFTERMATH).min(next), next);
        let entry = longest.entry(one.fault).or_default();
        *entry = (entry.0.max(gap), entry.1 + 1);
        let Some(limit) = one.fault.gap_max(usual, of_transfers) else {
            without_quorum.push((one.from, one.to + AFTERMATH));
            continue;
        };
        // A gap that reaches into several faults' time is told of once.
        if gap <= limit || told_of.replace(since) == Some(since) {
            continue;
        }
        let stood = stalls.within(since, gap);
        let told = format!(
            "{gap:.2?} without a write from {since:.2?} on, the machine stood still for {stood:.2?} of it: {one:?}"
        );
        if gap - stood > limit { findings.push(told) } else { stalled = Some(told) }
    }
    for (fault, (gap, times)) in longest {
        println!("{fault:?}: {times} times, longest without a successful write {gap:.2?}");
    }
    for (from, to) in &probes.failed {
        let stood = stalls.within(*from, *to - *from);
        let quorum = !without_quorum.iter().any(|(gone, back)| gone <= to && from <= back);
        if quorum && stood < (*to - *from) / 4 {
            findings
                .push(format!("a write of a client that tries every member failed at {from:.1?}"));
        }
    }
    stalled
}

/// A lease that was let go while nothing was wrong ends in time.
fn leases_end(ends: &[&End], done: &[Done], findings: &mut Vec<String>) {
    let mut undisturbed = 0;
    for end in ends {
        // A leader that came a while ago may still be giving leases their whole time.
        let since = end.let_go.saturating_sub(TTL);
        if done.iter().any(|one| one.from <= end.last_seen && one.to + AFTERMATH >= since) {
            continue;
        }
        undisturbed += 1;
        let late = end.last_seen.saturating_sub(end.let_go + TTL);
        if late > LEASE_LATE_MAX {
            findings.push(format!("{}: still there {late:.2?} after its TTL: {end:?}", end.key));
        }
    }
    println!("leases let go and ended {}, of them undisturbed {undisturbed}", ends.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_ends_late_with_nothing_wrong_is_found() {
        let at = Duration::from_secs;
        let fault =
            Done { fault: Fault::KillLeader, what: String::new(), from: at(100), to: at(103) };
        for (let_go, last_seen, expected) in
            [(10, 15, 0), (10, 18, 0), (10, 19, 1), (95, 104, 0), (90, 101, 0), (120, 130, 1)]
        {
            let end = End { key: String::new(), let_go: at(let_go), last_seen: at(last_seen) };
            let mut findings = Vec::new();
            leases_end(&[&end], std::slice::from_ref(&fault), &mut findings);
            assert_eq!(findings.len(), expected, "{let_go} to {last_seen}");
        }
    }
}
