//! Sessions of etcdctl as text: commands and what they print, held against a fresh member.
//!
//! ```text
//! # why                      a comment
//! $ get a --rev=2            a command, run with etcdctl and --endpoints in front
//! < value("a") = "1"         a line of its standard input
//! a                          what it prints; {lease} binds or repeats a word, {*} is anything
//! 3.4| a                     a line that only that etcdctl prints; `3.4,3.5|`, `new|`: 3.6 and later
//! $3.5,new get a --count-only  a command that only those have
//! exit 1                     its status, when that is not 0
//! & name watch w --prefix    a command that goes on, and
//! stop name                  its end, once it has printed what follows
//! ```
//!
//! `--record` keeps every expected line that fits and writes the others as they came.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use crate::member::{MemberSpec, Workspace};
use crate::verdict::Verdict;

/// How markers name the releases of etcdctl that print differently; `new` is 3.6 and later.
const GENERATIONS: [&str; 3] = ["3.4", "3.5", "new"];
/// Per command.
const FINDINGS_MAX: usize = 3;
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test; started anew for each file.
    #[arg(long)]
    ours: PathBuf,
    /// The etcdctl to run.
    #[arg(long, default_value = "etcdctl")]
    etcdctl: PathBuf,
    /// Write what came into the files.
    #[arg(long)]
    record: bool,
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// A command with its input and what it must print.
#[derive(Debug, Default, Clone)]
struct Step {
    /// The lines of the file that make it, comments before it too.
    head: Vec<String>,
    run: Run,
    input: Vec<String>,
    expected: Vec<String>,
    /// The expected lines as the file has them, other etcdctls' too.
    written: Vec<String>,
    status: i32,
}

#[derive(Debug, Default, Clone)]
enum Run {
    /// Only comments.
    #[default]
    Nothing,
    /// Another etcdctl's command.
    Skipped,
    Foreground(String),
    Background(String, String),
    Stop(String),
}

/// Words bound by the lines so far.
type Words = BTreeMap<String, String>;

pub(crate) fn transcripts(options: &Options) -> Result<Verdict> {
    let generation = generation(&options.etcdctl)?;
    let mut findings = Vec::new();
    for file in &options.files {
        let workspace = Workspace::create("transcripts")?;
        let spec = MemberSpec::single(&options.ours, workspace.path(), "member")?;
        let member = spec.start(Duration::from_secs(30))?;
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let mut session = Session::new(options, &spec, generation);
        let mut written = String::new();
        for step in parse(&text, generation)? {
            session.step(&step, &mut written)?;
        }
        drop(member);
        if options.record {
            fs::write(file, written)?;
        }
        println!("{}: {} lines differ", file.display(), session.findings.len());
        findings.extend(session.findings.into_iter().map(|f| format!("{}: {f}", file.display())));
        workspace.discard()?;
    }
    Ok(if options.record { Verdict::Valid } else { Verdict::of(findings) })
}

/// What version markers of expected lines may say.
fn generation(etcdctl: &Path) -> Result<&'static str> {
    let output = Command::new(etcdctl).arg("version").env("ETCDCTL_API", "3").output();
    let output = output.with_context(|| format!("cannot run {}", etcdctl.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = |g: &&&str| text.contains(&format!("etcdctl version: {g}."));
    Ok(GENERATIONS.iter().find(named).copied().unwrap_or("new"))
}

fn parse(text: &str, generation: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        let run = if let Some(command) = line.strip_prefix("$ ") {
            Run::Foreground(command.to_owned())
        } else if let Some((marker, command)) = marked(line) {
            if marker.split(',').any(|m| m == generation) { Run::Foreground(command.to_owned()) } else { Run::Skipped }
        } else if let Some(rest) = line.strip_prefix("& ") {
            let (name, command) = rest.split_once(' ').context("& NAME COMMAND")?;
            Run::Background(name.to_owned(), command.to_owned())
        } else if let Some(name) = line.strip_prefix("stop ") {
            Run::Stop(name.to_owned())
        } else if line.starts_with('#') {
            Run::Nothing
        } else {
            let step = steps.last_mut().context("a line before any command")?;
            if let Some(input) = line.strip_prefix('<') {
                step.head.push(line.to_owned());
                step.input.push(input.strip_prefix(' ').unwrap_or(input).to_owned());
            } else if let Some(status) = line.strip_prefix("exit ") {
                step.status = status.parse()?;
                continue;
            } else if let Some((marker, rest)) = line.split_once("| ")
                && marker.split(',').all(|m| GENERATIONS.contains(&m))
            {
                if marker.split(',').any(|m| m == generation) {
                    step.expected.push(rest.to_owned());
                }
            } else {
                step.expected.push(line.to_owned());
            }
            if !line.starts_with('<') {
                step.written.push(line.to_owned());
            }
            continue;
        };
        steps.push(Step {
            head: vec![line.to_owned()],
            run,
            ..Step::default()
        });
    }
    Ok(steps)
}

/// `$new command` or `$3.4,3.5 command`.
fn marked(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('$')?.split_once(' ').filter(|(marker, _)| !marker.is_empty())
}

struct Session<'a> {
    options: &'a Options,
    words: Words,
    running: BTreeMap<String, Background>,
    findings: Vec<String>,
    generation: &'a str,
}

/// A command that goes on, and what it has printed so far.
struct Background {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl<'a> Session<'a> {
    fn new(options: &'a Options, spec: &MemberSpec, generation: &'a str) -> Self {
        let endpoint = format!("127.0.0.1:{}", spec.client_port);
        let peer = format!("127.0.0.1:{}", spec.peer_port);
        let words = [("endpoint", endpoint), ("peer", peer)];
        Self {
            options,
            words: words.map(|(name, word)| (name.to_owned(), word)).into(),
            running: BTreeMap::new(),
            findings: Vec::new(),
            generation,
        }
    }

    fn command(&self, arguments: &str) -> Result<Command> {
        let mut command = Command::new(&self.options.etcdctl);
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.words["endpoint"]))
            .args(split(&self.filled(arguments))?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    fn filled(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (name, word)| {
            text.replace(&format!("{{{name}}}"), word)
        })
    }

    fn step(&mut self, step: &Step, written: &mut String) -> Result<()> {
        let (printed, status) = match &step.run {
            Run::Nothing => (Vec::new(), 0),
            Run::Skipped => (step.expected.clone(), step.status),
            Run::Foreground(command) => self.foreground(command, &step.input)?,
            Run::Background(name, command) => {
                let started = self.background(command, &step.input)?;
                self.running.insert(name.clone(), started);
                (Vec::new(), 0)
            }
            Run::Stop(name) => (self.stop(name, step.expected.len())?, 0),
        };
        let skipped = matches!(step.run, Run::Skipped);
        let fits = skipped || self.compare(step, &printed, status);
        for line in &step.head {
            written.push_str(line);
            written.push('\n');
        }
        for line in if fits { &step.written } else { &printed } {
            written.push_str(line);
            written.push('\n');
        }
        if status != 0 {
            written.push_str(&format!("exit {status}\n"));
        }
        Ok(())
    }

    fn foreground(&self, command: &str, input: &[String]) -> Result<(Vec<String>, i32)> {
        let mut child = self.command(command)?.spawn()?;
        let mut stdin = child.stdin.take().context("a piped input")?;
        let mut text = input.join("\n");
        text.push('\n');
        let _closed_early = stdin.write_all(text.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&plain_errors(&String::from_utf8_lossy(&output.stderr)));
        let lines = text.lines().map(|line| shown(line).to_owned()).collect();
        Ok((lines, output.status.code().unwrap_or(-1)))
    }

    fn background(&self, command: &str, input: &[String]) -> Result<Background> {
        let mut child = self.command(command)?.spawn()?;
        let mut stdin = child.stdin.take().context("a piped input")?;
        for line in input {
            writeln!(stdin, "{line}")?;
            // A watcher is caught up every 100 ms, and tells no progress before.
            std::thread::sleep(Duration::from_millis(400));
        }
        let printed = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().context("a piped output")?),
            Box::new(child.stderr.take().context("a piped error output")?),
        ];
        for mut stream in streams {
            let printed = Arc::clone(&printed);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    printed.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
            });
        }
        if !input.is_empty() {
            // An interactive command ends with its input: leave it open.
            std::mem::forget(stdin);
        }
        // The watch must be open before the next command writes.
        std::thread::sleep(Duration::from_millis(400));
        Ok(Background { child, printed })
    }

    fn stop(&mut self, name: &str, lines: usize) -> Result<Vec<String>> {
        let Some(background) = self.running.remove(name) else {
            bail!("stop {name}: no such command");
        };
        let begun = Instant::now();
        let quiet = if self.options.record { Duration::from_secs(1) } else { STOP_DEADLINE };
        while background.printed.lock().lines().count() < lines.max(1) && begun.elapsed() < quiet {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(150));
        let text = plain_errors(&background.printed.lock());
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn compare(&mut self, step: &Step, printed: &[String], status: i32) -> bool {
        let before = self.findings.len();
        let command = step.head.first().cloned().unwrap_or_default();
        if status != step.status {
            self.findings.push(format!("{command}: exit {status}, expected {}", step.status));
        }
        for nth in 0..printed.len().max(step.expected.len()) {
            if self.findings.len() >= before + FINDINGS_MAX {
                break;
            }
            let (expected, line) = (step.expected.get(nth), printed.get(nth));
            let fits = match (expected, line) {
                (Some(expected), Some(line)) => self.fits(expected, line),
                (Some(_), None) | (None, Some(_)) | (None, None) => false,
            };
            if !fits {
                self.findings.push(format!(
                    "{command} ({})\n  expected {expected:?}\n  printed  {line:?}",
                    self.generation
                ));
            }
        }
        self.findings.len() == before
    }

    /// Matches a line against its template, binding new words.
    fn fits(&mut self, template: &str, line: &str) -> bool {
        let mut words = self.words.clone();
        let fits = fit(template, line, &mut words);
        if fits {
            self.words = words;
        }
        fits
    }
}

fn fit(template: &str, line: &str, words: &mut Words) -> bool {
    let Some(open) = template.find('{') else {
        return template == line;
    };
    let Some(close) = template[open..].find('}').map(|at| open + at) else {
        return template == line;
    };
    let name = &template[open + 1..close];
    let is_name = name == "*" || (!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()));
    if !is_name {
        let upto = open + 1;
        return line.get(..upto) == Some(&template[..upto]) && fit(&template[upto..], &line[upto..], words);
    }
    if !line.starts_with(&template[..open]) {
        return false;
    }
    let (rest, template) = (&line[open..], &template[close + 1..]);
    if let Some(word) = words.get(name) {
        return rest.strip_prefix(word.as_str()).is_some_and(|rest| {
            let rest = rest.to_owned();
            fit(template, &rest, words)
        });
    }
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    for end in ends {
        let word = &rest[..end];
        if name != "*" && (word.is_empty() || word.contains(' ')) {
            continue;
        }
        let mut bound = words.clone();
        if name != "*" {
            bound.insert(name.to_owned(), word.to_owned());
        }
        if fit(template, &rest[end..], &mut bound) {
            *words = bound;
            return true;
        }
    }
    false
}

/// What a terminal shows of a line that was drawn over: a progress bar's last state.
fn shown(line: &str) -> &str {
    line.rsplit('\r').next().unwrap_or(line)
}

/// The client's own retry log lines go: they tell addresses and attempts.
fn plain_errors(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("{\"level\":"))
        .map(shown)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Words of a command line; double quotes group.
fn split(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if quoted {
        bail!("an open quote: {line}");
    }
    if any {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_binds_once_and_repeats() {
        let mut words = Words::new();
        assert!(fit("lease {id} granted with TTL(60s)", "lease 1f granted with TTL(60s)", &mut words));
        assert!(fit("lease {id} revoked", "lease 1f revoked", &mut words));
        assert!(!fit("lease {id} revoked", "lease 2f revoked", &mut words));
    }

    #[test]
    fn a_star_is_anything_and_json_is_itself() {
        let mut words = Words::new();
        assert!(fit("took {*}ms", "took 1.5ms", &mut words));
        assert!(fit("[{\"id\":{m},\"x\":1}]", "[{\"id\":77,\"x\":1}]", &mut words));
        assert_eq!(words["m"], "77");
    }

    #[test]
    fn quotes_group_and_may_be_empty() {
        assert_eq!(split("put \"\" \"a b\"").unwrap(), ["put", "", "a b"]);
    }
}
