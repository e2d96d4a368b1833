//! Scenarios as text: `testdata/scenarios/**.txt`, one machine a file.
//!
//! ```text
//!   put a 1            a command, further lines of it indented
//!   ----
//!   revision 2         what it answered, then its events
//!     put a=1 ..
//!                      an empty line ends the block; lines starting with # are comments
//! ```
//!
//! `UPDATE_EXPECT=1 cargo test -p quorate-core scenarios` rewrites the answers: read the diff, commit what you can
//! explain.

mod auth;
mod fleet;
mod parse;
mod print;
mod run;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use self::run::Runner;

#[test]
fn scenarios_answer_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios");
    let mut files = Vec::new();
    find(&root, &mut files);
    assert!(files.len() >= 10, "the scenarios are gone: {}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let answered = replay(&text);
        if text == answered {
            continue;
        }
        if updating() {
            fs::write(&file, answered).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", file.display(), first_difference(&text, &answered)));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_EXPECT=1 rewrites them.\n{}", wrong.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a test's switch, not the core's")]
fn updating() -> bool {
    std::env::var("UPDATE_EXPECT").is_ok()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            find(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "txt") {
            files.push(entry);
        }
    }
}

/// The file with every answer replaced by what was answered now.
fn replay(text: &str) -> String {
    replay_with(text, |runner, command| runner.run(command))
}

/// Requests as a client sends them, against what a real etcd answered.
#[test]
fn requests_are_answered_as_etcd_3_7_1_answered_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/etcd_3_7_1");
    for file in ["requests.txt", "events.txt", "auth.txt"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let answered = replay_with(&text, |runner, command| runner.ask(command));
        assert!(text == answered, "{file}: {}", first_difference(&text, &answered));
    }
}

fn replay_with(text: &str, mut run: impl FnMut(&mut Runner, &[&str]) -> String) -> String {
    let mut runner = Runner::new();
    let mut out = String::new();
    let mut command: Vec<&str> = Vec::new();
    let mut in_answer = false;
    for line in text.lines() {
        if in_answer {
            if line.is_empty() {
                in_answer = false;
                out.push('\n');
            }
        } else if line == "----" {
            writeln!(out, "----").unwrap();
            out.push_str(&run(&mut runner, &command));
            command.clear();
            in_answer = true;
        } else {
            writeln!(out, "{line}").unwrap();
            if !line.starts_with('#') && !line.is_empty() {
                command.push(line);
            }
        }
    }
    out
}

fn first_difference(expected: &str, answered: &str) -> String {
    let mut lines = expected.lines().zip(answered.lines()).enumerate();
    match lines.find(|(_, (expected, answered))| expected != answered) {
        Some((place, (expected, answered))) => {
            format!("line {}: expected `{expected}`, answered `{answered}`", place + 1)
        }
        None => "one is longer than the other".to_owned(),
    }
}
