//! Holds what clients were told against the history the member tells after its last restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::leases::Held;
use super::load::{COUNTERS, Increments, Puts, Rewrites, Sent, counter_key};
use super::watchers::{Everything, Seen, Seen1};
use crate::client::Client;
use crate::pb::etcdserverpb::RangeRequest;
use crate::pb::mvccpb::KeyValue;

const PAGE: i64 = 2000;
/// An abandoned lease of six seconds is gone by then, also after a restart gave it its full time again.
const LEASES_GONE: Duration = Duration::from_secs(30);
const FINDINGS_MAX: usize = 25;

/// What every client was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) puts: Vec<Puts>,
    pub(super) counters: Vec<Increments>,
    pub(super) rewrites: Vec<Rewrites>,
    pub(super) leases: Vec<Held>,
    pub(super) watchers: Vec<Seen>,
}

/// How much was checked.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) writes: u64,
    open: u64,
    increments: u64,
    events: usize,
    resumes: u64,
    leases: u64,
    renewals: u64,
    looks: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged writes {} ({} increments), open {}, watched events {} over {} streams, leases {} with {} renewals and {} looks",
            self.writes,
            self.increments,
            self.open,
            self.events,
            self.resumes,
            self.leases,
            self.renewals,
            self.looks
        )
    }
}

/// The state and the history as the member tells them.
struct Truth {
    revision: i64,
    state: BTreeMap<Bytes, KeyValue>,
    history: Vec<Seen1>,
}

pub(super) async fn judge(client: &Client, told: &Told) -> Result<(Vec<String>, Summary)> {
    leases_gone(client, told).await?;
    let truth = truth(client).await?;
    let mut findings = Vec::new();
    let mut summary = Summary::default();
    for puts in &told.puts {
        written_once(&truth, &puts.0, &mut findings, &mut summary);
    }
    for increments in &told.counters {
        written_once(&truth, &increments.0, &mut findings, &mut summary);
        summary.increments += increments.0.iter().filter(|s| s.acknowledged.is_some()).count() as u64;
    }
    counters_add_up(&truth, &mut findings);
    for rewrites in &told.rewrites {
        versions_count_writes(&truth, rewrites, &mut findings, &mut summary);
    }
    history_explains_state(&truth, &mut findings);
    for seen in &told.watchers {
        heard_everything(&truth, seen, &mut findings);
        summary.events += seen.events.len();
        summary.resumes += seen.resumes;
    }
    for held in &told.leases {
        findings.extend(held.early.iter().cloned());
        for key in &held.abandoned {
            if truth.state.contains_key(key.as_bytes()) {
                findings.push(format!("{key}: still there {LEASES_GONE:?} after the load ended"));
            }
        }
        summary.leases += held.leases;
        summary.renewals += held.renewals;
        summary.looks += held.looks;
    }
    findings.truncate(FINDINGS_MAX);
    Ok((findings, summary))
}

async fn leases_gone(client: &Client, told: &Told) -> Result<()> {
    let any = told.leases.iter().any(|held| !held.abandoned.is_empty());
    let begun = Instant::now();
    while any && begun.elapsed() < LEASES_GONE {
        let request = RangeRequest {
            key: Bytes::from_static(b"lease/"),
            range_end: Bytes::from_static(b"lease0"),
            count_only: true,
            ..RangeRequest::default()
        };
        if client.clone().kv.range(request).await?.get_ref().count == 0 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn truth(client: &Client) -> Result<Truth> {
    let mut client = client.clone();
    let mut state = BTreeMap::new();
    let mut revision = 0;
    let mut from = Bytes::from_static(b"\0");
    loop {
        let request = RangeRequest {
            key: from.clone(),
            range_end: Bytes::from_static(b"\0"),
            limit: PAGE,
            revision,
            ..RangeRequest::default()
        };
        let page = client.kv.range(request).await?.into_inner();
        if revision == 0 {
            revision = page.header.context("a range has a header")?.revision;
        }
        let Some(last) = page.kvs.last() else { break };
        from = [last.key.as_ref(), b"\0"].concat().into();
        for kv in page.kvs {
            state.insert(kv.key.clone(), kv);
        }
        if !page.more {
            break;
        }
    }
    let history = history(&mut client, revision).await?;
    Ok(Truth { revision, state, history })
}

async fn history(client: &mut Client, revision: i64) -> Result<Vec<Seen1>> {
    let mut everything = Everything::from(client, 1, false)
        .await
        .context("no watch for the history")?;
    let mut history = Vec::new();
    while history.last().map_or(1, |e: &Seen1| e.revision) < revision {
        let response = timeout(Duration::from_secs(10), everything.next())
            .await
            .with_context(|| format!("the history stopped below {revision}"))?
            .context("the history's watch broke")?;
        ensure!(!response.canceled, "the history's watch was cancelled");
        history.extend(response.events.into_iter().map(Seen1::from));
    }
    Ok(history)
}

/// Unique keys: acknowledged ones are there as written, others once or not at all.
fn written_once(truth: &Truth, sent: &[Sent], findings: &mut Vec<String>, summary: &mut Summary) {
    for write in sent {
        let found = truth.state.get(write.key.as_bytes());
        match (write.acknowledged, found) {
            (Some(revision), None) => {
                findings.push(format!("lost: {} acknowledged at {revision}", write.key));
            }
            (Some(revision), Some(kv)) if kv.mod_revision != revision => findings.push(format!(
                "moved: {} acknowledged at {revision}, is at {}",
                write.key, kv.mod_revision
            )),
            (_, Some(kv)) if kv.version != 1 => {
                findings.push(format!("applied twice: {} has version {}", write.key, kv.version));
            }
            (_, Some(kv)) if kv.value != write.value => {
                findings.push(format!("changed: {} has another value", write.key));
            }
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        match write.acknowledged {
            Some(_) => summary.writes += 1,
            None => summary.open += 1,
        }
    }
}

/// Each counter is worth as much as it has markers.
fn counters_add_up(truth: &Truth, findings: &mut Vec<String>) {
    for counter in 0..COUNTERS {
        let value = truth.state.get(counter_key(counter).as_bytes());
        let value = value.map_or(0, |kv| {
            String::from_utf8_lossy(&kv.value).parse::<usize>().unwrap_or(usize::MAX)
        });
        let prefix = format!("marker/{counter}/");
        let markers = truth.state.keys().filter(|k| k.starts_with(prefix.as_bytes())).count();
        if value != markers {
            findings.push(format!("counter {counter} is {value} with {markers} markers"));
        }
    }
}

fn versions_count_writes(
    truth: &Truth,
    rewrites: &Rewrites,
    findings: &mut Vec<String>,
    summary: &mut Summary,
) {
    let version = truth.state.get(rewrites.key.as_bytes()).map_or(0, |kv| kv.version);
    let least = rewrites.acknowledged.len() as i64;
    summary.writes += rewrites.acknowledged.len() as u64;
    summary.open += rewrites.open as u64;
    if !(least..=least + rewrites.open).contains(&version) {
        findings.push(format!(
            "{}: version {version} after {least} acknowledged and {} open writes",
            rewrites.key, rewrites.open
        ));
    }
    let at: BTreeSet<i64> = truth
        .history
        .iter()
        .filter(|e| e.key == rewrites.key.as_bytes())
        .map(|e| e.revision)
        .collect();
    for revision in rewrites.acknowledged.iter().filter(|r| !at.contains(r)) {
        findings.push(format!("lost: {} acknowledged at {revision}", rewrites.key));
    }
}

/// The history, replayed, gives the state; no revision is missing in it.
fn history_explains_state(truth: &Truth, findings: &mut Vec<String>) {
    let mut replayed = BTreeMap::new();
    let mut last = 1;
    for event in &truth.history {
        if event.revision > last + 1 || event.revision < last {
            findings.push(format!("history: revision {} after {last}", event.revision));
        }
        last = event.revision;
        if event.deleted {
            replayed.remove(&event.key);
        } else {
            replayed.insert(event.key.clone(), (event.revision, event.version));
        }
    }
    let state: BTreeMap<_, _> = truth
        .state
        .iter()
        .map(|(key, kv)| (key.clone(), (kv.mod_revision, kv.version)))
        .collect();
    if state != replayed {
        findings.push(format!(
            "at revision {} the state has {} keys, the history says {}, or they differ",
            truth.revision,
            state.len(),
            replayed.len()
        ));
    }
}

/// A watcher's events are the history's, up to where it stopped.
fn heard_everything(truth: &Truth, seen: &Seen, findings: &mut Vec<String>) {
    findings.extend(seen.faults.iter().cloned());
    let differs = seen.events.iter().zip(&truth.history).position(|(a, b)| a != b);
    if let Some(at) = differs {
        findings.push(format!(
            "watcher: event {at} was {:?}, history says {:?}",
            seen.events[at], truth.history[at]
        ));
    } else if seen.events.len() > truth.history.len() {
        let event = &seen.events[truth.history.len()];
        findings.push(format!("watcher: saw {event:?}, which is not in the history"));
    } else if let (Some(last), Some(next)) =
        (seen.events.last(), truth.history.get(seen.events.len()))
        && last.revision == next.revision
    {
        findings.push(format!("watcher: revision {} cut short", last.revision));
    }
}
