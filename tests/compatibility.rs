//! What works as etcd's, what differs and how, and what is absent: every method, path, flag and metric, found by a run.
//!
//! ```text
//!   etcd 3.7.1  ── the same calls ──> etcd-3.7.1.txt, recorded once ─┐
//!   this build  ── the same calls ──> what was seen now ─────────────┼──> docs/compatibility/tables.md, and its counts in
//!   notes.txt: what no call shows ───────────────────────────────────┘    docs/COMPATIBILITY.md
//! ```
//!
//! The pages must say what a run of this build shows; `UPDATE_COMPATIBILITY=1 cargo test --test compatibility` rewrites
//! them. What etcd does is in `tests/testdata/compatibility/etcd-3.7.1.txt`; with `ETCD_BIN=/path/to/etcd` in the
//! environment the same command records that anew instead.
//!
//! The members run as processes, first a lone one, whom nobody takes its leadership however busy the machine is; then
//! three, for the metrics that show between members.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "compatibility/cluster.rs"]
mod cluster;
#[path = "compatibility/flags.rs"]
mod flags;
#[path = "compatibility/methods.rs"]
mod methods;
#[path = "compatibility/metrics.rs"]
mod metrics;
#[path = "compatibility/page.rs"]
mod page;
#[path = "compatibility/paths.rs"]
mod paths;
#[path = "compatibility/seen.rs"]
mod seen;
#[path = "compatibility/shape.rs"]
mod shape;

use cluster::Cluster;
use metrics::Metrics;
use seen::Seen;

const OURS: &str = env!("CARGO_BIN_EXE_quorate");

const COMMAND: &str = "UPDATE_COMPATIBILITY=1 cargo test --test compatibility";

/// So little history that a member which was away is sent the whole state.
const SMALL_BASES: [&str; 1] = ["--base-after-bytes=65536"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    root().join("tests/testdata/compatibility")
}

/// Asks a member of `program` everything, and three for what shows between them.
async fn run(program: &str, more: &[&str]) -> Seen {
    let mut seen = Seen::default();
    let mut metrics = Metrics::default();
    let alone = Cluster::of_one(program).await;
    paths::walk(&alone.members[0], &mut seen).await;
    methods::walk(&alone.members[0], &mut seen).await;
    metrics.take(&alone.members[0]).await;
    drop(alone);
    let mut three = Cluster::of_three(program, more).await;
    metrics::walk(&mut three, &mut metrics).await;
    metrics.note(&mut seen);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_say_what_a_run_shows() {
    let recorded = folder().join("etcd-3.7.1.txt");
    if let (Ok(etcd), true) = (std::env::var("ETCD_BIN"), updating()) {
        fs::write(&recorded, run(&etcd, &[]).await.to_text()).expect("the record is written");
        return;
    }
    let etcd = Seen::from_text(&fs::read_to_string(&recorded).expect("the record is there"));
    let mut rows = etcd.judge(&run(OURS, &SMALL_BASES).await);
    rows.extend(flags::rows());
    rows.extend(flags::gates());
    rows.extend(flags::of_programs(OURS));
    let notes = fs::read_to_string(folder().join("notes.txt")).expect("the notes are there");
    page::annotate(&mut rows, &notes).unwrap_or_else(|why| panic!("notes.txt: {why}"));
    check("docs/compatibility/tables.md", |_| page::tables(&rows));
    check("docs/COMPATIBILITY.md", |old| page::with_counts(old, &rows));
}

fn updating() -> bool {
    std::env::var_os("UPDATE_COMPATIBILITY").is_some()
}

/// Holds a page against what it must say, or writes that.
fn check(page: &str, must: impl Fn(&str) -> String) {
    let path = root().join(page);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let new = must(&old);
    if updating() {
        fs::write(&path, &new).expect("the page is written");
        return;
    }
    let changed = page::changed_lines(&old, &new);
    assert!(changed.is_empty(), "{page} is stale: {COMMAND}\n{}", changed.join("\n"));
}
