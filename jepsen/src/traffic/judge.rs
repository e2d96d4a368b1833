//! Holds what clients were told against the history that a member tells in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::leases::Held;
use super::linear::{self, Outcome};
use super::puts::{COUNTERS, Increments, Puts, Rewrites, Sent, counter_key};
use super::registers::{Moves, OBJECTS};
use super::revisions::{Past, Timed, goes_forward};
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
pub(crate) struct Told {
    pub(crate) puts: Vec<Puts>,
    pub(crate) counters: Vec<Increments>,
    pub(crate) rewrites: Vec<Rewrites>,
    pub(crate) registers: Vec<Moves>,
    pub(crate) leases: Vec<Held>,
    pub(crate) watchers: Vec<Seen>,
}

/// How much was checked.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) writes: u64,
    open: u64,
    increments: u64,
    events: usize,
    resumes: u64,
    leases: u64,
    renewals: u64,
    looks: u64,
    moves: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged writes {} ({} increments), open {}, operations on registers {}, watched events {} over {} streams, leases {} with {} renewals and {} looks",
            self.writes,
            self.increments,
            self.open,
            self.moves,
            self.events,
            self.resumes,
            self.leases,
            self.renewals,
            self.looks
        )
    }
}

/// The state and the history as a member tells them.
pub(crate) struct Truth {
    pub(crate) revision: i64,
    pub(crate) state: BTreeMap<Bytes, KeyValue>,
    pub(crate) history: Vec<Seen1>,
}

/// Asks the member for the truth, and holds what was told against it.
pub(crate) async fn judge(client: &Client, told: &Told) -> Result<(Vec<String>, Summary)> {
    leases_gone(client, told).await?;
    Ok(judge_by(&truth(client).await?, told))
}

/// Holds what was told against the truth.
pub(crate) fn judge_by(truth: &Truth, told: &Told) -> (Vec<String>, Summary) {
    let mut findings = Vec::new();
    let mut summary = Summary::default();
    for puts in &told.puts {
        written_once(truth, &puts.0, &mut findings, &mut summary);
    }
    for increments in &told.counters {
        written_once(truth, &increments.0, &mut findings, &mut summary);
        summary.increments +=
            increments.0.iter().filter(|s| s.acknowledged.is_some()).count() as u64;
    }
    counters_add_up(truth, &mut findings);
    for rewrites in &told.rewrites {
        versions_count_writes(truth, rewrites, &mut findings, &mut summary);
    }
    history_explains_state(truth, &mut findings);
    for seen in &told.watchers {
        heard_everything(truth, seen, &mut findings);
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
    summary.moves = told.registers.iter().map(|moves| moves.moves.len()).sum();
    registers_linearize(&told.registers, &mut findings);
    let past = Past::of(&truth.history);
    for moves in &told.registers {
        past.explains(moves, &mut findings);
    }
    goes_forward(&timed(told), &mut findings);
    findings.truncate(FINDINGS_MAX);
    (findings, summary)
}

/// Each object of registers by itself.
fn registers_linearize(told: &[Moves], findings: &mut Vec<String>) {
    for object in 0..OBJECTS {
        let moves = told.iter().flat_map(|moves| &moves.moves);
        let steps: Vec<_> = moves
            .filter(|one| one.object == object && !one.serializable)
            .map(|one| one.step.clone())
            .collect();
        match linear::check(&steps) {
            Outcome::Linearizable => {}
            Outcome::Not(why) => findings.push(format!("object {object} not linearizable: {why}")),
            Outcome::GaveUp => findings.push(format!("object {object}: too much to search")),
        }
    }
}

/// Every answered operation that must not be stale.
fn timed(told: &Told) -> Vec<Timed> {
    let sent = told.puts.iter().map(|puts| &puts.0).chain(told.counters.iter().map(|c| &c.0));
    let sent = sent.flatten().filter_map(|sent| {
        let revision = sent.acknowledged?;
        let (invoked, returned, what) = (sent.invoked, sent.returned, sent.key.clone());
        Some(Timed { invoked, returned, revision, wrote: true, what })
    });
    let moves = told.registers.iter().flat_map(|moves| &moves.moves);
    let moves = moves.filter(|one| !one.serializable).filter_map(|one| {
        Some(Timed {
            invoked: one.step.invoked,
            returned: one.step.returned?,
            revision: one.revision?,
            wrote: !one.step.wrote.is_empty(),
            what: format!("{:?} at object {}", one.step.wrote, one.object),
        })
    });
    sent.chain(moves).collect()
}

pub(crate) async fn leases_gone(client: &Client, told: &Told) -> Result<()> {
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

pub(crate) async fn truth(client: &Client) -> Result<Truth> {
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
    let mut everything =
        Everything::from(client, 1, false).await.context("no watch for the history")?;
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
    let state: BTreeMap<_, _> =
        truth.state.iter().map(|(key, kv)| (key.clone(), (kv.mod_revision, kv.version))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, revision: i64, version: i64) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            create_revision: revision,
            mod_revision: revision,
            version,
            ..KeyValue::default()
        }
    }

    fn event(key: &str, revision: i64, version: i64) -> Seen1 {
        Seen1 {
            revision,
            key: Bytes::copy_from_slice(key.as_bytes()),
            deleted: false,
            version,
            value_sum: 0,
        }
    }

    fn truth(keys: &[(&str, i64, i64)]) -> Truth {
        let state =
            keys.iter().map(|(k, r, v)| (Bytes::copy_from_slice(k.as_bytes()), kv(k, *r, *v)));
        Truth {
            revision: keys.last().map_or(1, |(_, r, _)| *r),
            state: state.collect(),
            history: keys.iter().map(|(k, r, v)| event(k, *r, *v)).collect(),
        }
    }

    fn sent(key: &str, acknowledged: Option<i64>) -> Sent {
        Sent { key: key.to_owned(), acknowledged, ..Sent::default() }
    }

    fn once(truth: &Truth, sent: &Sent) -> Vec<String> {
        let mut findings = Vec::new();
        written_once(truth, std::slice::from_ref(sent), &mut findings, &mut Summary::default());
        findings
    }

    #[test]
    fn an_acknowledged_write_must_be_there_and_an_open_one_may() {
        let truth = truth(&[("a", 2, 1)]);
        assert!(once(&truth, &sent("a", Some(2))).is_empty());
        assert!(once(&truth, &sent("a", None)).is_empty());
        assert!(once(&truth, &sent("b", None)).is_empty());
        assert!(once(&truth, &sent("b", Some(3)))[0].starts_with("lost"));
    }

    #[test]
    fn a_write_applied_twice_or_moved_is_found() {
        assert!(once(&truth(&[("a", 2, 2)]), &sent("a", None))[0].starts_with("applied twice"));
        assert!(once(&truth(&[("a", 3, 1)]), &sent("a", Some(2)))[0].starts_with("moved"));
    }

    #[test]
    fn a_counter_without_its_markers_is_found() {
        let mut truth = truth(&[("marker/0/1/000000", 2, 1)]);
        let mut counter = kv("counter/0", 2, 1);
        counter.value = Bytes::from_static(b"2");
        truth.state.insert(counter.key.clone(), counter);
        let mut findings = Vec::new();
        counters_add_up(&truth, &mut findings);
        assert_eq!(findings, ["counter 0 is 2 with 1 markers"]);
    }

    #[test]
    fn a_version_beyond_the_writes_sent_is_found() {
        let rewrites = Rewrites { key: "rewrite/0".to_owned(), acknowledged: vec![2], open: 1 };
        for (version, findings_expected) in [(1, 0), (2, 0), (3, 1)] {
            let mut truth = truth(&[("rewrite/0", 2, version)]);
            truth.state.insert("rewrite/0".into(), kv("rewrite/0", 2, version));
            let mut findings = Vec::new();
            versions_count_writes(&truth, &rewrites, &mut findings, &mut Summary::default());
            assert_eq!(findings.len(), findings_expected, "version {version}: {findings:?}");
        }
    }

    #[test]
    fn a_watcher_that_missed_or_repeated_an_event_is_found() {
        let truth = truth(&[("a", 2, 1), ("b", 3, 1), ("c", 4, 1)]);
        let heard = |events: Vec<Seen1>| {
            let seen = Seen { events, ..Seen::default() };
            let mut findings = Vec::new();
            heard_everything(&truth, &seen, &mut findings);
            findings.len()
        };
        assert_eq!(heard(truth.history.clone()), 0);
        assert_eq!(heard(truth.history[..2].to_vec()), 0);
        assert_eq!(heard(vec![truth.history[0].clone(), truth.history[2].clone()]), 1);
        assert_eq!(heard(vec![truth.history[0].clone(), truth.history[0].clone()]), 1);
    }

    #[test]
    fn a_history_with_a_hole_is_found() {
        let mut findings = Vec::new();
        history_explains_state(&truth(&[("a", 2, 1), ("b", 4, 1)]), &mut findings);
        assert_eq!(findings, ["history: revision 4 after 2"]);
    }
}
