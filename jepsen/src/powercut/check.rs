//! What a restarted member must show, compared with the ledger.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use parking_lot::Mutex;

use super::ledger::{HashMark, LEASE_TTL, Ledger};
use super::load::{END, FIRST};
use crate::client::Client;
use crate::pb::etcdserverpb::{
    HashKvRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, RangeRequest, StatusRequest,
};
use crate::pb::mvccpb::KeyValue;

/// Keys fetched at once.
const PAGE_KEYS: i64 = 2000;
/// A check that takes longer is a member that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds by which a lease may outlast its time after a restart: etcd extends leases by the election timeout when
/// a leader takes over (server/lease/lessor.go, Promote), and rounds up.
const LEASE_EXTENSION_MAX: i64 = 10;
/// Leases whose remaining time is asked for; all are listed.
const LEASES_ASKED: usize = 5;

/// What one restart's check covered.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) keys: u64,
    pub(crate) leases: u64,
    pub(crate) hashes: u64,
}

/// Asks the member for everything and returns what differs from what was acknowledged. A request that fails is
/// such a difference: the member said that it serves.
pub(crate) async fn check(client: &Client, ledger: &Mutex<Ledger>) -> (Vec<String>, Checked) {
    let mut checked = Checked::default();
    let parts = [
        contents(client, ledger, &mut checked).await,
        hashes(client, ledger, &mut checked).await,
        status(client, ledger).await,
    ];
    let finding = |part: Result<Vec<String>>| {
        part.unwrap_or_else(|error| vec![format!("ready, but does not answer: {error:#}")])
    };
    (parts.into_iter().flat_map(finding).collect(), checked)
}

async fn contents(
    client: &Client,
    ledger: &Mutex<Ledger>,
    checked: &mut Checked,
) -> Result<Vec<String>> {
    let (found, revision) = everything(client).await?;
    let leases = leases(client).await?;
    checked.leases = leases.len() as u64;
    let mut findings = Vec::new();
    {
        let mut ledger = ledger.lock();
        checked.keys = ledger.held_keys();
        if revision < ledger.revision {
            let told = ledger.revision;
            findings.push(format!("revision {revision}, {told} was answered before"));
        }
        findings.extend(ledger.reconcile(&found, &leases));
        ledger.revision = ledger.revision.max(revision);
    }
    findings.extend(remaining_times(client, &leases).await?);
    Ok(findings)
}

async fn everything(client: &Client) -> Result<(Vec<KeyValue>, i64)> {
    let mut kv = client.kv.clone();
    let mut all: Vec<KeyValue> = Vec::new();
    let mut key = Bytes::from_static(FIRST.as_bytes());
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: Bytes::from_static(END.as_bytes()),
            limit: PAGE_KEYS,
            ..RangeRequest::default()
        };
        let response = kv.range(request).await.context("range")?.into_inner();
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        all.extend(response.kvs);
        match all.last() {
            Some(last) if response.more => key = [&last.key[..], &[0]].concat().into(),
            Some(_) | None => return Ok((all, revision)),
        }
    }
}

async fn leases(client: &Client) -> Result<Vec<i64>> {
    let mut lease = client.lease.clone();
    let response = lease.lease_leases(LeaseLeasesRequest {}).await.context("leases")?;
    Ok(response.into_inner().leases.into_iter().map(|lease| lease.id).collect())
}

async fn remaining_times(client: &Client, leases: &[i64]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for &id in leases.iter().rev().take(LEASES_ASKED) {
        let mut lease = client.lease.clone();
        let request = LeaseTimeToLiveRequest { id, keys: false };
        let response =
            lease.lease_time_to_live(request).await.context("lease time to live")?.into_inner();
        let (granted, left) = (response.granted_ttl, response.ttl);
        if granted != LEASE_TTL || !(1..=LEASE_TTL + LEASE_EXTENSION_MAX).contains(&left) {
            findings.push(format!("lease {id}: granted {granted} s, {left} s left"));
        }
    }
    Ok(findings)
}

async fn hashes(
    client: &Client,
    ledger: &Mutex<Ledger>,
    checked: &mut Checked,
) -> Result<Vec<String>> {
    let (marks, compacted, asked) = {
        let ledger = ledger.lock();
        (ledger.hashes.clone(), ledger.compacted, ledger.compaction_asked)
    };
    let mut findings = Vec::new();
    for mark in marks.iter().filter(|mark| mark.revision > asked) {
        let mut maintenance = client.maintenance.clone();
        let request = HashKvRequest { revision: mark.revision };
        let now = maintenance.hash_kv(request).await.context("HashKV")?.into_inner();
        // Never compacted is -1.
        let at = now.compact_revision.max(0);
        if at < compacted || at > asked {
            let told = format!("{compacted} was answered, {asked} was asked for");
            findings.push(format!("compacted to {at}; {told}"));
        }
        if now.compact_revision == mark.compact_revision {
            checked.hashes += 1;
            findings.extend(differs(mark, now.hash));
        }
    }
    Ok(findings)
}

fn differs(mark: &HashMark, now: u32) -> Option<String> {
    let HashMark { revision, hash, .. } = mark;
    (*hash != now).then(|| format!("HashKV at revision {revision} was {hash}, is {now}"))
}

async fn status(client: &Client, ledger: &Mutex<Ledger>) -> Result<Vec<String>> {
    let mut maintenance = client.maintenance.clone();
    let status = maintenance.status(StatusRequest {}).await.context("status")?.into_inner();
    let mut ledger = ledger.lock();
    let mut findings = Vec::new();
    if status.raft_term < ledger.term {
        findings.push(format!("term {}, it was {} before", status.raft_term, ledger.term));
    }
    if status.raft_applied_index < ledger.applied_index {
        let before = ledger.applied_index;
        findings.push(format!("applied {}, it was {before} before", status.raft_applied_index));
    }
    ledger.term = ledger.term.max(status.raft_term);
    ledger.applied_index = ledger.applied_index.max(status.raft_applied_index);
    Ok(findings)
}
