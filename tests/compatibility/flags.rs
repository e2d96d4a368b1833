//! Every flag, set to something: is it refused, does it change what the server is started with, or nothing?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::cli::table::{self, Group};
use quorate::cli::{Outcome, Threads, read};
use quorate::embed::Config;
use quorate::embed::gates::GATES;
use quorate::support::flags::Kind as Value;

use crate::seen::{Kind, Row, Verdict};

/// What a flag of a feature that is not built is refused with.
const NOT_YET: &str = "is not supported yet";

/// Flags with one valid value in etcd too.
const ONE_VALUE: [&str; 2] = ["logger", "discovery-fallback"];

/// Gates that switch something.
const GATES_THAT_SWITCH: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "InitialCorruptCheck",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
];

const SOME_URL: &str = "http://127.0.0.1:2399";

/// What is wanted of the flag `name` beside itself.
fn beside(name: &str) -> &'static [&'static str] {
    match name {
        "listen-client-urls" => &["--advertise-client-urls=http://127.0.0.1:2379"],
        "log-rotation-config-json" => &["--enable-log-rotation"],
        "discovery-token" => &["--discovery-endpoints=http://127.0.0.1:2399"],
        "discovery-endpoints" => &["--discovery-token=token"],
        "discovery-srv" => &[],
        "discovery-srv-name" => &["--discovery-srv=example.invalid"],
        _ if name.starts_with("discovery-") => {
            &["--discovery-endpoints=http://127.0.0.1:2399", "--discovery-token=token"]
        }
        _ if name.starts_with("distributed-tracing-") => &["--enable-distributed-tracing"],
        _ => &[],
    }
}

/// A value that is not the default.
fn another(row: &table::Row, folder: &Path) -> String {
    let known = match row.name {
        "auth-token" => "jwt,sign-method=HS256,priv-key=key",
        "auto-compaction-mode" => "revision",
        "auto-compaction-retention" => "1",
        "cipher-suites" => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "config-file" => return configuration(folder).display().to_string(),
        "feature-gates" => "CompactHashCheck=true",
        "initial-cluster" => "other=http://localhost:2380",
        "log-format" => "console",
        "log-level" => "debug",
        "log-outputs" => return folder.join("other").display().to_string(),
        "log-rotation-config-json" => r#"{"maxsize": 1}"#,
        "metrics" => "extensive",
        "tls-max-version" => "TLS1.2",
        "tls-min-version" => "TLS1.3",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let number =
        |n: &str| n.parse::<u64>().map_or(1, |n| if n == u64::from(u32::MAX) { 1 } else { n + 1 });
    match row.kind {
        Value::Bool => (row.default != "true").to_string(),
        Value::Int | Value::Uint | Value::Uint32 => number(row.default).to_string(),
        Value::Duration => "7s".to_owned(),
        Value::Urls { .. } => SOME_URL.to_owned(),
        Value::OneOf(words) | Value::SomeOf(words) => (*words.last().expect("a word")).to_owned(),
        Value::Text | Value::UniqueTexts | Value::Texts | Value::Gates(_) | Value::Ignored => {
            "other".to_owned()
        }
    }
}

/// A file of settings: everything comes from it alone.
fn configuration(folder: &Path) -> PathBuf {
    let path = folder.join("settings.yaml");
    let log = folder.join("log");
    fs::write(&path, format!("name: other\nlog-outputs: [{}]\n", log.display()))
        .expect("the file is written");
    path
}

/// What a command line comes to.
enum Start {
    Well(Box<(Config, Threads)>),
    Refused(String),
}

/// Reads a command line, and what is logged meanwhile.
fn start(folder: &Path, arguments: &[String]) -> (Start, String) {
    let log = folder.join("log");
    let _ = fs::remove_file(&log);
    let to_file = format!("--log-outputs={}", log.display());
    let line: Vec<String> =
        ["quorate".to_owned(), to_file].into_iter().chain(arguments.iter().cloned()).collect();
    let outcome = read(&line, &Vec::new());
    let told = fs::read_to_string(&log).unwrap_or_default();
    let refused = |told: &str| {
        let why = told.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut why =
            why.filter_map(|line: serde_json::Value| Some(line["error"].as_str()?.to_owned()));
        why.next_back().unwrap_or_else(|| format!("without a word: {line:?}"))
    };
    let start = if let Outcome::Start(built, threads) = outcome {
        Start::Well(Box::new((built.config().clone(), threads)))
    } else {
        Start::Refused(refused(&told))
    };
    (start, told)
}

/// Every flag of the table.
pub(crate) fn rows() -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rows: Vec<Row> = table::rows()
        .map(|row| {
            let (verdict, how) = judge(row, folder.path());
            Row { kind: Kind::Flag, name: format!("--{}", row.name), verdict, how }
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn judge(row: &table::Row, folder: &Path) -> (Verdict, String) {
    if row.group == Group::Quorate {
        return (Verdict::Ours, row.help.to_owned());
    }
    if row.name == "version" {
        let shown = Command::new(crate::OURS).arg("--version").output().expect("it runs");
        assert!(shown.status.success(), "--version");
        return (Verdict::Works, String::new());
    }
    if ONE_VALUE.contains(&row.name) {
        return (Verdict::Works, String::new());
    }
    let without: Vec<String> = beside(row.name).iter().map(|&flag| flag.to_owned()).collect();
    let mut with = without.clone();
    with.push(format!("--{}={}", row.name, another(row, folder)));
    let (without, _) = start(folder, &without);
    let (with, told) = start(folder, &with);
    match (without, with) {
        (_, Start::Refused(why)) if why.contains(NOT_YET) => {
            (Verdict::Absent, "refused at start".to_owned())
        }
        (_, Start::Refused(why)) => {
            panic!("--{}: this test wants a value that is valid, not one with: {why}", row.name)
        }
        // Half of what must be given together is refused.
        (Start::Refused(_), Start::Well(_)) => (Verdict::Works, String::new()),
        (Start::Well(without), Start::Well(with)) if without != with => {
            (Verdict::Works, String::new())
        }
        (Start::Well(_), Start::Well(_)) => match row.kind {
            Value::Ignored => (Verdict::Works, "ignored, as by etcd".to_owned()),
            _ if warned(&told, row.name) => {
                (Verdict::Differs, format!("one warning; {}", row.help))
            }
            _ => (Verdict::Differs, format!("silent; {}", row.help)),
        },
    }
}

fn warned(told: &str, name: &str) -> bool {
    let name = format!("\"{name}\"");
    told.lines().any(|line| line.contains("flag has no effect here") && line.contains(&name))
}

/// Every feature gate.
pub(crate) fn gates() -> Vec<Row> {
    for name in GATES_THAT_SWITCH {
        assert!(GATES.iter().any(|(gate, ..)| gate == name), "{name} is no gate");
    }
    GATES
        .iter()
        .map(|(name, stage, default)| {
            let works = GATES_THAT_SWITCH.contains(name);
            let (verdict, how) = if works {
                (Verdict::Works, String::new())
            } else {
                (Verdict::Differs, "taken, switches nothing".to_owned())
            };
            let on = if *default { "on" } else { "off" };
            let name = format!("{name} ({}, {on})", stage.word());
            Row { kind: Kind::Gate, name, verdict, how }
        })
        .collect()
}

/// Every flag of the sub-programs: one that is known is not what stops a command line whose next flag nobody knows.
pub(crate) fn of_programs(ours: &str) -> Vec<Row> {
    let list = include_str!("../testdata/cli/etcd-3.7.1-programs.txt");
    let flags = list.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [program, flag, kind] = words[..] else {
            panic!("{line}: a program, a flag, its kind")
        };
        let value = match kind {
            "bool" => "",
            "duration" => "=1s",
            "int" | "uint" | "uint32" => "=1",
            _ => "=127.0.0.1:1",
        };
        let known = knows(ours, program, &format!("{flag}{value}"));
        let verdict = if known { Verdict::Works } else { Verdict::Absent };
        Row {
            kind: Kind::Program,
            name: format!("{program} start {flag}"),
            verdict,
            how: String::new(),
        }
    });
    flags.collect()
}

fn knows(ours: &str, program: &str, flag: &str) -> bool {
    const NOBODYS: &str = "--nobodys-flag";
    let said = Command::new(ours).env_clear().args([program, "start", flag, NOBODYS]).output();
    let said = said.expect("the program runs");
    assert!(!said.status.success(), "{program} {NOBODYS} is refused");
    let said = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
    // Its own arguments may be logged before anything is looked at.
    said.lines().filter(|line| !line.contains("\"args\"")).any(|line| line.contains(NOBODYS))
}
