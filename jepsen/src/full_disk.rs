//! A disk that fills up under a member, by its own puts and by a stranger's file.
//!
//! ```text
//! tmpfs ── puts until refused ── refused again though disarmed ── deletes, compaction ── disarm ── puts
//!       ── a stranger takes all that is left, under puts ── it goes ── disarm ── puts
//!       ── SIGKILL, SIGTERM: everything acknowledged is there
//! ```
//!
//! Mounting needs root. **Invariant:** a put that was refused for want of space never happened; one whose answer was
//! lost may have.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

use crate::client::Client;
use crate::disk::Disk;
use crate::member::{Member, MemberSpec, Workspace, panics_in};
use crate::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest, alarm_request,
};
use crate::portrait::{Portrait, keys};
use crate::verdict::Verdict;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Filling the disk, or recovering, takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const VALUE_BYTES: usize = 8 << 10;
/// Puts under way at once.
const PUTS: usize = 16;
/// Keys that puts choose from.
const KEYS: usize = 20_000;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test.
    #[arg(long)]
    ours: PathBuf,
    /// Size of the disk, in MiB.
    #[arg(long, default_value_t = 96)]
    disk_mib: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The member's flags; small files, so that a small disk holds some. An empty one leaves its defaults.
    #[arg(
        long = "flag",
        allow_hyphen_values = true,
        default_values = [
            "--journal-segment-bytes=1048576",
            "--base-after-bytes=4194304",
            "--max-request-bytes=200000",
        ]
    )]
    flags: Vec<String>,
}

/// What was told of each key: value by its number, `None` deleted.
#[derive(Debug, Default)]
struct Told {
    /// By acknowledged requests.
    certain: BTreeMap<String, Option<u64>>,
    /// By requests after the last acknowledged one whose answer was lost.
    perhaps: BTreeMap<String, Vec<Option<u64>>>,
    acknowledged: u64,
    refused: u64,
    lost: u64,
}

impl Told {
    fn acknowledge(&mut self, key: String, value: Option<u64>) {
        self.perhaps.remove(&key);
        self.certain.insert(key, value);
        self.acknowledged += 1;
    }

    /// What differs from it.
    async fn check(&self, client: &Client, moment: &str) -> Result<Vec<String>> {
        let (_, found) = keys(client, 0).await?;
        let mut findings = Vec::new();
        for (key, value) in &self.certain {
            let now = found.get(key.as_bytes()).map(|kv| number(&kv.value));
            let doubts = self.perhaps.get(key).map(Vec::as_slice).unwrap_or_default();
            if now != *value && !doubts.contains(&now) {
                findings.push(format!("{moment}: {key} is {now:?}, {value:?} was acknowledged"));
            }
        }
        let known = |key: &[u8]| {
            let key = String::from_utf8_lossy(key);
            self.certain.contains_key(&*key) || self.perhaps.contains_key(&*key)
        };
        let unknown = found.keys().filter(|key| !known(key)).count();
        if unknown > 0 {
            findings.push(format!("{moment}: {unknown} keys that nobody was told of"));
        }
        findings.truncate(5);
        Ok(findings)
    }
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    StdRng::seed_from_u64(number).fill(&mut value[..]);
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// The number of a value; of one that is not whole, none that was given out.
fn number(bytes: &[u8]) -> u64 {
    let number = bytes.first_chunk::<8>().map_or(u64::MAX, |head| u64::from_be_bytes(*head));
    if bytes == value(number) { number } else { u64::MAX }
}

/// One run.
struct Trial {
    client: Client,
    told: Told,
    rng: StdRng,
    next: u64,
    findings: Vec<String>,
}

impl Trial {
    /// Puts, some at a time, until one is refused or `limit` is over; the first refusal.
    async fn put_until_refused(&mut self, limit: Duration) -> Result<Option<Status>> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.put_some(PUTS).await {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// `count` puts of different keys at once; the first refusal.
    async fn put_some(&mut self, count: usize) -> Option<Status> {
        let first = self.rng.random_range(0..KEYS);
        let puts = (0..count).map(|n| {
            let key = format!("key{:05}", (first + n) % KEYS);
            let number = self.next + n as u64;
            let mut kv = self.client.kv.clone();
            async move {
                let request = PutRequest {
                    key: key.clone().into(),
                    value: value(number).into(),
                    ..Default::default()
                };
                let answer = tokio::time::timeout(Duration::from_secs(20), kv.put(request)).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::cancelled("no answer in 20 s")));
                (key, number, answer)
            }
        });
        let answers = futures::future::join_all(puts).await;
        self.next += count as u64;
        let mut refusal = None;
        for (key, number, answer) in answers {
            match answer {
                Ok(_) => self.told.acknowledge(key, Some(number)),
                Err(status) => {
                    if status.code() == Code::ResourceExhausted {
                        self.told.refused += 1;
                    } else {
                        self.told.lost += 1;
                        self.told.perhaps.entry(key).or_default().push(Some(number));
                    }
                    refusal.get_or_insert(status);
                }
            }
        }
        refusal
    }

    fn expect_no_space(&mut self, moment: &str, refusal: Option<Status>) {
        match refusal {
            Some(status)
                if status.code() == Code::ResourceExhausted && status.message() == NO_SPACE => {}
            Some(status) => self.findings.push(format!("{moment}: refused with {status}")),
            None => self.findings.push(format!("{moment}: puts were not refused")),
        }
    }

    async fn alarms(&self) -> Result<Vec<i32>> {
        let request = AlarmRequest::default();
        let alarms = self.client.maintenance.clone().alarm(request).await?.into_inner().alarms;
        Ok(alarms.into_iter().map(|alarm| alarm.alarm).collect())
    }

    /// Each alarm by its member, as etcdctl does.
    async fn disarm(&self) -> Result<()> {
        let mut maintenance = self.client.maintenance.clone();
        let raised = maintenance.alarm(AlarmRequest::default()).await?.into_inner().alarms;
        for alarm in raised {
            let request = AlarmRequest {
                action: alarm_request::AlarmAction::Deactivate.into(),
                alarm: alarm.alarm,
                member_id: alarm.member_id,
            };
            maintenance.alarm(request).await.context("disarming")?;
        }
        Ok(())
    }

    /// Deletes nine keys of ten, then compacts to now.
    async fn free_some(&mut self, moment: &str) -> Result<()> {
        let mut kv = self.client.kv.clone();
        // By the last digit, so that every block of history keeps some.
        let held: Vec<String> = self
            .told
            .certain
            .iter()
            .filter(|(key, value)| value.is_some() && !key.ends_with('9'))
            .map(|(key, _)| key.clone())
            .collect();
        for key in held {
            let delete = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            match kv.delete_range(delete).await {
                Ok(_) => self.told.acknowledge(key, None),
                Err(status) => {
                    self.findings.push(format!("{moment}: a delete was refused: {status}"));
                    return Ok(());
                }
            }
        }
        let (revision, _) = keys(&self.client, 0).await?;
        let compaction = CompactionRequest { revision, physical: true };
        let limit = tokio::time::timeout(PATIENCE, kv.compact(compaction)).await;
        match limit {
            Ok(Ok(_)) => {}
            // A second one at the same revision.
            Ok(Err(status)) if status.message().ends_with("has been compacted") => {}
            Ok(Err(status)) => self.findings.push(format!("{moment}: no compaction: {status}")),
            Err(_) => self.findings.push(format!("{moment}: the compaction does not end")),
        }
        Ok(())
    }

    /// Disarms and puts until puts stay accepted; how long that took.
    async fn recovers(&mut self, limit: Duration) -> Result<Option<Duration>> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            self.disarm().await?;
            let mut refused = None;
            for _ in 0..3 {
                refused = refused.or(self.put_some(PUTS).await);
            }
            if refused.is_none() {
                return Ok(Some(begun.elapsed()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(None)
    }
}

/// Fills, frees, fills by a stranger, restarts, and judges.
pub(crate) async fn full_disk(options: Options) -> Result<Verdict> {
    let workspace = Workspace::create("full-disk")?;
    let disk = Disk::mount(&workspace.path().join("disk"), options.disk_mib)?;
    let mut spec = MemberSpec::single(&options.ours, workspace.path(), "member")?;
    spec.data_dir = disk.path().join("data");
    spec.extra = options.flags.iter().filter(|flag| !flag.is_empty()).cloned().collect();
    let member = start(&spec).await?;
    let mut trial = Trial {
        client: Client::connect(&spec.endpoint()).await?,
        told: Told::default(),
        rng: StdRng::seed_from_u64(options.seed),
        next: 0,
        findings: Vec::new(),
    };
    let played = play(&mut trial, &disk, &options, &spec, member).await;
    let told = &trial.told;
    println!(
        "acknowledged {}, refused {}, without an answer {}",
        told.acknowledged, told.refused, told.lost
    );
    let mut findings = trial.findings;
    if let Err(error) = played {
        findings.push(format!("it stopped answering: {error:#}"));
    }
    findings.extend(panics_in(&spec.log)?);
    drop(disk);
    if findings.is_empty() {
        workspace.discard()?;
        return Ok(Verdict::Valid);
    }
    findings.push(format!("kept: {}", workspace.path().display()));
    Ok(Verdict::Invalid(findings))
}

async fn start(spec: &MemberSpec) -> Result<Member> {
    let spec = spec.clone();
    spawn_blocking(move || spec.start(START_DEADLINE)).await?
}

async fn play(
    trial: &mut Trial,
    disk: &Disk,
    options: &Options,
    spec: &MemberSpec,
    mut member: Member,
) -> Result<()> {
    let refusal = trial.put_until_refused(PATIENCE).await?;
    println!("filled: {} puts, {} bytes free", trial.told.acknowledged, disk.free()?);
    trial.expect_no_space("full", refusal);
    let alarms = trial.alarms().await?;
    if alarms != [i32::from(AlarmType::Nospace)] {
        trial.findings.push(format!("full: alarms {alarms:?}"));
    }
    trial.disarm().await?;
    let refusal = trial.put_until_refused(Duration::from_secs(5)).await?;
    trial.expect_no_space("disarmed while full", refusal);
    let findings = trial.told.check(&trial.client, "full").await?;
    trial.findings.extend(findings);

    trial.free_some("full").await?;
    match trial.recovers(Duration::from_secs(30)).await? {
        Some(took) => {
            println!("deletes and compaction made room: {took:?}, {} bytes free", disk.free()?)
        }
        None => {
            println!("deletes and compaction made too little room: {} bytes free", disk.free()?);
            member = restart(trial, spec, member).await?;
            let again = trial.recovers(Duration::from_secs(30)).await?;
            println!("a restart: {again:?}, {} bytes free", disk.free()?);
            if again.is_none() {
                trial.findings.push("a restart made no room either".to_owned());
            }
            disk.grow(options.disk_mib * 2)?;
            match trial.recovers(PATIENCE).await? {
                Some(took) => println!("a bigger disk did: {took:?}"),
                None => trial.findings.push("a bigger disk did not help".to_owned()),
            }
        }
    }

    let member = stranger(trial, disk, spec, member).await?;
    let findings = trial.told.check(&trial.client, "recovered").await?;
    trial.findings.extend(findings);
    restarts(trial, spec, member).await
}

/// All that is left is taken while puts go on; then it is given back. A member may end of it, if it says so, and
/// comes back once there is room.
async fn stranger(
    trial: &mut Trial,
    disk: &Disk,
    spec: &MemberSpec,
    member: Member,
) -> Result<Member> {
    let file = disk.take_all()?;
    let begun = Instant::now();
    let mut refusal = None;
    while begun.elapsed() < Duration::from_secs(10) {
        refusal = trial.put_some(PUTS).await.or(refusal);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = panics_in(&spec.log)?.into_iter().find(|line| line.contains("\"level\":\"fatal\""));
    match &ended {
        Some(line) => trial.findings.push(format!("a stranger's file ended the member: {line}")),
        None => trial.expect_no_space("a stranger's file", refusal),
    }
    if ended.is_none() {
        trial.free_some("a stranger's file").await?;
    }
    fs::remove_file(file)?;
    let member = if ended.is_some() {
        drop(member);
        let member = start(spec).await?;
        trial.client = Client::connect(&spec.endpoint()).await?;
        member
    } else {
        member
    };
    match trial.recovers(PATIENCE).await? {
        Some(took) => println!("the stranger's file went: {took:?}"),
        None => trial.findings.push("puts stay refused though the stranger's file went".to_owned()),
    }
    Ok(member)
}

/// SIGTERM, and another start.
async fn restart(trial: &mut Trial, spec: &MemberSpec, member: Member) -> Result<Member> {
    let (_, status) = spawn_blocking(move || member.stop(Duration::from_secs(30))).await??;
    if !status.success() {
        trial.findings.push(format!("SIGTERM: {status}"));
    }
    let member = start(spec).await?;
    trial.client = Client::connect(&spec.endpoint()).await?;
    Ok(member)
}

async fn restarts(trial: &mut Trial, spec: &MemberSpec, member: Member) -> Result<()> {
    let before = Portrait::of(&trial.client, &[]).await?;
    spawn_blocking(move || member.kill()).await??;
    let member = start(spec).await?;
    trial.client = Client::connect(&spec.endpoint()).await?;
    let killed = Portrait::of(&trial.client, &[]).await?;
    trial.findings.extend(before.difference(&killed).map(|text| format!("after SIGKILL: {text}")));
    let member = restart(trial, spec, member).await?;
    let stopped = Portrait::of(&trial.client, &[]).await?;
    trial.findings.extend(before.difference(&stopped).map(|text| format!("after SIGTERM: {text}")));
    let findings = trial.told.check(&trial.client, "restarted").await?;
    trial.findings.extend(findings);
    drop(member);
    Ok(())
}
