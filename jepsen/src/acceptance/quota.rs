//! A1.8: three members with a quota of 16 MiB are filled: all refuse growth and nothing else; compaction,
//! defragmentation and disarming bring writes back; the replicas' hashes are equal all the while, and memory is bounded.
//!
//! ```text
//!   fill until refused ── every member: puts refused, reads and deletes served, alarm told ── compact ── defragment each
//!      ── disarm ── puts served ── again                       HashKV of all members compared, twice a second
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::conclude;
use crate::bench::usage::resident_mib;
use crate::client::Client;
use crate::cluster::{START_DEADLINE, http};
use crate::member::{Member, MemberSpec, Workspace};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DeleteRangeRequest,
    HashKvRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, StatusRequest,
    TxnRequest, alarm_request,
};
use crate::verdict::Verdict;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const VALUE_BYTES: usize = 16 << 10;
/// Each is written again and again, so that a compaction frees most of what fills the quota.
const KEYS: usize = 60;
/// Puts under way at once, at each member.
const PUTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(10);
const PROBE: Duration = Duration::from_secs(3);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 16)]
    quota_mib: u64,
    /// How often it is filled and freed.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The most anonymous memory that a member may have, in MiB: what caches and buffers are bounded by (the state
    /// store's 32, twice while it is defragmented, tail 64, values 64, blocks 16), the log's, and the program.
    #[arg(long, default_value_t = 320.0)]
    resident_max: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// More flags of the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Fills, looks, frees, looks again.
///
/// # Errors
/// What hinders the harness.
pub(crate) async fn quota(options: Options) -> Result<Verdict> {
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let workspace = Workspace::create("quota")?;
    let members = start(&options, &workspace)?;
    let mut clients = Vec::new();
    for member in &members {
        clients.push(Client::connect(&member.spec().endpoint()).await?);
    }
    let watch = Watch::begin(&members, &clients);
    let mut trial = Trial {
        endpoints: members.iter().map(|member| member.spec().endpoint()).collect(),
        clients,
        rng: StdRng::seed_from_u64(options.seed),
        findings: Vec::new(),
    };
    let ran = trial.run(&options).await;
    let mut findings = trial.findings;
    let seen = watch.end().await?;
    println!("HashKV compared {} times; most memory {:.0?} MiB", seen.compared, seen.resident_mib);
    findings.extend(seen.findings);
    if seen.compared == 0 {
        findings.push("HashKV was never compared".to_owned());
    }
    for (nth, most) in seen.resident_mib.iter().enumerate() {
        if *most > options.resident_max {
            let limit = options.resident_max;
            findings.push(format!("m{nth}: {most:.0} MiB of memory, not {limit:.0}"));
        }
    }
    if let Err(error) = ran {
        findings.push(format!("{error:#}"));
    }
    let server = options.server.display();
    let again = format!("again: quorate-jepsen quota --server {server} --seed {}", options.seed);
    conclude(workspace, members, findings, again)
}

fn start(options: &Options, workspace: &Workspace) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for mut spec in MemberSpec::several(&options.server, workspace.path(), "m", 3)? {
        spec.extra = vec![format!("--quota-backend-bytes={}", options.quota_mib << 20)];
        spec.extra.extend(options.flags.iter().cloned());
        members.push(spec.launch()?);
    }
    for member in &mut members {
        block_in_place(|| member.await_ready(START_DEADLINE))?;
    }
    Ok(members)
}

struct Trial {
    clients: Vec<Client>,
    endpoints: Vec<String>,
    rng: StdRng,
    findings: Vec<String>,
}

impl Trial {
    async fn run(&mut self, options: &Options) -> Result<()> {
        for round in 1..=options.rounds {
            let begun = Instant::now();
            let puts = self.fill().await?;
            let full = self.sizes().await?;
            println!(
                "round {round}: full after {puts} puts, {:.1?}: {full:.1?} MiB",
                begun.elapsed()
            );
            self.look_full(&format!("round {round}, full")).await?;
            let begun = Instant::now();
            self.free().await?;
            let freed = self.sizes().await?;
            println!("round {round}: freed in {:.1?}: {freed:.1?} MiB", begun.elapsed());
            let limit = options.quota_mib as f64 / 2.0;
            if freed.iter().any(|size| *size > limit) {
                self.findings.push(format!("round {round}: {freed:.1?} MiB after defragmentation"));
            }
            self.look_free(&format!("round {round}, freed")).await?;
        }
        Ok(())
    }

    fn put(&mut self) -> PutRequest {
        let mut value = vec![0; VALUE_BYTES];
        self.rng.fill(&mut value[..]);
        let key = format!("quota/{:03}", self.rng.random_range(0..KEYS));
        PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
    }

    /// Puts at all members until each has refused one; how many went before.
    async fn fill(&mut self) -> Result<usize> {
        let begun = Instant::now();
        let (mut went, mut refused) = (0, vec![false; self.clients.len()]);
        while refused.contains(&false) {
            ensure!(begun.elapsed() < 2 * PATIENCE, "not full after {went} puts: {refused:?}");
            let mut puts = Vec::new();
            for nth in 0..self.clients.len() {
                for _ in 0..PUTS {
                    let (mut kv, put) = (self.clients[nth].kv.clone(), self.put());
                    puts.push(async move { (nth, timeout(CALL, kv.put(put)).await) });
                }
            }
            for (nth, answer) in join_all(puts).await {
                match answer {
                    Ok(Ok(_)) => went += 1,
                    Ok(Err(status)) if is_no_space(&status) => refused[nth] = true,
                    Ok(Err(status)) => bail!("m{nth}: a put was refused otherwise: {status}"),
                    Err(_) => bail!("m{nth}: a put was not answered in {CALL:?}"),
                }
            }
        }
        Ok(went)
    }

    /// Accounted MiB of each member.
    async fn sizes(&self) -> Result<Vec<f64>> {
        let mut sizes = Vec::new();
        for client in &self.clients {
            let status = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
            sizes.push(status.db_size as f64 / 1048576.0);
        }
        Ok(sizes)
    }

    /// Growth is refused by every member, nothing else is, and all tell why.
    async fn look_full(&mut self, moment: &str) -> Result<()> {
        for nth in 0..self.clients.len() {
            let client = self.clients[nth].clone();
            let put = self.put();
            let op = RequestOp { request: Some(Op::RequestPut(put.clone())) };
            let txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
            let grant = LeaseGrantRequest { ttl: 60, id: 0 };
            let refusals = [
                ("put", client.kv.clone().put(put).await.err()),
                ("txn with a put", client.kv.clone().txn(txn).await.err()),
                ("lease grant", client.lease.clone().lease_grant(grant).await.err()),
            ];
            for (what, refusal) in refusals {
                if !refusal.as_ref().is_some_and(is_no_space) {
                    self.findings.push(format!("{moment}: m{nth}: {what}: {refusal:?}"));
                }
            }
            let alarms = alarms(&client).await?;
            if !alarms.iter().any(|(_, alarm)| *alarm == i32::from(AlarmType::Nospace)) {
                self.findings.push(format!("{moment}: m{nth} lists {alarms:?}"));
            }
            let health = http::get(&self.endpoints[nth], "/health", PROBE).await?;
            if health.status != 503 || !health.body.contains("ALARM NOSPACE") {
                self.findings.push(format!("{moment}: m{nth}: health {health:?}"));
            }
            self.read_and_delete(nth).await.with_context(|| format!("{moment}: m{nth}"))?;
        }
        Ok(())
    }

    /// A read, a delete, and a transaction that only deletes.
    async fn read_and_delete(&self, nth: usize) -> Result<()> {
        let mut kv = self.clients[nth].kv.clone();
        let read = RangeRequest {
            key: "quota/".into(),
            range_end: "quota0".into(),
            ..RangeRequest::default()
        };
        let before = kv.range(read.clone()).await.context("a read")?.into_inner();
        ensure!(before.kvs.len() >= 2, "only {} keys are left", before.kvs.len());
        let delete = |at: usize| DeleteRangeRequest {
            key: before.kvs[at].key.clone(),
            ..DeleteRangeRequest::default()
        };
        let deleted = kv.delete_range(delete(0)).await.context("a delete")?.into_inner().deleted;
        ensure!(deleted == 1, "{deleted} deleted");
        let op = RequestOp { request: Some(Op::RequestDeleteRange(delete(1))) };
        let txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
        kv.txn(txn).await.context("a transaction that deletes")?;
        let after = kv.range(read).await?.into_inner().kvs.len();
        ensure!(after + 2 == before.kvs.len(), "{} keys, then {after}", before.kvs.len());
        Ok(())
    }

    /// Compacts to now, defragments each member, disarms.
    async fn free(&self) -> Result<()> {
        let client = &self.clients[0];
        let now = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
        let revision = now.header.context("a header")?.revision;
        let compaction = CompactionRequest { revision, physical: true };
        timeout(PATIENCE, client.kv.clone().compact(compaction)).await?.context("compaction")?;
        for (nth, client) in self.clients.iter().enumerate() {
            let mut maintenance = client.maintenance.clone();
            let defragmented = maintenance.defragment(DefragmentRequest {});
            let defragmented = timeout(PATIENCE, defragmented).await;
            defragmented?.with_context(|| format!("m{nth}: defragmentation"))?;
        }
        for (member_id, alarm) in alarms(client).await? {
            let action = alarm_request::AlarmAction::Deactivate.into();
            let disarm = AlarmRequest { action, member_id, alarm };
            client.maintenance.clone().alarm(disarm).await.context("disarming")?;
        }
        Ok(())
    }

    /// Every member takes puts again, and is well.
    async fn look_free(&mut self, moment: &str) -> Result<()> {
        for nth in 0..self.clients.len() {
            let (mut kv, put) = (self.clients[nth].kv.clone(), self.put());
            let put = timeout(CALL, kv.put(put)).await?;
            put.with_context(|| format!("{moment}: m{nth}: a put"))?;
            let begun = Instant::now();
            loop {
                let health = http::get(&self.endpoints[nth], "/health", PROBE).await?;
                if health.status == 200 {
                    break;
                }
                ensure!(begun.elapsed() < CALL, "{moment}: m{nth}: health {health:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

fn is_no_space(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message() == NO_SPACE
}

/// Members and what alarms them.
async fn alarms(client: &Client) -> Result<Vec<(u64, i32)>> {
    let told = client.maintenance.clone().alarm(AlarmRequest::default()).await?.into_inner();
    Ok(told.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect())
}

/// Looks at hashes and memory while everything else goes on.
struct Watch {
    over: Arc<AtomicBool>,
    task: JoinHandle<Result<Seen>>,
}

struct Seen {
    compared: u64,
    findings: Vec<String>,
    /// The most that each member had.
    resident_mib: Vec<f64>,
}

impl Watch {
    fn begin(members: &[Member], clients: &[Client]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let pids: Vec<_> = members.iter().map(Member::pid).collect();
        let (stop, clients) = (Arc::clone(&over), clients.to_vec());
        let task = tokio::spawn(async move {
            let resident_mib = vec![0.0; pids.len()];
            let mut seen = Seen { compared: 0, findings: Vec::new(), resident_mib };
            while !stop.load(Ordering::Relaxed) {
                seen.compare(&clients).await?;
                for _ in 0..20 {
                    for (most, pid) in seen.resident_mib.iter_mut().zip(&pids) {
                        *most = resident_mib_of(*pid).max(*most);
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
            seen.compare(&clients).await?;
            Ok(seen)
        });
        Self { over, task }
    }

    async fn end(self) -> Result<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// 0 of a member that has ended: that is told elsewhere.
fn resident_mib_of(pid: u32) -> f64 {
    resident_mib(pid).map_or(0.0, |(anonymous, _)| anonymous)
}

impl Seen {
    /// The hashes at one revision, of members that had compacted alike when they were asked.
    async fn compare(&mut self, clients: &[Client]) -> Result<()> {
        let now = RangeRequest { key: "quota/".into(), ..RangeRequest::default() };
        let now = clients[0].kv.clone().range(now).await?.into_inner();
        let revision = now.header.context("a header")?.revision;
        let asked = clients.iter().map(|client| async move {
            // A member that lags behind is asked again.
            let begun = Instant::now();
            loop {
                let request = HashKvRequest { revision };
                match client.maintenance.clone().hash_kv(request).await {
                    Ok(told) => {
                        let told = told.into_inner();
                        return Ok(Some((told.compact_revision, told.hash)));
                    }
                    Err(status) if status.message() == COMPACTED => return Ok(None),
                    Err(status) if begun.elapsed() > CALL => return Err(status),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let mut told = Vec::new();
        for hash in join_all(asked).await {
            told.extend(hash?);
        }
        let comparable = told.len() == clients.len() && told.iter().all(|h| h.0 == told[0].0);
        if comparable {
            self.compared += 1;
            if told.iter().any(|hash| hash.1 != told[0].1) {
                self.findings.push(format!("HashKV at {revision}: {told:?}"));
            }
        }
        Ok(())
    }
}
