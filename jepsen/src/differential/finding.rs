//! What a run found: printed so that a reader sees the difference and the command that shows it again.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::answer::Answer;
use super::call::Call;
use super::run::{Kinds, Run};
use super::scenes::Played;
use super::streams::Heard;
use crate::verdict::Verdict;

const SHRINK_RUNS: usize = 60;

#[derive(Debug, Clone)]
pub(super) struct Finding {
    index: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}: {}", self.index, self.what)
    }
}

impl Finding {
    /// A call with its answer in a line or two.
    pub(super) fn brief(index: usize, call: &Call, answer: &Answer) -> String {
        let (call, answer) = (format!("{call:?}"), format!("{answer:?}"));
        format!("    {index}: {} -> {}", abridged(&call, 2500), abridged(&answer, 400))
    }

    pub(super) fn answers(
        index: usize,
        call: &Call,
        ours: &Answer,
        theirs: &Answer,
        recent: Option<String>,
    ) -> Self {
        let difference = difference(&format!("{ours:#?}"), &format!("{theirs:#?}"));
        let mut what = format!("{}\n{difference}", abridged(&format!("{call:?}"), 1500));
        if let Some(recent) = recent {
            what += "\n  before it:\n";
            what += &recent;
        }
        Self { index, what }
    }

    pub(super) fn streams(index: usize, stream: usize, ours: &Heard, theirs: &Heard) -> Self {
        let mut what = format!("watch stream {stream}");
        let common = ours.created.iter().zip(&theirs.created).position(|(a, b)| a != b);
        if let Some(nth) = common {
            let (a, b) = (&ours.created[nth], &theirs.created[nth]);
            what += &format!("\n create {nth}: ours {a:?}\n   etcd {b:?}");
        }
        if ours.progress != theirs.progress {
            what += &format!("\n progress: ours {:?} etcd {:?}", ours.progress, theirs.progress);
        }
        if ours.ended != theirs.ended {
            what += &format!("\n ended: ours {:?} etcd {:?}", ours.ended, theirs.ended);
        }
        let ids: std::collections::BTreeSet<_> =
            ours.watchers.keys().chain(theirs.watchers.keys()).collect();
        for id in ids {
            let empty = Vec::new();
            let a = ours.watchers.get(id).unwrap_or(&empty);
            let b = theirs.watchers.get(id).unwrap_or(&empty);
            if a != b {
                let nth = a.iter().zip(b).position(|(a, b)| a != b);
                let nth = nth.unwrap_or(a.len().min(b.len()));
                what += &format!(
                    "\n watcher {id}: told {} and {}; first difference at {nth}:\n   ours {:?}\n   etcd {:?}",
                    a.len(),
                    b.len(),
                    a.get(nth),
                    b.get(nth)
                );
            }
        }
        Self { index, what: abridged(&what, 6000) }
    }

    pub(super) fn fault(index: usize, what: String) -> Self {
        Self { index, what }
    }
}

/// The lines of two printed answers that differ.
fn difference(ours: &str, theirs: &str) -> String {
    let (a, b): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let most = a.len().min(b.len()) - head;
    let tail = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let from = head.saturating_sub(3);
    let show = |lines: &[&str]| abridged(&lines[from..lines.len() - tail].join("\n    "), 2500);
    format!("  ours:\n    {}\n  etcd:\n    {}", show(&a), show(&b))
}

fn abridged(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

/// The result of one script.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) calls: usize,
    pub(super) findings: Vec<Finding>,
    pub(super) explained: BTreeMap<&'static str, usize>,
    pub(super) kinds: Kinds,
}

impl From<Played> for Outcome {
    fn from(Played { calls, findings, kinds, explained }: Played) -> Self {
        Self { calls, findings, explained, kinds }
    }
}

/// Adds every count.
pub(super) fn add_up<K: Ord>(all: &mut BTreeMap<K, usize>, more: BTreeMap<K, usize>) {
    for (name, count) in more {
        *all.entry(name).or_default() += count;
    }
}

impl Outcome {
    /// Adds another part of the same seed.
    pub(super) fn join(&mut self, other: Self) {
        self.calls += other.calls;
        self.findings.extend(other.findings);
        add_up(&mut self.explained, other.explained);
        add_up(&mut self.kinds, other.kinds);
    }

    /// Whether some finding is about the same kind of call as `finding`.
    fn shows_like(&self, finding: &Finding) -> bool {
        let kind = |f: &Finding| f.what.split('(').next().map(str::to_owned);
        self.findings.iter().any(|f| kind(f) == kind(finding))
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} calls, {} findings, explained {:?}",
            self.calls,
            self.findings.len(),
            self.explained
        )
    }
}

/// All seeds together.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<String>,
    explained: BTreeMap<&'static str, usize>,
    kinds: Kinds,
}

impl Report {
    pub(super) fn add(&mut self, seed: u64, outcome: Outcome) {
        for finding in outcome.findings {
            let line = finding.what.lines().next().unwrap_or_default().to_owned();
            self.findings.push(format!("seed {seed} call {}: {line}", finding.index));
        }
        add_up(&mut self.explained, outcome.explained);
        add_up(&mut self.kinds, outcome.kinds);
    }

    pub(super) fn verdict(self) -> Verdict {
        for (kind, count) in &self.kinds {
            println!("{count:>8} {kind}");
        }
        for row in &super::allowed::ALLOWED {
            let count = self.explained.get(row.name).copied().unwrap_or(0);
            let of = if row.newest { "allowed" } else { "allowed of older releases" };
            println!("{count:>8} {of}: {}, {} ({})", row.name, row.how, row.change);
        }
        Verdict::of(self.findings)
    }
}

/// Cuts pieces out of the script for as long as something is still found, and prints what is left.
pub(super) async fn shrink(run: &Run, script: &[Call], outcome: &Outcome) -> Result<()> {
    let Some(first) = outcome.findings.first() else {
        return Ok(());
    };
    let mut kept: Vec<Call> = script.iter().take(first.index + 1).cloned().collect();
    let mut piece = kept.len().div_ceil(2);
    let mut runs = 0;
    while piece > 0 && runs < SHRINK_RUNS {
        let mut from = 0;
        while from < kept.len() && runs < SHRINK_RUNS {
            let mut without = kept.clone();
            without.drain(from..(from + piece).min(kept.len()));
            runs += 1;
            if !run.play(&without, &[]).await?.shows_like(first) {
                from += piece;
            } else {
                kept = without;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    println!("shrunk to {} calls after {runs} runs:", kept.len());
    for call in &kept {
        println!("  {}", abridged(&format!("{call:?}"), 600));
    }
    Ok(())
}
