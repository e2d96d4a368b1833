//! Short plays with two servers of their own: what needs flags, sizes or time that the script of random calls cannot have.
//!
//! **Invariant:** like the script a function of the seed, but for where a server's own sizes decide.

pub(super) mod cluster;
pub(super) mod http;
mod large;
pub(super) mod members;
pub(super) mod metrics;
mod progress;
mod space;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::allowed::explain;
use super::answer::Answer;
use super::auth::call::Who;
use super::call::{Call, Place};
use super::finding::{Finding, add_up};
use super::run::{Kinds, Run, kind_of};
use super::streams::Heard;
use super::target::Target;
use crate::member::{Workspace, panics_in};

const AGREEMENT_DEADLINE: Duration = Duration::from_secs(8);

/// What a scene came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) calls: usize,
    pub(super) findings: Vec<Finding>,
    pub(super) kinds: Kinds,
    pub(super) explained: BTreeMap<&'static str, usize>,
}

impl Played {
    pub(super) fn nothing() -> Self {
        Self { calls: 0, findings: Vec::new(), kinds: Kinds::new(), explained: BTreeMap::new() }
    }

    /// Adds what another scene came to.
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.findings.extend(other.findings);
        add_up(&mut self.kinds, other.kinds);
        add_up(&mut self.explained, other.explained);
    }
}

/// Plays the scenes that take one server of each, and tells what differed.
pub(super) async fn play(run: &Run, seed: u64) -> Result<Played> {
    let (progress, space, large) = tokio::try_join!(
        Box::pin(progress::play(run, StdRng::seed_from_u64(seed))),
        Box::pin(space::play(run, StdRng::seed_from_u64(seed))),
        Box::pin(large::play(run, StdRng::seed_from_u64(seed))),
    )?;
    let mut all = Played::nothing();
    for scene in [progress, space, large] {
        all.add(scene);
    }
    Ok(all)
}

/// The two servers of a scene, and what was found.
pub(super) struct Stage<'a> {
    name: &'static str,
    pub(super) run: &'a Run,
    pub(super) ours: Target,
    pub(super) theirs: Target,
    workspace: Workspace,
    pub(super) asked: usize,
    /// The oracle's revision, and that of its last compaction.
    place: Place,
    /// Revisions differ, or etcd says nothing any more: all that follows differs too.
    diverged: bool,
    /// The longest that a call took: one server may count a lease from so much later.
    slowest: Duration,
    kinds: Kinds,
    explained: BTreeMap<&'static str, usize>,
    findings: Vec<Finding>,
}

impl<'a> Stage<'a> {
    async fn open(
        name: &'static str,
        run: &'a Run,
        ours: &[String],
        theirs: &[String],
    ) -> Result<Self> {
        let workspace = Workspace::create(name)?;
        let (ours, theirs) = tokio::try_join!(
            Target::start(&run.ours, workspace.path(), "ours", None, ours),
            Target::start(&run.etcd, workspace.path(), "etcd", Some(run.release), theirs),
        )?;
        Ok(Self::of(name, run, workspace, ours, theirs))
    }

    /// The same flags for both, and no watch streams.
    pub(super) async fn open_quiet(
        name: &'static str,
        run: &'a Run,
        flags: &[String],
    ) -> Result<Self> {
        let workspace = Workspace::create(name)?;
        let (ours, theirs) = tokio::try_join!(
            Target::start_quiet(&run.ours, workspace.path(), "ours", None, flags),
            Target::start_quiet(&run.etcd, workspace.path(), "etcd", Some(run.release), flags),
        )?;
        Ok(Self::of(name, run, workspace, ours, theirs))
    }

    fn of(
        name: &'static str,
        run: &'a Run,
        workspace: Workspace,
        ours: Target,
        theirs: Target,
    ) -> Self {
        Self {
            name,
            run,
            ours,
            theirs,
            workspace,
            asked: 0,
            place: Place { current: 1, compacted: 0 },
            diverged: false,
            slowest: Duration::ZERO,
            kinds: Kinds::new(),
            explained: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    /// Makes the call at both as somebody, with real revisions in it, and compares, that of the store too.
    pub(super) async fn ask_as(&mut self, who: &Who, call: Call) {
        let call = call.at(self.place);
        let begun = Instant::now();
        let (ours, theirs) = tokio::join!(
            self.ours.call_as(who, call.clone()),
            self.theirs.call_as(who, call.clone())
        );
        if !matches!(call, Call::Expire(_)) {
            self.slowest = self.slowest.max(begun.elapsed());
        }
        self.diverged |= matches!(theirs, Answer::Silent(_));
        if let (Some(ours), Some(theirs)) = (ours.revision(), theirs.revision()) {
            self.diverged |= ours != theirs;
            self.place.current = self.place.current.max(theirs);
        }
        if let (Call::Compact(request), Answer::Compact(_)) = (&call, &theirs) {
            self.place.compacted = request.revision;
        }
        *self.kinds.entry(kind_of(&theirs)).or_default() += 1;
        let read = |answer: Answer| answer.masked().with_leases_sorted();
        self.compare_as(&format!("by {who:?}"), &call, read(ours), read(theirs));
    }

    /// Nothing more is to be learnt from what follows.
    pub(super) fn is_over(&self) -> bool {
        self.diverged || self.findings.len() >= 2 * self.run.max_findings
    }

    /// Makes the call at both and compares; etcd's answer.
    pub(super) async fn ask(&mut self, call: Call) -> Answer {
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        self.compare(&call, ours.masked(), theirs.masked())
    }

    /// The same for two servers that are not at the same revision.
    pub(super) async fn ask_apart(&mut self, call: Call) {
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        let (ours, theirs) = (ours.masked().without_revision(), theirs.masked().without_revision());
        self.compare(&call, ours, theirs);
    }

    pub(super) fn compare(&mut self, call: &Call, ours: Answer, theirs: Answer) -> Answer {
        self.compare_as("", call, ours, theirs)
    }

    /// `how` a call was made is told with a finding.
    fn compare_as(&mut self, how: &str, call: &Call, ours: Answer, theirs: Answer) -> Answer {
        self.asked += 1;
        let release = self.run.release;
        let (ours, theirs) = (release.read(ours), release.read(theirs));
        if ours.agrees_with(&theirs, self.slowest) {
            return theirs;
        }
        if let Some(row) = explain(release, call, &ours, &theirs) {
            self.explain(row.name);
            return theirs;
        }
        let scene = Some(format!("    scene {} {how}", self.name));
        self.findings.push(Finding::answers(self.asked, call, &ours, &theirs, scene));
        theirs
    }

    /// Counts a difference that a row of the table names.
    pub(super) fn explain(&mut self, row: &'static str) {
        *self.explained.entry(row).or_default() += 1;
    }

    pub(super) fn count(&mut self, kind: String) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    pub(super) fn fault(&mut self, what: String) {
        self.findings.push(Finding::fault(self.asked, format!("scene {}: {what}", self.name)));
    }

    /// Waits until both have heard the same on a stream, as `seen` makes it comparable.
    async fn agree_on(&mut self, stream: usize, seen: impl Fn(Heard) -> Heard) {
        let deadline = Instant::now() + AGREEMENT_DEADLINE;
        loop {
            let ours = seen(self.ours.streams[stream].heard());
            let theirs = seen(self.theirs.streams[stream].heard());
            if ours == theirs && ours.violations.is_empty() {
                return;
            }
            if Instant::now() > deadline || !ours.violations.is_empty() {
                for violation in &ours.violations {
                    self.fault(violation.clone());
                }
                self.findings.push(Finding::streams(self.asked, stream, &ours, &theirs));
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops both servers; without findings nothing is kept.
    pub(super) fn close(self) -> Result<Played> {
        let Self { name, ours, theirs, workspace, asked, kinds, explained, mut findings, .. } =
            self;
        let log = ours.log().to_owned();
        drop((ours, theirs));
        for line in panics_in(&log)? {
            findings.push(Finding::fault(0, format!("scene {name}: panic: {line}")));
        }
        if findings.is_empty() {
            workspace.discard()?;
        }
        Ok(Played { calls: asked, findings, kinds, explained })
    }
}
