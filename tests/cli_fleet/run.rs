//! One command of a transcript: read, run, written down.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::folder;
use super::node::Play;

const OURS: &str = env!("CARGO_BIN_EXE_quorate");

/// A command and what is played to it.
#[derive(Debug)]
pub(crate) struct Case {
    comments: Vec<String>,
    line: String,
    stdin: Vec<String>,
    answers: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Came {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Case {
    /// `None` if the block holds no command.
    pub(crate) fn read(block: &str) -> Option<Case> {
        let of = |mark: &str| {
            block.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
        };
        Some(Case {
            comments: block
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
            line: block.lines().find_map(|line| line.strip_prefix("$ "))?.to_owned(),
            stdin: of("in: "),
            answers: of("< "),
        })
    }

    pub(crate) fn answers(&self) -> Vec<Play> {
        self.answers.iter().map(|answer| Play::read(answer)).collect()
    }

    /// The block as it is to stand in the file.
    pub(crate) fn written(&self, requests: &[String], came: &Came) -> String {
        let mut lines = self.comments.clone();
        lines.push(format!("$ {}", self.line));
        lines.extend(self.stdin.iter().map(|text| format!("in: {text}")));
        lines.extend(self.answers.iter().map(|text| format!("< {text}")));
        lines.extend(requests.iter().map(|text| format!("> {text}")));
        lines.push(format!("exit {}", came.code));
        for (name, text) in [("stdout", &came.stdout), ("stderr", &came.stderr)] {
            lines.extend(text.lines().map(|line| format!("{name}: {line}").trim_end().to_owned()));
        }
        lines.join("\n")
    }
}

/// Runs it with its state directory; the directory's name is written as `STATE`.
pub(crate) fn run(case: &Case, state: &Path) -> Came {
    let mut words = case.line.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut command = Command::new(OURS);
    command.env_clear().current_dir(state);
    while let Some(word) = words.next_if(|word| word.starts_with("ETCD_")) {
        let (key, value) = word.split_once('=').expect("VARIABLE=value");
        command.env(key, expand(value));
    }
    assert_eq!(words.next(), Some("quorate"), "{}", case.line);
    command.arg(words.next().expect("a command"));
    let local = ["completion", "man", "config show"].iter().any(|word| case.line.contains(word));
    if !local {
        command.arg("--state-dir").arg(state);
    }
    let mut child = command
        .args(words.map(expand))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    for line in &case.stdin {
        writeln!(stdin, "{line}").expect("it is read");
    }
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let settle = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let files = folder().join("files");
        text.replace(&state.display().to_string(), "STATE")
            .replace(&files.display().to_string(), "FILES")
    };
    Came {
        code: output.status.code().expect("no signal ended it"),
        stdout: settle(&output.stdout),
        stderr: settle(&output.stderr),
    }
}

fn expand(word: &str) -> String {
    match word.split_once('@') {
        Some((before, file)) => format!("{before}{}", folder().join("files").join(file).display()),
        None => word.to_owned(),
    }
}
