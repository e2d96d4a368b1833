//! A1.10: members keep their names and lose their addresses at each restart; the cluster heals.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::nine::nine_checks;
use crate::cluster::network::permitted;
use crate::cluster::{Cluster, START_DEADLINE};
use crate::member::Workspace;
use crate::traffic::Arena;
use crate::traffic::prober::probe;
use crate::verdict::Verdict;

/// How long one member's move may keep everyone from writing.
const GAP_MAX: Duration = Duration::from_secs(3);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 3)]
    members: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Moves each member alone, then all at once.
///
/// # Errors
/// What hinders the harness: no namespaces, no binary.
pub(crate) async fn addresses(options: Options) -> Result<Verdict> {
    permitted()?;
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let workspace = Workspace::create("addresses")?;
    let mut cluster = Cluster::lay_out(&options.server, workspace.path(), options.members, &[])?;
    let moved = move_all(&mut cluster, options.seed).await;
    drop(cluster);
    if let Err(error) = moved {
        let kept = format!("kept: {}", workspace.path().display());
        let server = options.server.display();
        let again =
            format!("again: quorate-jepsen addresses --server {server} --seed {}", options.seed);
        return Ok(Verdict::Invalid(vec![format!("{error:#}"), kept, again]));
    }
    workspace.discard()?;
    Ok(Verdict::Valid)
}

async fn move_all(cluster: &mut Cluster, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<_> = (0..cluster.len()).collect();
    order.shuffle(&mut rng);
    cluster.start_all(&order)?;
    nine_checks(cluster).await.context("before any move")?;
    order.shuffle(&mut rng);
    let arena = Arena::new(cluster.endpoints().clone());
    let prober = tokio::spawn(probe(arena.clone()));
    for nth in order {
        move_one(cluster, nth, rng.random_bool(0.5)).await?;
    }
    let ended = arena.now();
    arena.end();
    let probes = prober.await?;
    let (gap, since) = probes.longest_gap(Duration::ZERO, ended, ended);
    println!("one by one: {} writes, longest without one {gap:.2?}", probes.written.len());
    ensure!(gap < GAP_MAX && probes.failed.is_empty(), "{gap:?} without a write from {since:?} on");
    for nth in 0..cluster.len() {
        cluster.kill(nth)?;
    }
    for nth in 0..cluster.len() {
        cluster.readdress(nth)?;
        cluster.launch(nth)?;
    }
    let launched = Instant::now();
    cluster.await_all_ready()?;
    println!("all at once: ready after {:.2?}", launched.elapsed());
    nine_checks(cluster).await.context("after all had moved at once")
}

async fn move_one(cluster: &mut Cluster, nth: usize, politely: bool) -> Result<()> {
    if politely {
        cluster.stop(nth, STOP_DEADLINE)?;
    } else {
        cluster.kill(nth)?;
    }
    cluster.readdress(nth)?;
    let launched = Instant::now();
    cluster.launch(nth)?;
    cluster.await_ready(nth, START_DEADLINE)?;
    println!("m{nth} moved, ready after {:.2?}", launched.elapsed());
    cluster.leader(START_DEADLINE).await?;
    nine_checks(cluster).await.with_context(|| format!("after m{nth} had moved"))
}
