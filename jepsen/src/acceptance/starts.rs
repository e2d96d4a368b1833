//! A1.1: three processes, told by variables alone, in any start order, form one cluster that passes the nine checks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use super::nine::nine_checks;
use crate::cluster::network::permitted;
use crate::cluster::{Cluster, START_DEADLINE};
use crate::member::{Workspace, panics_in};
use crate::verdict::Verdict;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Start orders to try, each with fresh directories.
    #[arg(long, default_value_t = 20)]
    orders: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Starts, checks and stops a cluster for each order.
///
/// # Errors
/// What hinders the harness: no namespaces, no binary.
pub(crate) async fn starts(options: Options) -> Result<Verdict> {
    permitted()?;
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    for nth in 0..options.orders {
        let seed = options.seed + nth;
        let workspace = Workspace::create("starts")?;
        let mut cluster =
            Cluster::lay_out(&options.server, workspace.path(), options.members, &[])?;
        let told = one(&mut cluster, seed).await;
        let mut findings = cluster.ended();
        for member in 0..options.members {
            findings.extend(panics_in(&cluster.spec(member).log)?);
        }
        drop(cluster);
        match told {
            Ok(told) => println!("seed {seed}: {told}"),
            Err(error) => findings.push(format!("seed {seed}: {error:#}")),
        }
        if !findings.is_empty() {
            findings.push(format!("kept: {}", workspace.path().display()));
            let server = options.server.display();
            findings.push(format!(
                "again: quorate-jepsen starts --server {server} --members {} --seed {seed} --orders 1",
                options.members
            ));
            return Ok(Verdict::Invalid(findings));
        }
        workspace.discard()?;
    }
    Ok(Verdict::Valid)
}

/// In a random order, with random pauses, and now and then a name that nobody knows at first.
async fn one(cluster: &mut Cluster, seed: u64) -> Result<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<_> = (0..cluster.len()).collect();
    order.shuffle(&mut rng);
    let late = rng.random_bool(0.3).then(|| rng.random_range(0..cluster.len()));
    if let Some(late) = late {
        cluster.network().publish_names_but(Some(late))?;
    }
    let mut launched = Instant::now();
    for nth in &order {
        cluster.launch(*nth)?;
        launched = Instant::now();
        sleep(Duration::from_millis(rng.random_range(0..1500))).await;
    }
    if late.is_some() {
        sleep(Duration::from_millis(rng.random_range(500..2500))).await;
        cluster.network().publish_names_but(None)?;
    }
    cluster.await_all_ready()?;
    let ready = launched.elapsed();
    cluster.leader(START_DEADLINE).await?;
    nine_checks(cluster).await.with_context(|| format!("order {order:?}, late name {late:?}"))?;
    Ok(format!("order {order:?}, late name {late:?}, all ready {ready:.2?} after the last start"))
}
