//! Plays one script against both servers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::allowed::{self, Release, explain};
use super::answer::Answer;
use super::call::{Call, OWN_MEMBER, Place};
use super::crowd;
use super::finding::{Finding, Outcome};
use super::scenes::http::metrics_that_differ;
use super::scenes::metrics::names_that_differ;
use super::target::Target;
use crate::member::{Workspace, panics_in};
use crate::pb::etcdserverpb::{AlarmRequest, CompactionRequest};

const SETTLE_DEADLINE: Duration = Duration::from_secs(6);
/// Calls shown before one that told of another revision.
const RECENT: usize = 3;
/// For an answer that was sent before others already heard.
const PROGRESS_DEADLINE: Duration = Duration::from_millis(60);

/// What a script is played against.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) ours: PathBuf,
    pub(super) etcd: PathBuf,
    pub(super) release: Release,
    pub(super) max_findings: usize,
}

/// The two servers in the middle of a script.
struct Pair<'a> {
    run: &'a Run,
    ours: Target,
    theirs: Target,
    /// The oracle's revision.
    current: i64,
    /// A watcher was made that has a past to catch up with.
    catching_up: bool,
    diverged: bool,
    /// Leases that began together are listed in any order from then on.
    restarted: bool,
    /// The longest that a call took: one server may count a lease from so much later.
    slowest: Duration,
    /// The revision of the last compaction.
    compacted: Option<i64>,
    /// The latest calls with the oracle's answers, for a finding that only shows later.
    recent: VecDeque<(usize, Call, Answer)>,
    outcome: Outcome,
}

impl Run {
    pub(super) fn new(ours: &Path, etcd: &Path, release: Release, max_findings: usize) -> Self {
        Self { ours: ours.to_owned(), etcd: etcd.to_owned(), release, max_findings }
    }

    /// Starts both servers on empty directories, plays the script, then the crowd's, and stops them.
    pub(super) async fn play(&self, script: &[Call], crowd: &[Vec<Call>]) -> Result<Outcome> {
        let workspace = Workspace::create("differential")?;
        let (ours, theirs) = tokio::try_join!(
            Target::start(&self.ours, workspace.path(), "ours", None, &[]),
            Target::start(&self.etcd, workspace.path(), "etcd", Some(self.release), &[]),
        )?;
        let mut pair = Pair {
            run: self,
            ours,
            theirs,
            current: 1,
            catching_up: false,
            diverged: false,
            restarted: false,
            slowest: Duration::ZERO,
            compacted: None,
            recent: VecDeque::new(),
            outcome: Outcome::default(),
        };
        for (index, call) in script.iter().enumerate() {
            pair.step(index, call.clone()).await;
            if pair.diverged || pair.outcome.findings.len() >= self.max_findings {
                break;
            }
        }
        if !pair.diverged {
            let end = script.len();
            pair.step(end, Call::WatchSettle).await;
            pair.step(end, Call::HashKv(0)).await;
            pair.metrics(end).await?;
            let crowd_findings = crowd::play(&mut pair.ours, &mut pair.theirs, crowd).await;
            pair.outcome.calls += crowd.iter().map(Vec::len).sum::<usize>();
            pair.outcome.findings.extend(crowd_findings);
        }
        let mut outcome = pair.outcome;
        let log = pair.ours.log().to_owned();
        drop((pair.ours, pair.theirs));
        for line in panics_in(&log)? {
            outcome.findings.push(Finding::fault(script.len(), format!("panic: {line}")));
        }
        if outcome.findings.is_empty() {
            workspace.discard()?;
        }
        Ok(outcome)
    }
}

impl Pair<'_> {
    async fn step(&mut self, index: usize, call: Call) {
        let place = Place { current: self.current, compacted: self.compacted.unwrap_or_default() };
        let mut call = call.at(place);
        if let Call::WatchCreate(_, request) = &mut call
            && !self.run.release.dialect().keeps_last_tombstone
            && self.compacted == Some(request.start_revision)
        {
            request.start_revision += 1;
        }
        self.outcome.calls += 1;
        match &call {
            Call::WatchSettle => return self.settle(index).await,
            Call::WatchProgress(stream) => {
                let stream = *stream;
                self.settle(index).await;
                return self.progress(index, stream).await;
            }
            Call::Compact(_)
            | Call::Burst(_)
            | Call::WatchCancel(..)
            | Call::WatchReopen(_)
            | Call::Restart => self.settle(index).await,
            Call::RangeStream(request) if !self.run.release.streams(request) => {
                *self.outcome.explained.entry(allowed::STREAM).or_default() += 1;
            }
            Call::WatchCreate(_, request) => {
                let start = request.start_revision;
                self.catching_up |= start > 0 && start <= self.current;
            }
            Call::HashKv(_)
                if self.compacted.is_some() && !self.run.release.dialect().keeps_last_tombstone =>
            {
                return;
            }
            _ => {}
        }
        if self.diverged {
            return;
        }
        let begun = Instant::now();
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        if !matches!(call, Call::Expire(_)) {
            self.slowest = self.slowest.max(begun.elapsed());
        }
        self.compare(index, &call, ours, theirs);
        if matches!(call, Call::Burst(_)) {
            self.compact_all(index).await;
        }
    }

    /// Compares what was counted of the calls so far.
    async fn metrics(&mut self, index: usize) -> Result<()> {
        if !self.run.release.speaks_our_http() {
            return Ok(());
        }
        let ports = (self.ours.port(), self.theirs.port());
        let mut differ = metrics_that_differ(ports.0, ports.1).await?;
        // Under an alarm, and once it was taken back.
        for action in [1, 2] {
            let alarm = AlarmRequest { action, member_id: OWN_MEMBER, alarm: 1 };
            self.step(index, Call::Alarm(alarm)).await;
            for name in names_that_differ(ports.0, ports.1).await? {
                if !differ.contains(&name) {
                    differ.push(name);
                }
            }
        }
        self.outcome.findings.extend(differ.into_iter().map(|what| Finding::fault(index, what)));
        Ok(())
    }

    /// Compacts at the current revision, once every watcher has heard of it.
    async fn compact_all(&mut self, index: usize) {
        self.settle(index).await;
        let compact = CompactionRequest { revision: self.current, physical: true };
        let call = Call::Compact(compact);
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        self.compare(index, &call, ours, theirs);
    }

    fn compare(&mut self, index: usize, call: &Call, ours: Answer, theirs: Answer) {
        let (ours_at, theirs_at) = (ours.revision(), theirs.revision());
        self.current = self.current.max(theirs_at.unwrap_or(0));
        let release = self.run.release;
        self.restarted |= *call == Call::Restart;
        let read = |answer: Answer| {
            let answer = release.read(answer.masked());
            if self.restarted { answer.with_leases_sorted() } else { answer }
        };
        let (ours, theirs) = (read(ours), read(theirs));
        if let (Call::Compact(request), Answer::Compact(_)) = (call, &theirs) {
            self.compacted = Some(request.revision);
        }
        *self.outcome.kinds.entry(kind_of(&theirs)).or_default() += 1;
        if ours.agrees_with(&theirs, self.slowest) {
            self.recent.push_back((index, call.clone(), theirs));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            return;
        }
        if let Some(row) = explain(self.run.release, call, &ours, &theirs) {
            *self.outcome.explained.entry(row.name).or_default() += 1;
            return;
        }
        self.diverged |= match (ours_at, theirs_at) {
            (Some(ours), Some(theirs)) => ours != theirs,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => !call.only_reads(),
        };
        let briefly =
            self.recent.iter().map(|(index, call, answer)| Finding::brief(*index, call, answer));
        let recent = self.diverged.then(|| briefly.collect::<Vec<_>>().join("\n"));
        let finding = Finding::answers(index, call, &ours, &theirs, recent);
        self.outcome.findings.push(finding);
    }

    /// Waits until both servers' watchers have heard everything, and compares what they heard.
    async fn settle(&mut self, index: usize) {
        if std::mem::take(&mut self.catching_up) {
            let (ours, theirs) = tokio::join!(self.ours.catch_up(), self.theirs.catch_up());
            self.compare(index, &Call::WatchSettle, ours, theirs);
        }
        let (ours, theirs) = tokio::join!(self.ours.settle(), self.theirs.settle());
        self.compare(index, &Call::WatchSettle, ours, theirs);
        let deadline = Instant::now() + SETTLE_DEADLINE;
        for stream in 0..self.ours.streams.len() {
            self.settle_stream(index, stream, deadline).await;
        }
    }

    async fn settle_stream(&mut self, index: usize, stream: usize, deadline: Instant) {
        let (ours, theirs) = (&self.ours.streams[stream], &self.theirs.streams[stream]);
        // Equal once is enough: what comes later is compared at the next settling.
        let agreed = loop {
            if ours.agrees_with(theirs) {
                break true;
            }
            if Instant::now() > deadline {
                break false;
            }
            sleep(Duration::from_millis(10)).await;
        };
        let violations = ours.violations().into_iter().map(|v| format!("ours: {v}"));
        let violations =
            violations.chain(theirs.violations().into_iter().map(|v| format!("etcd: {v}")));
        for violation in violations {
            self.diverged = true;
            self.outcome.findings.push(Finding::fault(index, violation));
        }
        if !agreed {
            self.diverged = true;
            let finding = Finding::streams(index, stream, &ours.heard(), &theirs.heard());
            self.outcome.findings.push(finding);
        }
    }

    /// Asks for progress, and gives the other server time to answer once one has answered.
    async fn progress(&mut self, index: usize, stream: usize) {
        let heard = |pair: &Self| {
            (
                pair.ours.streams[stream].progress_count(),
                pair.theirs.streams[stream].progress_count(),
            )
        };
        let before = heard(self);
        let call = Call::WatchProgress(stream);
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        self.compare(index, &call, ours, theirs);
        let asked = Instant::now();
        loop {
            let (ours, theirs) = heard(self);
            let waited = asked.elapsed();
            let answered = (ours > before.0, theirs > before.1);
            let both = answered == (true, true);
            let neither = answered == (false, false) && waited > PROGRESS_DEADLINE;
            let only_theirs = answered == (false, true)
                && self.run.release.tells_progress_always()
                && waited > 2 * PROGRESS_DEADLINE;
            if both || neither || only_theirs || waited > SETTLE_DEADLINE {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        let (ours, theirs) = heard(self);
        if ours == before.0 && theirs > before.1 && self.run.release.tells_progress_always() {
            *self.outcome.explained.entry(allowed::PROGRESS).or_default() += 1;
            self.theirs.streams[stream].forget_progress();
        }
        self.settle(index).await;
    }
}

/// For the summary: how many answers of each kind there were, so that a script that only collects errors shows.
pub(super) fn kind_of(answer: &Answer) -> String {
    match answer {
        Answer::Refused { code, text } => format!("{code}: {text}"),
        other => other.name().to_owned(),
    }
}

/// How often each kind came.
pub(super) type Kinds = BTreeMap<String, usize>;
