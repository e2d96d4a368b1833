//! A1.7: `etcdctl check perf` against three members.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::bench::START_DEADLINE;
use crate::member::{MemberSpec, Workspace};
use crate::verdict::Verdict;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 3)]
    members: usize,
    #[arg(long, default_value = "etcdctl")]
    etcdctl: PathBuf,
    /// Loads to run, a minute each: s, m, l, xl. Only s has to pass; the others are shown.
    #[arg(long, value_delimiter = ',', default_values_t = ["s".to_owned(), "m".to_owned()])]
    load: Vec<String>,
}

/// Runs each load and shows what etcdctl says.
///
/// # Errors
/// When the cluster does not start, or there is no etcdctl.
pub(crate) fn check_perf(options: &Options) -> Result<Verdict> {
    let workspace = Workspace::create("perf")?;
    let specs = MemberSpec::several(&options.server, workspace.path(), "perf", options.members)?;
    let endpoints: Vec<_> = specs.iter().map(MemberSpec::endpoint).collect();
    let mut members = Vec::new();
    for spec in &specs {
        members.push(spec.launch()?);
    }
    for member in &mut members {
        member.await_ready(START_DEADLINE)?;
    }
    let mut findings = Vec::new();
    for load in &options.load {
        let output = Command::new(&options.etcdctl)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(","), "check", "perf", "--load", load])
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        // The progress bar comes first, on one line with carriage returns.
        let verdict: Vec<_> =
            told.lines().filter(|line| line.contains("PASS") || line.contains("FAIL")).collect();
        println!("load {load}:\n{}", verdict.join("\n"));
        ensure!(!verdict.is_empty(), "etcdctl says nothing: {output:?}");
        if load == "s" && told.contains("FAIL") {
            findings.push(format!("load {load}: {}", verdict.join("; ")));
        }
    }
    drop(members);
    if findings.is_empty() {
        workspace.discard()?;
    }
    Ok(Verdict::of(findings))
}
