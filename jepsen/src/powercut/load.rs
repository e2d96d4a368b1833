//! The load of one life: clients that write what they have never written before, and note every answer.
//!
//! **Invariant:** what is asked is in the ledger before the request leaves; what is answered is in it before the
//! client goes on. An error changes nothing: that request's fate is for the restart to show.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::ledger::{HashMark, LEASE_TTL, Ledger, value_of};
use crate::client::Client;
use crate::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RequestOp, ResponseHeader, TxnRequest, compare, request_op,
};

/// All keys of these tests lie in [`FIRST`, `END`).
pub(crate) const FIRST: &str = "powercut/";
pub(crate) const END: &str = "powercut0";

/// Keys of lives this long ago are deleted, so that a restart can be compared whole.
const LIVES_KEPT: u32 = 3;
/// A request without an answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The clients of one life while they run.
#[derive(Debug)]
pub(crate) struct Load {
    tasks: JoinSet<Vec<String>>,
    stop: watch::Sender<bool>,
}

/// What all clients of a life share.
#[derive(Debug, Clone)]
struct Shared {
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    life: u32,
    stop: watch::Receiver<bool>,
}

// === impl Load ===

impl Load {
    /// Starts `clients` writers, one that compacts and sweeps, and one that takes hashes.
    pub(crate) fn start(
        client: &Client,
        ledger: &Arc<Mutex<Ledger>>,
        life: u32,
        clients: u32,
        seed: u64,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shared =
            Shared { client: client.clone(), ledger: Arc::clone(ledger), life, stop: stopped };
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let rng = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
            let writer = Writer { shared: shared.clone(), number, serial: 0, leases: vec![], rng };
            tasks.spawn(writer.run());
        }
        tasks.spawn(sweep_and_compact(shared.clone(), StdRng::seed_from_u64(!seed)));
        tasks.spawn(take_hashes(shared));
        Self { tasks, stop }
    }

    /// Stops every client and waits for it; what they saw that must not be.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        // Nobody listens any more when all have stopped already.
        let _all_gone = self.stop.send(true);
        let mut findings = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(mut found) => findings.append(&mut found),
                Err(error) => findings.push(format!("a client of the harness ended: {error}")),
            }
        }
        findings
    }
}

// === impl Shared ===

impl Shared {
    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sleeps, but not into the end of the life.
    async fn pause(&mut self, time: Duration) {
        let _ended_early = timeout(time, self.stop.wait_for(|stop| *stop)).await;
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Option<T> {
        match timeout(PATIENCE, call).await {
            Ok(Ok(response)) => Some(response.into_inner()),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn put_request(key: &Bytes, lease: i64) -> PutRequest {
    PutRequest { key: key.clone(), value: value_of(key), lease, ..PutRequest::default() }
}

#[derive(Debug)]
struct Writer {
    shared: Shared,
    number: u32,
    serial: u32,
    leases: Vec<i64>,
    rng: StdRng,
}

// === impl Writer ===

impl Writer {
    async fn run(mut self) -> Vec<String> {
        let mut findings = Vec::new();
        while !self.shared.stopped() {
            let went_well = match self.rng.random_range(0..100u8) {
                0..65 => self.burst().await,
                65..80 => self.transaction(&mut findings).await,
                80..90 => self.delete(&mut findings).await,
                90..97 => self.lease().await,
                _ => self.revoke().await,
            };
            let rest = if went_well { self.rng.random_range(0..4) } else { 50 };
            self.shared.pause(Duration::from_millis(rest)).await;
        }
        findings
    }

    fn prefix(&self) -> String {
        format!("{FIRST}{:06}/{:02}/", self.shared.life, self.number)
    }

    fn fresh(&mut self, count: u32) -> Vec<Bytes> {
        let from = self.serial;
        self.serial += count;
        (from..self.serial).map(|n| Bytes::from(format!("{}{n:06}", self.prefix()))).collect()
    }

    /// Several puts at once: what a group commit packs.
    async fn burst(&mut self) -> bool {
        let count = self.rng.random_range(1..=6);
        let keys = self.fresh(count);
        let puts = keys.into_iter().map(|key| put(self.shared.clone(), key, 0));
        join_all(puts).await.into_iter().all(|answered| answered)
    }

    async fn transaction(&mut self, findings: &mut Vec<String>) -> bool {
        let keys = self.fresh(2);
        let absent = Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Create as i32,
            key: keys[0].clone(),
            range_end: Bytes::new(),
            target_union: Some(compare::TargetUnion::CreateRevision(0)),
        };
        let put =
            |key| RequestOp { request: Some(request_op::Request::RequestPut(put_request(key, 0))) };
        let request = TxnRequest {
            compare: vec![absent],
            success: keys.iter().map(put).collect(),
            failure: vec![],
        };
        self.shared.ledger.lock().ask(self.shared.life, &keys, 0);
        let mut kv = self.shared.client.kv.clone();
        let Some(response) = self.shared.answer(kv.txn(request)).await else {
            return false;
        };
        if !response.succeeded {
            findings.push(format!("{:?}: a fresh key was there before its put", keys[0]));
        }
        self.shared.ledger.lock().held(&keys, revision(response.header));
        true
    }

    async fn delete(&mut self, findings: &mut Vec<String>) -> bool {
        let skip = self.rng.random_range(0..50);
        let Some(key) = self.shared.ledger.lock().pick(&self.prefix(), skip) else {
            return true;
        };
        self.shared.ledger.lock().leaving(&key);
        let request = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let mut kv = self.shared.client.kv.clone();
        let Some(response) = self.shared.answer(kv.delete_range(request)).await else {
            return false;
        };
        if response.deleted != 1 {
            findings.push(format!("{key:?}: deleted {} keys, not 1", response.deleted));
        }
        self.shared.ledger.lock().gone(&key, revision(response.header));
        true
    }

    async fn lease(&mut self) -> bool {
        let id = i64::from(self.shared.life) << 32
            | i64::from(self.number) << 24
            | i64::from(self.serial)
            | 1 << 60;
        let keys = self.fresh(2);
        self.shared.ledger.lock().ask_lease(id);
        let mut lease = self.shared.client.lease.clone();
        let grant = lease.lease_grant(LeaseGrantRequest { ttl: LEASE_TTL, id });
        if self.shared.answer(grant).await.is_none() {
            return false;
        }
        self.shared.ledger.lock().lease_held(id);
        self.leases.push(id);
        let puts = keys.into_iter().map(|key| put(self.shared.clone(), key, id));
        join_all(puts).await.into_iter().all(|answered| answered)
    }

    async fn revoke(&mut self) -> bool {
        let Some(id) = self.leases.pop() else {
            return true;
        };
        self.shared.ledger.lock().lease_leaving(id);
        let mut lease = self.shared.client.lease.clone();
        let revoke = lease.lease_revoke(LeaseRevokeRequest { id });
        let Some(response) = self.shared.answer(revoke).await else {
            return false;
        };
        self.shared.ledger.lock().lease_gone(id, revision(response.header));
        true
    }
}

async fn put(shared: Shared, key: Bytes, lease: i64) -> bool {
    let keys = [key];
    shared.ledger.lock().ask(shared.life, &keys, lease);
    let mut kv = shared.client.kv.clone();
    let Some(response) = shared.answer(kv.put(put_request(&keys[0], lease))).await else {
        return false;
    };
    shared.ledger.lock().held(&keys, revision(response.header));
    true
}

/// Deletes the keys of lives long ago, then compacts once to a revision of an earlier life.
async fn sweep_and_compact(mut shared: Shared, mut rng: StdRng) -> Vec<String> {
    let before = shared.ledger.lock().revision;
    let mut findings = sweep(&shared).await;
    let wait = rng.random_range(0..400);
    shared.pause(Duration::from_millis(wait)).await;
    if shared.stopped() || before < 2 || !rng.random_bool(0.6) {
        return findings;
    }
    let asked = rng.random_range(before.max(40) - 39..=before);
    if asked <= shared.ledger.lock().compaction_asked {
        return findings;
    }
    shared.ledger.lock().compaction_asked = asked;
    let request = CompactionRequest { revision: asked, physical: rng.random_bool(0.5) };
    let mut kv = shared.client.kv.clone();
    if let Some(response) = shared.answer(kv.compact(request)).await {
        let mut ledger = shared.ledger.lock();
        ledger.compacted = asked;
        ledger.acknowledged += 1;
        if revision(response.header) < ledger.compacted {
            findings.push(format!("a compaction at {asked} was answered with an older revision"));
        }
    }
    findings
}

async fn sweep(shared: &Shared) -> Vec<String> {
    let Some(old) = shared.life.checked_sub(LIVES_KEPT) else {
        return Vec::new();
    };
    let there = shared.ledger.lock().lives_leaving(old);
    if there == 0 {
        return Vec::new();
    }
    let request = DeleteRangeRequest {
        key: Bytes::from_static(FIRST.as_bytes()),
        range_end: Bytes::from(format!("{FIRST}{:06}/", old + 1)),
        prev_kv: false,
    };
    let mut kv = shared.client.kv.clone();
    let Some(response) = shared.answer(kv.delete_range(request)).await else {
        return Vec::new();
    };
    shared.ledger.lock().lives_gone(old, revision(response.header));
    if response.deleted == there {
        return Vec::new();
    }
    vec![format!("a sweep up to life {old} deleted {} keys of {there}", response.deleted)]
}

/// Takes HashKV at acknowledged revisions, a few in each life.
async fn take_hashes(mut shared: Shared) -> Vec<String> {
    while !shared.stopped() {
        shared.pause(Duration::from_millis(120)).await;
        let at = shared.ledger.lock().revision;
        if at == 0 || shared.stopped() {
            continue;
        }
        let mut maintenance = shared.client.maintenance.clone();
        let call = maintenance.hash_kv(HashKvRequest { revision: at });
        if let Some(response) = shared.answer(call).await {
            shared.ledger.lock().remember_hash(HashMark {
                revision: at,
                compact_revision: response.compact_revision,
                hash: response.hash,
            });
        }
        sleep(Duration::from_millis(1)).await;
    }
    Vec::new()
}
