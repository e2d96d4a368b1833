//! The operator's commands against a node that only plays back: each transcript is a command, what the node answers, and
//! what came of it: the requests as they were sent, standard output and error, and the exit code.
//!
//! ```text
//!   $ quorate get-join-token n2             the command; @name is a file of files/, --state-dir is added
//!   in: text                                standard input
//!   < sync {"token":"t"}                    metadata of an envelope; also: error, raw, events, hang, close
//!   > POST /1.0/k8sd/cluster/tokens {...}   recorded, as the rest is
//! ```
//!
//! `UPDATE_EXPECT=1 cargo test --test cli_fleet` records them anew.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "cli_fleet/docs.rs"]
mod docs;
#[path = "cli_fleet/node.rs"]
mod node;
#[path = "cli_fleet/run.rs"]
mod run;

use node::Node;
use run::{Case, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/cli/fleet")
}

/// Whether expectations are written instead of compared.
fn records() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

/// Compares `found` with the file, or writes it there.
fn expect(path: &Path, found: &str) {
    if records() {
        fs::write(path, found).expect("the expectation can be written");
        return;
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    let differs = wanted.lines().zip(found.lines()).position(|(a, b)| a != b);
    let at = differs.unwrap_or_else(|| wanted.lines().count().min(found.lines().count()));
    assert!(
        wanted == found,
        "{} differs from line {}:\nwanted: {}\nfound:  {}\n(UPDATE_EXPECT=1 writes it anew)",
        path.display(),
        at + 1,
        wanted.lines().nth(at).unwrap_or("<end>"),
        found.lines().nth(at).unwrap_or("<end>"),
    );
}

async fn transcript(name: &str) {
    let path = folder().join(name);
    let text = fs::read_to_string(&path).expect("the transcript is there");
    let mut found = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let Some(case) = Case::read(block) else {
            found.push(block.to_owned());
            continue;
        };
        let state = tempfile::tempdir().expect("a folder");
        let node = Node::play(state.path(), case.answers());
        let came = tokio::task::block_in_place(|| run(&case, state.path()));
        let requests = node.requests();
        found.push(case.written(&requests, &came));
    }
    expect(&path, &(found.join("\n\n") + "\n"));
}

/// S0.36 and S0.37, command for command.
#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_send_what_the_api_takes_and_show_what_it_answers() {
    transcript("verbs.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_row_of_the_api_has_its_command() {
    transcript("rows.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exit_code_has_its_cause() {
    transcript("exits.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_with_their_origins() {
    transcript("config.txt").await;
}
