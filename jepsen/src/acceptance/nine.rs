//! The nine checks of a healthy cluster, in their strict form: health, members, leader, write, read, TTL, watch,
//! consistency, clean-up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::cluster::{Cluster, http};
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, MemberListRequest, PutRequest,
    RangeRequest, StatusRequest,
};
use crate::pb::mvccpb::KeyValue;
use crate::traffic::watchers::{Everything, Seen1, value_sum};

const PATIENCE: Duration = Duration::from_secs(5);
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(2);
/// One election timeout, and one second.
const TTL_LATE_MAX: Duration = Duration::from_secs(2);
const PREFIX: &str = "/registry/checks/";

/// Runs all nine.
///
/// # Errors
/// The first check that failed, by its name.
pub(crate) async fn nine_checks(cluster: &Cluster) -> Result<()> {
    let mut clients = Vec::new();
    for nth in 0..cluster.len() {
        clients.push(cluster.client(nth).await?);
    }
    health(cluster).await.context("1, health")?;
    members(cluster, &clients).await.context("2, members")?;
    leader(&clients).await.context("3, leader")?;
    write(&clients).await.context("4, write")?;
    read(&clients).await.context("5, read")?;
    ttl(&clients).await.context("6, TTL")?;
    watch(&clients).await.context("7, watch")?;
    consistency(&clients).await.context("8, consistency")?;
    clean_up(&clients).await.context("9, clean-up")
}

fn key(name: impl std::fmt::Display) -> Bytes {
    format!("{PREFIX}{name}").into()
}

/// Everything below the prefix.
fn all(serializable: bool) -> RangeRequest {
    RangeRequest {
        key: PREFIX.into(),
        range_end: PREFIX.replace("checks/", "checks0").into(),
        serializable,
        ..RangeRequest::default()
    }
}

/// A member that has just come back may need a moment to hear of a leader.
async fn health(cluster: &Cluster) -> Result<()> {
    let asked = Instant::now();
    for nth in 0..cluster.len() {
        loop {
            let answer = http::get(&cluster.endpoint(nth), "/health", PROBE_PATIENCE).await?;
            let well = answer.status == 200 && answer.body.contains("\"health\":\"true\"");
            if well && answer.took < PROBE_PATIENCE {
                break;
            }
            ensure!(asked.elapsed() < PATIENCE, "m{nth}: {answer:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Each member lists all of them, with the names and URLs that they were started with.
async fn members(cluster: &Cluster, clients: &[Client]) -> Result<()> {
    for (nth, client) in clients.iter().enumerate() {
        let request = MemberListRequest { linearizable: true };
        let listed = client.cluster.clone().member_list(request).await?.into_inner();
        let mut told: Vec<_> = listed
            .members
            .into_iter()
            .map(|member| (member.name, member.peer_ur_ls, member.client_ur_ls, member.is_learner))
            .collect();
        told.sort();
        let expected: Vec<_> = (0..cluster.len())
            .map(|nth| {
                let spec = cluster.spec(nth);
                let client = format!("http://{}:{}", spec.name, spec.client_port);
                (spec.name.clone(), vec![spec.peer_url()], vec![client], false)
            })
            .collect();
        ensure!(told == expected, "m{nth} lists {told:?}");
    }
    Ok(())
}

/// All name the same leader in the same term, and that one is a member. The last to start may need a moment.
async fn leader(clients: &[Client]) -> Result<()> {
    let asked = Instant::now();
    loop {
        let mut told = Vec::new();
        for client in clients {
            let status = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
            let header = status.header.context("a header")?;
            told.push((header.member_id, status.leader, status.raft_term));
        }
        let same = told.iter().all(|(_, leader, term)| (*leader, *term) == (told[0].1, told[0].2));
        if same && told.iter().any(|(member, leader, _)| member == leader) {
            return Ok(());
        }
        ensure!(asked.elapsed() < PATIENCE, "member, leader and term: {told:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn write(clients: &[Client]) -> Result<()> {
    for (nth, client) in clients.iter().enumerate() {
        let put = PutRequest {
            key: key(nth),
            value: format!("written at {nth}").into(),
            ..PutRequest::default()
        };
        timeout(PATIENCE, client.kv.clone().put(put)).await??;
    }
    Ok(())
}

async fn read_all(client: &Client, serializable: bool) -> Result<Vec<KeyValue>> {
    let answer = timeout(PATIENCE, client.kv.clone().range(all(serializable))).await??;
    Ok(answer.into_inner().kvs)
}

/// Each member answers with what was written at each.
async fn read(clients: &[Client]) -> Result<()> {
    for (nth, client) in clients.iter().enumerate() {
        let kvs = read_all(client, false).await?;
        let right = kvs.len() == clients.len()
            && kvs.iter().enumerate().all(|(of, kv)| {
                kv.key == key(of) && kv.value == format!("written at {of}") && kv.version == 1
            });
        ensure!(right, "m{nth} answers {kvs:?}");
    }
    Ok(())
}

/// A key of a lease is there for the TTL, and gone soon after.
async fn ttl(clients: &[Client]) -> Result<()> {
    let last = &clients[clients.len() - 1];
    let granted = Instant::now();
    let grant = LeaseGrantRequest { ttl: TTL.as_secs() as i64, id: 0 };
    let lease = last.lease.clone().lease_grant(grant).await?.into_inner();
    ensure!(lease.ttl == TTL.as_secs() as i64, "granted {lease:?}");
    let put = PutRequest { key: key("leased"), lease: lease.id, ..PutRequest::default() };
    last.kv.clone().put(put).await?;
    for client in clients.iter().cycle() {
        let range = RangeRequest { key: key("leased"), ..RangeRequest::default() };
        let asked = granted.elapsed();
        if client.kv.clone().range(range).await?.get_ref().count == 0 {
            ensure!(granted.elapsed() >= TTL, "gone after {:?}", granted.elapsed());
            return Ok(());
        }
        ensure!(asked < TTL + TTL_LATE_MAX + Duration::from_secs(1), "there after {asked:?}");
        sleep(Duration::from_millis(20)).await;
    }
    bail!("no members")
}

/// What is put at one member is told by a watch at another.
async fn watch(clients: &[Client]) -> Result<()> {
    for nth in 0..clients.len() {
        let (mut writer, mut watcher) =
            (clients[nth].clone(), clients[(nth + 1) % clients.len()].clone());
        let now = writer.kv.range(all(false)).await?.into_inner().header.context("a header")?;
        let mut watched =
            Everything::from(&mut watcher, now.revision + 1, false).await.context("no watch")?;
        let put = PutRequest {
            key: key("watched"),
            value: format!("{nth}").into(),
            ..PutRequest::default()
        };
        let put = writer.kv.put(put).await?.into_inner().header.context("a header")?;
        let expected = Seen1 {
            revision: put.revision,
            key: key("watched"),
            deleted: false,
            version: nth as i64 + 1,
            value_sum: value_sum(format!("{nth}").as_bytes()),
        };
        let heard = async {
            loop {
                let response = watched.next().await.context("the watch broke")?;
                ensure!(!response.canceled, "cancelled: {}", response.cancel_reason);
                let mut events = response.events.into_iter().map(Seen1::from);
                if let Some(event) = events.find(|event| event.key.starts_with(PREFIX.as_bytes())) {
                    return Ok(event);
                }
            }
        };
        let heard = timeout(PATIENCE, heard).await.context("nothing heard")??;
        ensure!(heard == expected, "heard {heard:?}, not {expected:?}");
    }
    Ok(())
}

/// Each member by itself has the same keys, and the same hash at one revision.
async fn consistency(clients: &[Client]) -> Result<()> {
    let newest = clients[0].kv.clone().range(all(false)).await?.into_inner();
    let revision = newest.header.context("a header")?.revision;
    let asked = Instant::now();
    for (nth, client) in clients.iter().enumerate() {
        loop {
            let own = client.kv.clone().range(all(true)).await?.into_inner();
            if own.header.as_ref().is_some_and(|header| header.revision >= revision) {
                ensure!(own.kvs == newest.kvs, "m{nth} has {:?}, m0 {:?}", own.kvs, newest.kvs);
                break;
            }
            ensure!(asked.elapsed() < PATIENCE, "m{nth} stays below revision {revision}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let mut hashes = Vec::new();
    for client in clients {
        let hash = client.maintenance.clone().hash_kv(HashKvRequest { revision }).await?;
        hashes.push(hash.into_inner().hash);
    }
    ensure!(hashes.iter().all(|hash| *hash == hashes[0]), "HashKV at {revision}: {hashes:?}");
    Ok(())
}

/// Nothing is left, on any member.
async fn clean_up(clients: &[Client]) -> Result<()> {
    let range = all(false);
    let delete = DeleteRangeRequest {
        key: range.key,
        range_end: range.range_end,
        ..DeleteRangeRequest::default()
    };
    let deleted = clients[0].kv.clone().delete_range(delete).await?.into_inner().deleted;
    ensure!(deleted == clients.len() as i64 + 1, "{deleted} deleted");
    for (nth, client) in clients.iter().enumerate() {
        let left = read_all(client, false).await?;
        ensure!(left.is_empty(), "m{nth} still has {left:?}");
    }
    Ok(())
}
