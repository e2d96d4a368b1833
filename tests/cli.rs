//! The command line side by side with etcd: each transcript is a command and what etcd 3.7.1 said to it, on
//! stdout and stderr, and its exit code. Ours must say the same.
//!
//! `UPDATE_EXPECT=1 ETCD_BIN=/path/to/etcd cargo test --test cli` records the transcripts from a real etcd anew.
//!
//! What differs by nature is put aside: time stamps, callers and stacks of log lines, the program's own path, the
//! text of the help, and the YAML parser's words behind `yaml:`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};

const OURS: &str = env!("CARGO_BIN_EXE_quorate");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/cli")
}

/// A command line: `VARIABLE=value` words, then arguments. `@name` is a file of `files/`.
struct Case {
    line: String,
    expected: String,
}

fn cases(text: &str) -> Vec<Case> {
    text.split("\n\n")
        .filter_map(|block| {
            let block = block.trim();
            let (line, expected) = block.split_once('\n').unwrap_or((block, ""));
            let line = line.strip_prefix("$ ")?.to_owned();
            Some(Case { line, expected: expected.trim().to_owned() })
        })
        .collect()
}

fn run(program: &str, line: &str) -> String {
    let directory = tempfile::tempdir().expect("a folder");
    let mut words = line.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut command = Command::new(program);
    command.env_clear().current_dir(&directory);
    while let Some(word) = words.next_if(|word| word.starts_with("ETCD_")) {
        let (key, value) = word.split_once('=').expect("VARIABLE=value");
        command.env(key, expand(value));
    }
    assert_eq!(words.next(), Some("etcd"), "{line}");
    let output = command.args(words.map(expand)).output().expect("the program runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut said = format!("exit {}", output.status.code().expect("no signal ended it"));
    for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
        for line in settle(&text, program) {
            said.push_str(&format!("\n{name}: {line}"));
        }
    }
    said
}

fn expand(word: &str) -> String {
    match word.split_once('@') {
        Some((before, file)) => format!("{before}{}", folder().join("files").join(file).display()),
        None => word.to_owned(),
    }
}

/// The lines without what differs by nature.
fn settle(text: &str, program: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("Usage:") {
            lines.push("<usage>".to_owned());
            break;
        }
        if line == "Member:" {
            lines.pop();
            lines.push("<flags>".to_owned());
            break;
        }
        if let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(line) {
            for field in ["ts", "caller", "stacktrace"] {
                fields.remove(field);
            }
            let line = serde_json::Value::Object(fields).to_string();
            let files = folder().join("files").display().to_string();
            let line = line.replace(program, "etcd").replace(&files, "<files>");
            lines.push(match line.split_once("yaml: ") {
                Some((before, _)) => format!("{before}yaml: <reason>\"}}"),
                None => line,
            });
        } else {
            lines.push(line.to_owned());
        }
        // Beside its version, each program tells of its own build.
        if line.starts_with("etcd Version:") {
            break;
        }
    }
    lines
}

#[test]
fn every_transcript_of_etcd_holds() {
    let path = folder().join("transcripts.txt");
    let text = fs::read_to_string(&path).expect("the transcripts are there");
    let cases = cases(&text);
    assert!(cases.len() > 40, "the transcripts are read");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let etcd = std::env::var("ETCD_BIN").expect("ETCD_BIN names the etcd to record from");
        let blocks: Vec<String> = cases
            .iter()
            .map(|case| format!("$ {}\n{}", case.line, run(&etcd, &case.line)))
            .collect();
        fs::write(&path, blocks.join("\n\n") + "\n").expect("the transcripts are written");
        return;
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let said = run(OURS, &case.line);
        if said != case.expected {
            wrong.push(format!("$ {}\n--- etcd\n{}\n--- ours\n{said}", case.line, case.expected));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

#[test]
fn the_version_begins_with_etcds_and_ends_with_ours() {
    let output = Command::new(OURS).arg("--version").output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    let starts =
        ["etcd Version: ", "Git SHA: ", "Go Version: ", "Go OS/Arch: ", "Quorate Version: "];
    assert_eq!(lines.len(), starts.len());
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

/// Below the ports that others are given by chance.
fn free_addresses() -> [String; 2] {
    let held = [(); 2].map(|()| {
        let ports = std::iter::repeat_with(|| rand::rng().random_range(22_000..32_000));
        let mut bound = ports.map(|port: u16| TcpListener::bind(("127.0.0.1", port)));
        bound.find_map(Result::ok).expect("one of them is free")
    });
    held.map(|held| held.local_addr().expect("it is bound").to_string())
}

/// Whether somebody at `address` answers.
fn answers(address: &str) -> bool {
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")?;
        stream.read(&mut [0; 64])
    });
    asked.is_ok_and(|length| length > 0)
}

/// Supervisors stop what they have just started, too, on busy machines. Ended in order, it exits with 0.
#[test]
fn a_member_that_has_answered_once_ends_in_order() {
    let busy = AtomicBool::new(true);
    let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    std::thread::scope(|threads| {
        for _ in 0..cores * 2 {
            threads.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let ended = std::panic::catch_unwind(start_and_stop);
        busy.store(false, Ordering::Relaxed);
        if let Err(why) = ended {
            std::panic::resume_unwind(why);
        }
    });
}

fn start_and_stop() {
    for turn in 0..12 {
        let folder = tempfile::tempdir().expect("a folder");
        let [client, peer] = free_addresses();
        let mut member = Command::new(OURS)
            .current_dir(&folder)
            .args([
                format!("--listen-client-urls=http://{client}"),
                format!("--advertise-client-urls=http://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster=default=http://{peer}"),
            ])
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        let looks = (0..60_000).find(|_| {
            std::thread::sleep(Duration::from_millis(1));
            answers(&client)
        });
        assert!(looks.is_some(), "turn {turn}: nobody answers");
        kill_process(Pid::from_child(&member), Signal::TERM).expect("the program has not ended");
        let status = member.wait().expect("the program ends");
        assert!(status.success(), "turn {turn}: {status}");
    }
}
