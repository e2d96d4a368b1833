//! Short plays with two servers of their own: what needs flags, sizes or time that the script of random calls cannot have.
//!
//! **Invariant:** like the script a function of the seed, but for where a server's own sizes decide.

pub(super) mod http;
mod large;
mod progress;
mod space;
mod wire;

use std::time::Duration;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::allowed::explain;
use super::answer::Answer;
use super::call::Call;
use super::finding::Finding;
use super::run::Run;
use super::streams::Heard;
use super::target::Target;
use crate::member::{Workspace, panics_in};

const AGREEMENT_DEADLINE: Duration = Duration::from_secs(8);

/// What a scene came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) calls: usize,
    pub(super) findings: Vec<Finding>,
}

/// Plays every scene, and tells what differed.
pub(super) async fn play(run: &Run, seed: u64) -> Result<Played> {
    let (progress, space, large) = tokio::try_join!(
        Box::pin(progress::play(run, StdRng::seed_from_u64(seed))),
        Box::pin(space::play(run, StdRng::seed_from_u64(seed))),
        Box::pin(large::play(run, StdRng::seed_from_u64(seed))),
    )?;
    let mut all = Played { calls: 0, findings: Vec::new() };
    for scene in [progress, space, large] {
        all.calls += scene.calls;
        all.findings.extend(scene.findings);
    }
    Ok(all)
}

/// The two servers of a scene, and what was found.
struct Stage<'a> {
    name: &'static str,
    run: &'a Run,
    ours: Target,
    theirs: Target,
    workspace: Workspace,
    asked: usize,
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
        Ok(Self { name, run, ours, theirs, workspace, asked: 0, findings: Vec::new() })
    }

    /// Makes the call at both and compares; etcd's answer.
    async fn ask(&mut self, call: Call) -> Answer {
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        self.compare(&call, ours.masked(), theirs.masked())
    }

    /// The same for two servers that are not at the same revision.
    async fn ask_apart(&mut self, call: Call) {
        let (ours, theirs) =
            tokio::join!(self.ours.call(call.clone()), self.theirs.call(call.clone()));
        let (ours, theirs) = (ours.masked().without_revision(), theirs.masked().without_revision());
        self.compare(&call, ours, theirs);
    }

    fn compare(&mut self, call: &Call, ours: Answer, theirs: Answer) -> Answer {
        self.asked += 1;
        let release = self.run.release;
        let (ours, theirs) = (release.read(ours), release.read(theirs));
        if !ours.agrees_with(&theirs, Duration::ZERO)
            && explain(release, call, &ours, &theirs).is_none()
        {
            let scene = Some(format!("    scene {}", self.name));
            self.findings.push(Finding::answers(self.asked, call, &ours, &theirs, scene));
        }
        theirs
    }

    fn fault(&mut self, what: String) {
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
    fn close(self) -> Result<Played> {
        let Self { name, ours, theirs, workspace, asked, mut findings, .. } = self;
        let log = ours.log().to_owned();
        drop((ours, theirs));
        for line in panics_in(&log)? {
            findings.push(Finding::fault(0, format!("scene {name}: panic: {line}")));
        }
        if findings.is_empty() {
            workspace.discard()?;
        }
        Ok(Played { calls: asked, findings })
    }
}
