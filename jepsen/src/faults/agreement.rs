//! Every member shows the same, and not two of them ever led in one term.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::time::sleep;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::cluster::census::Claim;
use crate::pb::etcdserverpb::{HashKvRequest, HashRequest, StatusRequest};
use crate::pb::mvccpb::KeyValue;
use crate::portrait;
use crate::traffic::judge::{Truth, truth};

/// Everything healed, members are level by then.
const LEVEL_DEADLINE: Duration = Duration::from_secs(30);

/// Waits until these members have applied the same; the truth as the first tells it, and what others tell differently.
///
/// # Errors
/// When a member cannot be asked.
pub(crate) async fn agreed(
    cluster: &Cluster,
    members: &[usize],
    findings: &mut Vec<String>,
) -> Result<Truth> {
    let mut clients = Vec::new();
    for nth in members {
        clients.push(cluster.client(*nth).await?);
    }
    level(&clients).await?;
    let (first, others) = (members[0], 1..members.len());
    let truth = truth(&clients[0]).await?;
    for (client, nth) in clients.iter().zip(members).skip(1) {
        let other = self::truth(client).await.with_context(|| format!("m{nth}"))?;
        if other.history != truth.history {
            let at = truth.history.iter().zip(&other.history).position(|(a, b)| a != b);
            findings.push(format!(
                "m{first} and m{nth} tell different histories: {} and {} events, first difference at {at:?}",
                truth.history.len(),
                other.history.len()
            ));
        }
    }
    let mut told = Vec::new();
    for client in &clients {
        told.push(Told::by(client, truth.revision).await?);
    }
    for at in others {
        let (nth, other) = (members[at], &told[at]);
        if other.hash_kv != told[0].hash_kv {
            let hashes = (told[0].hash_kv, other.hash_kv);
            let revision = truth.revision;
            findings.push(format!("HashKV at {revision} of m{first} and m{nth}: {hashes:?}"));
        }
        if other.keys != told[0].keys {
            let (ours, theirs) = (told[0].keys.len(), other.keys.len());
            findings.push(format!("m{first} has {ours} keys, m{nth} has {theirs}, or they differ"));
        }
    }
    same_hash(&clients, findings).await?;
    Ok(truth)
}

/// What one member has, read from itself alone.
struct Told {
    hash_kv: u32,
    keys: BTreeMap<Bytes, KeyValue>,
}

impl Told {
    async fn by(client: &Client, revision: i64) -> Result<Self> {
        let hash = client.maintenance.clone().hash_kv(HashKvRequest { revision }).await?;
        let (_, keys) = portrait::own_keys(client, revision).await?;
        Ok(Self { hash_kv: hash.into_inner().hash, keys })
    }
}

async fn applied(clients: &[Client]) -> Result<Vec<u64>> {
    let mut applied = Vec::new();
    for client in clients {
        let status = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
        applied.push(status.raft_applied_index);
    }
    Ok(applied)
}

/// Waits until every member has applied the same; that index.
async fn level(clients: &[Client]) -> Result<u64> {
    let begun = Instant::now();
    let mut last = Vec::new();
    while begun.elapsed() < LEVEL_DEADLINE {
        last = applied(clients).await?;
        if last.iter().all(|index| *index == last[0]) {
            return Ok(last[0]);
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("members are not level after {LEVEL_DEADLINE:?}: applied {last:?}")
}

/// The hash over everything stored, where nothing was applied between the first and the last.
async fn same_hash(clients: &[Client], findings: &mut Vec<String>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LEVEL_DEADLINE {
        let before = level(clients).await?;
        let mut hashes = Vec::new();
        for client in clients {
            let hash = client.maintenance.clone().hash(HashRequest {}).await?.into_inner();
            hashes.push(hash.hash);
        }
        if applied(clients).await?.iter().any(|index| *index != before) {
            continue;
        }
        if hashes.iter().any(|hash| *hash != hashes[0]) {
            findings.push(format!("HASH at index {before}: {hashes:?}"));
        }
        return Ok(());
    }
    bail!("never at rest for {LEVEL_DEADLINE:?}")
}

/// In each term at most one leads, and nobody else is said to.
pub(crate) fn one_leader_a_term(claims: &[Claim], findings: &mut Vec<String>) -> usize {
    let mut leaders = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.leader != 0) {
        let leader = *leaders.entry(claim.term).or_insert(claim.leader);
        if leader != claim.leader {
            let told =
                format!("in term {} both {leader:x} and {:x} lead", claim.term, claim.leader);
            findings.push(format!("{told}: {claim:?}"));
        }
    }
    leaders.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let claim = |member, leader, term| Claim { member, leader, term };
        for (other, expected) in
            [(claim(2, 1, 5), 0), (claim(2, 0, 5), 0), (claim(2, 2, 6), 0), (claim(2, 2, 5), 1)]
        {
            let mut findings = Vec::new();
            one_leader_a_term(&[claim(1, 1, 5), other], &mut findings);
            assert_eq!(findings.len(), expected, "{other:?}");
        }
    }
}
