//! A1.2: the registry of an IM chat. Gateways register devices under leases that they renew, never more than five of a
//! user, and know all others' by a watch. One gateway is killed: its devices go when their leases end, not before, and
//! what the others know is what a full read tells.
//!
//! ```text
//!   fifty at once for one user: five ── register all ── renew ── renew ── one gateway dies ── its keys go, in the
//!      devices come and go ───────────────────────────────────────────▶  time of a lease ── caches = a full read
//! ```

mod gateway;
mod registry;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use tokio::time::sleep;

use self::gateway::{Gateway, Plan};
use self::registry::{Device, LIMIT, Registry, prefix_of};
use super::conclude;
use crate::bench::usage::cpu_seconds;
use crate::client::Client;
use crate::cluster::{START_DEADLINE, census};
use crate::member::{Member, MemberSpec, Workspace};
use crate::portrait::keys;
use crate::verdict::Verdict;

/// Who renews, at each of the three members.
const GATEWAYS: usize = 3;
/// An election timeout, a second, and two for what a burst of two thousand ends takes.
const LATE_MAX: Duration = Duration::from_secs(4);
/// Registrations of one user at once.
const CROWD: usize = 50;
/// Caches follow within this.
const SETTLED_BY: Duration = Duration::from_secs(10);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    /// Devices of each gateway.
    #[arg(long, default_value_t = 2000)]
    devices: usize,
    /// Seconds that a lease lasts.
    #[arg(long, default_value_t = 90)]
    ttl: u64,
    /// Seconds between two renewals.
    #[arg(long, default_value_t = 30)]
    renew: u64,
    /// Renewals before a gateway dies.
    #[arg(long, default_value_t = 1)]
    renewals: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Plays it and judges.
///
/// # Errors
/// What hinders the harness.
pub(crate) async fn presence(options: Options) -> Result<Verdict> {
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    ensure!(options.renew < options.ttl, "--renew must be below --ttl");
    let workspace = Workspace::create("presence")?;
    let members = start(&options, &workspace)?;
    let mut findings = Vec::new();
    if let Err(error) = play(&options, &members, &mut findings).await {
        findings.push(format!("{error:#}"));
    }
    let server = options.server.display();
    let again = format!("again: quorate-jepsen presence --server {server} --seed {}", options.seed);
    conclude(workspace, members, findings, again)
}

fn start(options: &Options, workspace: &Workspace) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for spec in MemberSpec::several(&options.server, workspace.path(), "m", GATEWAYS)? {
        members.push(spec.launch()?);
    }
    for member in &mut members {
        block_in_place(|| member.await_ready(START_DEADLINE))?;
    }
    Ok(members)
}

async fn play(options: &Options, members: &[Member], findings: &mut Vec<String>) -> Result<()> {
    let mut registries = Vec::new();
    for member in members {
        registries.push(Registry::connect(&member.spec().endpoint(), options.ttl).await?);
    }
    at_most_five(&registries).await?;
    let begun = Instant::now();
    let rest = Arc::default();
    let plan = |nth: usize| Plan {
        number: nth,
        devices: options.devices,
        renew: Duration::from_secs(options.renew),
        seed: options.seed,
        rest: Arc::clone(&rest),
    };
    let opened = registries.iter().enumerate().map(|(nth, r)| Gateway::open(r.clone(), plan(nth)));
    let mut gateways = Vec::new();
    for gateway in join_all(opened).await {
        gateways.push(gateway?);
    }
    println!("{} devices registered in {:.1?}", options.devices * GATEWAYS, begun.elapsed());
    let (leader, before, since) = leader_seconds(members).await?;
    sleep(Duration::from_secs(options.renew * options.renewals)).await;
    let cores = (cpu_seconds(members[leader].pid())? - before) / since.elapsed().as_secs_f64();
    println!("the leader's cores while devices are renewed: {cores:.2}");
    settle(&gateways, &registries[0], "all alive", &rest, findings).await?;

    // Right behind a burst of renewals, so that all its leases end at once.
    let mut gateways = gateways.into_iter();
    let doomed = gateways.next().context("a gateway")?.die().await?;
    let survivors: Vec<_> = gateways.collect();
    println!("a gateway with {} devices died", doomed.devices.len());
    let ttl = Duration::from_secs(options.ttl);
    sleep((doomed.died + ttl + LATE_MAX).saturating_duration_since(Instant::now())).await;
    settle(&survivors, &registries[1], "one dead", &rest, findings).await?;
    for survivor in &survivors {
        judge_ends(&doomed.devices, &survivor.gone(), ttl, findings);
    }
    for survivor in survivors {
        findings.extend(survivor.close().await?);
    }
    Ok(())
}

/// Fifty devices of one user register at once, through all members: five are taken, the others are told.
async fn at_most_five(registries: &[Registry]) -> Result<()> {
    let tries = (0..CROWD).map(|n| async move {
        let device = Device { user: "crowd".to_owned(), device: format!("d{n:02}") };
        registries[n % registries.len()].register(&device, n % registries.len()).await
    });
    let mut taken = Vec::new();
    for lease in join_all(tries).await {
        taken.extend(lease?);
    }
    let listed = registries[0].count(&prefix_of("crowd")).await?;
    ensure!(
        taken.len() == LIMIT && listed == LIMIT as i64,
        "{CROWD} registered at once: {} taken, {listed} listed, not {LIMIT}",
        taken.len()
    );
    for lease in taken {
        registries[0].forget(lease).await?;
    }
    println!("{CROWD} registered at once: {LIMIT} taken");
    Ok(())
}

async fn leader_seconds(members: &[Member]) -> Result<(usize, f64, Instant)> {
    let endpoints: Vec<_> = members.iter().map(|member| member.spec().endpoint()).collect();
    let leader = census::leader(&endpoints, 2).await.context("nobody leads")?;
    Ok((leader, cpu_seconds(members[leader].pid())?, Instant::now()))
}

/// What each gateway knows is what a full read tells at one revision.
async fn settle(
    gateways: &[Gateway],
    registry: &Registry,
    moment: &str,
    rest: &Mutex<()>,
    findings: &mut Vec<String>,
) -> Result<()> {
    let _at_rest = rest.lock().await;
    let (revision, truth) = truth(&registry.client).await?;
    for gateway in gateways {
        let known = gateway.known_at(revision, SETTLED_BY).await?;
        if known != truth {
            let missing = truth.iter().find(|(key, _)| !known.contains_key(*key));
            let extra = known.iter().find(|(key, _)| !truth.contains_key(*key));
            findings.push(format!(
                "{moment}: gateway {} knows {} devices at revision {revision}, there are {}: \
                 missing {missing:?}, too many {extra:?}",
                gateway.number(),
                known.len(),
                truth.len()
            ));
        }
    }
    println!("{moment}: {} devices at revision {revision}, known to all gateways", truth.len());
    Ok(())
}

type Known = BTreeMap<String, String>;

async fn truth(client: &Client) -> Result<(i64, Known)> {
    let (revision, all) = keys(client, 0).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((revision, all.iter().map(|(key, kv)| (text(key), text(&kv.value))).collect()))
}

/// Of each device of the dead gateway one end was seen: not before its lease could end, and soon after.
fn judge_ends(
    devices: &BTreeMap<String, gateway::Renewed>,
    gone: &BTreeMap<String, Vec<Instant>>,
    ttl: Duration,
    findings: &mut Vec<String>,
) {
    let (mut early, mut late, mut missed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    for (key, renewed) in devices {
        let ends = gone.get(key).map(Vec::as_slice).unwrap_or_default();
        let [end] = ends else {
            missed.push(format!("{key}: {} ends", ends.len()));
            continue;
        };
        // Granted after it was sent, and before it was answered.
        let (least, most) = (*end - renewed.sent, *end - renewed.answered);
        (first, last) = (first.min(least), last.max(most));
        if least < ttl {
            early.push(format!("{key} after {least:.2?}"));
        }
        if most > ttl + LATE_MAX {
            late.push(format!("{key} after {most:.2?}"));
        }
    }
    println!("its keys went {first:.2?} to {last:.2?} after their last renewals");
    for (what, list) in [("too early", early), ("too late", late), ("not once", missed)] {
        if let Some(one) = list.first() {
            findings.push(format!("{} keys went {what}, such as {one}", list.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_its_time_a_late_one_and_a_missing_one_are_found() {
        let ttl = Duration::from_secs(90);
        let sent = Instant::now();
        let renewed = gateway::Renewed { sent, answered: sent + Duration::from_secs(1) };
        let at = |seconds: u64| sent + Duration::from_secs(seconds);
        let cases = [
            (vec![at(91)], 0),
            (vec![at(89)], 1),
            (vec![at(96)], 1),
            (vec![], 1),
            (vec![at(91); 2], 1),
        ];
        for (ends, expected) in cases {
            let devices = BTreeMap::from([("a".to_owned(), renewed)]);
            let gone = BTreeMap::from([("a".to_owned(), ends.clone())]);
            let mut findings = Vec::new();
            judge_ends(&devices, &gone, ttl, &mut findings);
            assert_eq!(findings.len(), expected, "{ends:?}: {findings:?}");
        }
    }
}
