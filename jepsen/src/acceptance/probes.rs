//! A1.4: what `/health`, `/livez` and `/readyz` say while members stop, the quorum goes and comes back, the leader
//! stands still and a disk is full; and what clients are told while there is no quorum.
//!
//! ```text
//!   all well ── a follower stopped ── two stopped ── back ── all cut from each other ── healed
//!            ── the leader stands still ── goes on ── one disk full ── freed
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};

use crate::client::Client;
use crate::cluster::network::permitted;
use crate::cluster::{Cluster, START_DEADLINE, census, http, isolated};
use crate::disk::Disk;
use crate::member::{Workspace, panics_in};
use crate::pb::etcdserverpb::{AlarmRequest, PutRequest, RangeRequest, alarm_request};
use crate::verdict::Verdict;

const PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];
/// What a probe is given in a manifest.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// etcd's default, and ours.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Ticks, heartbeats and a busy machine.
const SLACK: Duration = Duration::from_millis(500);
/// etcd's time for a request: five seconds and two election timeouts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// What a probe of an idle member may take, at the median.
const IDLE_MAX: Duration = Duration::from_millis(100);
const BACK: Duration = Duration::from_secs(5);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// MiB of the disk that is filled; 0 leaves that part out. etcd ends in a panic there.
    #[arg(long, default_value_t = 512)]
    disk_mib: u64,
    /// Leaves out the SIGSTOP and the cuts: stops members only.
    #[arg(long)]
    short: bool,
    /// More flags for the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Runs every part and prints what probes took.
///
/// # Errors
/// What hinders the harness: no namespaces, no binary.
pub(crate) async fn probes(options: Options) -> Result<Verdict> {
    permitted()?;
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let workspace = Workspace::create("probes")?;
    let mut cluster = Cluster::lay_out(&options.server, workspace.path(), 3, &options.flags)?;
    let mut findings = Vec::new();
    let mut parts = Parts {
        cluster: &mut cluster,
        findings: &mut findings,
        rng: StdRng::seed_from_u64(options.seed),
        took: BTreeMap::new(),
        disk: None,
    };
    let ran = parts.run(&options, workspace.path()).await;
    for (part, mut took) in std::mem::take(&mut parts.took) {
        took.sort_unstable();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{part}: {} probes, median {median:.1?}, longest {longest:.1?}", took.len());
        if part == ALL_WELL && median > IDLE_MAX {
            parts.findings.push(format!("{part}: the median probe took {median:?}"));
        }
    }
    if let Err(error) = ran {
        parts.findings.push(format!("{error:#}"));
    }
    let disk = parts.disk.take();
    for nth in 0..cluster.len() {
        findings.extend(panics_in(&cluster.spec(nth).log)?);
    }
    drop(cluster);
    drop(disk);
    if findings.is_empty() {
        workspace.discard()?;
    } else {
        findings.push(format!("kept: {}", workspace.path().display()));
        let server = options.server.display();
        findings.push(format!(
            "again: quorate-jepsen probes --server {server} --seed {}",
            options.seed
        ));
    }
    Ok(Verdict::of(findings))
}

const ALL_WELL: &str = "all well";

struct Parts<'a> {
    cluster: &'a mut Cluster,
    findings: &'a mut Vec<String>,
    rng: StdRng,
    took: BTreeMap<String, Vec<Duration>>,
    disk: Option<Disk>,
}

/// What a member's three probes are to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Well,
    /// It lives, and is not ready.
    NotReady,
    /// It lives and is ready; health names the alarm.
    Alarmed,
}

impl Parts<'_> {
    async fn run(&mut self, options: &Options, root: &std::path::Path) -> Result<()> {
        let on_small_disk = self.rng.random_range(0..self.cluster.len());
        if options.disk_mib > 0 {
            let mount = root.join("small");
            self.disk = Some(Disk::mount(&mount, options.disk_mib)?);
            self.cluster.spec_mut(on_small_disk).data_dir = mount.join("data");
        }
        self.cluster.start_all(&[0, 1, 2])?;
        self.all_well(ALL_WELL).await?;
        self.stops().await?;
        if !options.short {
            self.cuts().await?;
            self.stands_still().await?;
        }
        if options.disk_mib > 0 {
            self.disk_full(on_small_disk).await?;
        }
        Ok(())
    }

    /// Asks each path of these members until all say what is expected, and a few times more.
    async fn expect(
        &mut self,
        part: &str,
        members: &[(usize, Expected)],
        by: Duration,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut well_rounds = 0;
        while well_rounds < 5 {
            let wrong = self.ask(part, members).await;
            if wrong.is_empty() {
                well_rounds += 1;
            } else {
                ensure!(well_rounds == 0, "{part}: was as expected, then {wrong:?}");
                ensure!(begun.elapsed() < by, "{part}: after {:.1?}: {wrong:?}", begun.elapsed());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What is not as expected.
    async fn ask(&mut self, part: &str, members: &[(usize, Expected)]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (nth, expected) in members {
            let endpoint = self.cluster.endpoint(*nth);
            let asked = PATHS.map(|path| http::get(&endpoint, path, PROBE_PATIENCE));
            for (path, answer) in PATHS.iter().zip(join_all(asked).await) {
                match answer {
                    Ok(answer) => {
                        let right = is_right(path, &answer, *expected);
                        self.took.entry(part.to_owned()).or_default().push(answer.took);
                        if !right {
                            let body = answer.body.trim();
                            wrong.push(format!("m{nth} {path}: {} {body:?}", answer.status));
                        }
                    }
                    // Readiness may fail by not answering in time, life may not.
                    Err(_) if *expected == Expected::NotReady && *path != "/livez" => {}
                    Err(error) => wrong.push(format!("m{nth} {path}: {error:#}")),
                }
            }
        }
        wrong
    }

    async fn all_well(&mut self, part: &str) -> Result<()> {
        let all = [0, 1, 2].map(|nth| (nth, Expected::Well));
        self.expect(part, &all, BACK).await
    }

    /// One follower goes, then another, then both come back.
    async fn stops(&mut self) -> Result<()> {
        let leader = self.cluster.leader(START_DEADLINE).await?;
        let followers: Vec<_> = (0..3).filter(|nth| *nth != leader).collect();
        self.cluster.kill(followers[0])?;
        let two = [leader, followers[1]].map(|nth| (nth, Expected::Well));
        self.expect("a follower stopped", &two, Duration::ZERO).await?;
        // Whether the survivor led or followed.
        let (gone, left) =
            if self.rng.random_bool(0.5) { (leader, followers[1]) } else { (followers[1], leader) };
        self.cluster.kill(gone)?;
        self.without_quorum("two stopped", &[left]).await?;
        for nth in [gone, followers[0]] {
            self.cluster.launch(nth)?;
        }
        let launched = Instant::now();
        self.await_write("both back").await?;
        println!("both back: the first write {:.2?} after their start", launched.elapsed());
        self.cluster.await_all_ready()?;
        self.all_well("both back").await
    }

    /// Nobody reaches anybody.
    async fn cuts(&mut self) -> Result<()> {
        self.cluster.leader(START_DEADLINE).await?;
        let all: Vec<_> = (0..3).collect();
        self.cluster.cut((0..3).flat_map(|nth| isolated(nth, 3)))?;
        self.without_quorum("all cut from each other", &all).await?;
        self.cluster.heal()?;
        let healed = Instant::now();
        self.await_write("healed").await?;
        let gap = healed.elapsed();
        println!("healed: the first write after {gap:.2?}");
        if gap > 2 * ELECTION_TIMEOUT + SLACK {
            self.findings.push(format!("healed: no write for {gap:.2?}, two election timeouts"));
        }
        self.all_well("healed").await
    }

    async fn stands_still(&mut self) -> Result<()> {
        let leader = self.cluster.leader(START_DEADLINE).await?;
        self.cluster.pause(leader)?;
        let others: Vec<_> =
            (0..3).filter(|nth| *nth != leader).map(|nth| (nth, Expected::Well)).collect();
        sleep(3 * ELECTION_TIMEOUT).await;
        let still = self.expect("the leader stands still", &others, Duration::ZERO).await;
        self.cluster.resume(leader)?;
        still?;
        self.all_well("it goes on").await
    }

    /// What a member says within an election timeout of the loss of quorum, and what clients are told.
    async fn without_quorum(&mut self, part: &str, left: &[usize]) -> Result<()> {
        let lost = Instant::now();
        loop {
            let mut named = Vec::new();
            for nth in left {
                let claim = census::ask(&self.cluster.endpoint(*nth)).await;
                named.extend(claim.filter(|claim| claim.leader != 0));
            }
            if named.is_empty() {
                break;
            }
            if lost.elapsed() > ELECTION_TIMEOUT + SLACK {
                let late = format!("{part}: after {:.2?} still named: {named:?}", lost.elapsed());
                self.findings.push(late);
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        println!("{part}: nobody named a leader after {:.2?}", lost.elapsed());
        let expected: Vec<_> = left.iter().map(|nth| (*nth, Expected::NotReady)).collect();
        self.expect(part, &expected, 2 * ELECTION_TIMEOUT).await?;
        for nth in left {
            let told = self.refusals(*nth).await?;
            for (what, (took, limit, outcome)) in told {
                println!("{part}: m{nth}: {what}: {outcome} after {took:.2?}");
                if took > limit {
                    self.findings.push(format!("{part}: m{nth}: {what}: {took:?}, not {limit:?}"));
                }
                self.findings
                    .extend(outcome.wrong().map(|w| format!("{part}: m{nth}: {what}: {w}")));
            }
        }
        Ok(())
    }

    /// Asks for a write, a read, and both with a leader asked for; a member alone still reads what it has.
    async fn refusals(&self, nth: usize) -> Result<Vec<(&'static str, Told)>> {
        let client = self.cluster.client(nth).await?;
        let leader_wanted = ELECTION_TIMEOUT;
        let long = REQUEST_TIMEOUT + SLACK;
        let told = tokio::join!(
            Box::pin(refused(put(&client, false), long)),
            Box::pin(refused(get(&client, false, false), long)),
            Box::pin(refused(put(&client, true), leader_wanted)),
            Box::pin(refused(get(&client, false, true), leader_wanted)),
            Box::pin(refused(get(&client, true, false), ELECTION_TIMEOUT)),
        );
        let (write, read, write_at_leader, read_at_leader, mut own) = told;
        own.2.serializable = true;
        Ok(vec![
            ("put", write),
            ("get", read),
            ("put with a leader required", write_at_leader),
            ("get with a leader required", read_at_leader),
            ("serializable get", own),
        ])
    }

    /// Tries every member until a write goes.
    async fn await_write(&self, part: &str) -> Result<()> {
        let begun = Instant::now();
        for nth in (0..3).cycle() {
            ensure!(begun.elapsed() < START_DEADLINE, "{part}: no write for {START_DEADLINE:?}");
            let attempt = async {
                let client = Client::connect(&self.cluster.endpoint(nth)).await.ok()?;
                put(&client, false).await.ok()
            };
            if let Ok(Some(())) = timeout(Duration::from_millis(400), attempt).await {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// One member's disk is filled by a stranger, under puts; then it is freed.
    async fn disk_full(&mut self, nth: usize) -> Result<()> {
        let stranger = self.disk.as_ref().context("a disk")?.take_all()?;
        let filled = self.fill().await?;
        println!("disk full: {filled}");
        let survivors: Vec<_> = (0..3).filter(|other| *other != nth).collect();
        let ended = self.cluster.ended();
        let expected = if filled.contains("database space exceeded") {
            Expected::Alarmed
        } else {
            Expected::Well
        };
        let mut members: Vec<_> = survivors.iter().map(|nth| (*nth, expected)).collect();
        if ended.is_empty() {
            members.push((nth, expected));
        } else {
            println!("disk full: {ended:?}");
        }
        self.expect("disk full", &members, BACK).await?;
        std::fs::remove_file(stranger)?;
        if !ended.is_empty() {
            self.cluster.kill(nth)?;
            self.cluster.launch(nth)?;
            self.cluster.await_ready(nth, START_DEADLINE)?;
        }
        let client = self.cluster.client(survivors[0]).await?;
        let listed = client.maintenance.clone().alarm(AlarmRequest::default()).await?.into_inner();
        for alarm in listed.alarms {
            let disarm = AlarmRequest {
                action: alarm_request::AlarmAction::Deactivate.into(),
                alarm: alarm.alarm,
                member_id: alarm.member_id,
            };
            client.maintenance.clone().alarm(disarm).await?;
        }
        self.await_write("disk freed").await?;
        self.all_well("disk freed").await
    }

    /// Puts until one is refused, or enough have gone for a disk to be full; what the last was told.
    async fn fill(&mut self) -> Result<String> {
        let begun = Instant::now();
        let mut serial = 0;
        while begun.elapsed() < START_DEADLINE && serial < 4000 {
            let client = Client::connect(&self.cluster.endpoint(serial % 3)).await;
            serial += 1;
            let Ok(mut client) = client else { continue };
            let request = PutRequest {
                key: format!("fill/{}", serial % 50).into(),
                value: vec![7; 64 << 10].into(),
                ..PutRequest::default()
            };
            match timeout(REQUEST_TIMEOUT, client.kv.put(request)).await {
                Ok(Err(status)) if status.code() == Code::ResourceExhausted => {
                    return Ok(format!("put {serial}: {}", status.message()));
                }
                Ok(Ok(_) | Err(_)) | Err(_) => {}
            }
            if !self.cluster.ended().is_empty() {
                return Ok(format!("put {serial}: a member ended"));
            }
        }
        Ok(format!("{serial} puts"))
    }
}

fn is_right(path: &str, answer: &http::Answer, expected: Expected) -> bool {
    let ok = answer.status == 200;
    let unavailable = answer.status == 503;
    match (path, expected) {
        ("/livez", _) | (_, Expected::Well) | ("/readyz", Expected::Alarmed) => ok,
        ("/health", Expected::NotReady) => unavailable && answer.body.contains("RAFT NO LEADER"),
        ("/health", Expected::Alarmed) => unavailable && answer.body.contains("ALARM NOSPACE"),
        _ => unavailable && answer.body.contains("[-]linearizable_read failed"),
    }
}

/// How long it took, how long it might, and how it ended.
type Told = (Duration, Duration, Outcome);

#[derive(Debug)]
struct Outcome {
    answer: Result<(), Status>,
    serializable: bool,
}

impl Outcome {
    /// What is wrong with it, without a quorum.
    fn wrong(&self) -> Option<String> {
        match &self.answer {
            Ok(()) if self.serializable => None,
            Ok(()) => Some("answered".to_owned()),
            Err(status) => {
                let text = status.message();
                let known = text == "etcdserver: no leader"
                    || text == "etcdserver: leader changed"
                    || text.starts_with("etcdserver: request timed out");
                let known = known && status.code() == Code::Unavailable
                    // What etcd says of a write that nobody was there to take.
                    || text == "context deadline exceeded"
                        && status.code() == Code::DeadlineExceeded;
                let right = known && !self.serializable;
                (!right).then(|| format!("{:?}: {text}", status.code()))
            }
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.answer {
            Ok(()) => write!(f, "answered"),
            Err(status) => write!(f, "{:?} {:?}", status.code(), status.message()),
        }
    }
}

async fn refused(call: impl Future<Output = Result<(), Status>>, limit: Duration) -> Told {
    let asked = Instant::now();
    let answer = match timeout(2 * REQUEST_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::cancelled("no answer")),
    };
    (asked.elapsed(), limit, Outcome { answer, serializable: false })
}

fn asking<T>(message: T, leader: bool) -> Request<T> {
    let mut request = Request::new(message);
    if leader {
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    }
    request
}

async fn put(client: &Client, leader: bool) -> Result<(), Status> {
    let request = PutRequest { key: "probed".into(), ..PutRequest::default() };
    client.kv.clone().put(asking(request, leader)).await.map(|_| ())
}

async fn get(client: &Client, serializable: bool, leader: bool) -> Result<(), Status> {
    let request = RangeRequest { key: "probed".into(), serializable, ..RangeRequest::default() };
    client.kv.clone().range(asking(request, leader)).await.map(|_| ())
}
