//! A stopped member's files, damaged one at a time: refused with what to do, or served as they were.
//!
//! ```text
//! member ─ puts, deletes, leases, a base, more puts ─ portrait ─ stopped or killed ─▶ template
//!   each round: copy ─▶ one flip, or one truncation, in one file ─▶ start ─┬─ exits, says what to do
//!                                                                          └─ serves: portrait equal, takes a put
//! ```
//!
//! The seed fixes file, place and kind of each round's damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::spawn_blocking;

use crate::client::Client;
use crate::member::{MemberSpec, Workspace, panics_in};
use crate::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
};
use crate::portrait::Portrait;
use crate::verdict::Verdict;

const START_DEADLINE: Duration = Duration::from_secs(60);
const FLAGS: [&str; 6] = [
    "--journal-segment-bytes",
    "65536",
    "--base-after-bytes",
    "262144",
    "--max-request-bytes",
    "12000",
];
/// One of these tells an operator what to do.
const ADVICE: [&str; 5] =
    ["restore a backup", "remove this member", "put back", "upgrade", "newer program"];

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test.
    #[arg(long)]
    ours: PathBuf,
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A directory as a member left it, and what it showed last.
struct Template {
    spec: MemberSpec,
    label: &'static str,
    portrait: Portrait,
    past: Vec<i64>,
}

/// What one round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Served,
    Rebuilt,
    Wrong,
}

/// Runs the rounds and judges.
pub(crate) async fn damage(options: Options) -> Result<Verdict> {
    let workspace = Workspace::create("damage")?;
    let templates = [
        template(&options, workspace.path(), "stopped", true).await?,
        template(&options, workspace.path(), "killed", false).await?,
    ];
    let mut findings = Vec::new();
    let mut tally: BTreeMap<(&'static str, Outcome), u64> = BTreeMap::new();
    let mut words: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..options.rounds {
        let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(1_000_003) ^ round);
        let template = &templates[(round % 2) as usize];
        let spec = copy(template, workspace.path(), round)?;
        let hurt = Hurt::draw(&spec.data_dir, &mut rng)?;
        hurt.inflict()?;
        // Without the state store everything is read from the truth.
        if hurt.kind != "sled" && rng.random_bool(0.4) {
            remove_state_store(&spec.data_dir)?;
        }
        let (outcome, told) = judge(&spec, template, &mut words).await?;
        *tally.entry((hurt.kind, outcome)).or_default() += 1;
        let keep = !told.is_empty();
        for finding in told {
            findings.push(format!("round {round} ({}): {hurt}: {finding}", template.label));
        }
        if !keep {
            fs::remove_dir_all(&spec.data_dir)?;
            fs::remove_file(&spec.log)?;
        }
    }
    for ((kind, outcome), count) in &tally {
        println!("{kind:8} {outcome:?}: {count}");
    }
    for (text, count) in &words {
        println!("{count:4} x {text}");
    }
    if findings.is_empty() {
        workspace.discard()?;
        return Ok(Verdict::Valid);
    }
    findings.push(format!("kept: {}", workspace.path().display()));
    findings.push(format!(
        "again: cargo run -p quorate-jepsen -- damage --ours {} --rounds {} --seed {}",
        options.ours.display(),
        options.rounds,
        options.seed
    ));
    Ok(Verdict::Invalid(findings))
}

async fn template(
    options: &Options,
    root: &Path,
    label: &'static str,
    orderly: bool,
) -> Result<Template> {
    let mut spec = MemberSpec::single(&options.ours, root, label)?;
    spec.extra = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    let starting = spec.clone();
    let member = spawn_blocking(move || starting.start(START_DEADLINE)).await??;
    let client = Client::connect(&spec.endpoint()).await?;
    let past = fill(&client, options.seed).await?;
    let portrait = Portrait::of(&client, &past).await?;
    // An idle journal ends with a seal; without it, damage to its last frame looks like a torn tail.
    tokio::time::sleep(Duration::from_millis(500)).await;
    if orderly {
        let (_, status) = spawn_blocking(move || member.stop(Duration::from_secs(30))).await??;
        ensure!(status.success(), "the template's member ended with {status}");
    } else {
        spawn_blocking(move || member.kill()).await??;
    }
    let base = walk(&spec.data_dir)?.iter().any(|file| kind_of(file) == "base");
    ensure!(base, "no base was written: there is too little to damage");
    Ok(Template { spec, label, portrait, past })
}

/// A small content with everything in it; revisions to look back to.
async fn fill(client: &Client, seed: u64) -> Result<Vec<i64>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kv = client.kv.clone();
    let lease = LeaseGrantRequest { ttl: 36_000, id: 77 };
    client.lease.clone().lease_grant(lease).await?;
    let mut past = Vec::new();
    for n in 0..400 {
        let mut value = vec![0; rng.random_range(0..5000)];
        rng.fill(&mut value[..]);
        let key = format!("key{:03}", rng.random_range(0..150));
        if n % 9 == 8 {
            let delete = DeleteRangeRequest { key: key.into(), ..Default::default() };
            kv.delete_range(delete).await?;
            continue;
        }
        let lease = if n % 7 == 0 { 77 } else { 0 };
        let put = PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
        let revision = kv.put(put).await?.into_inner().header.context("a header")?.revision;
        if n == 150 {
            kv.compact(CompactionRequest { revision, physical: true }).await?;
        }
        if n > 150 && n % 60 == 0 {
            past.push(revision);
        }
    }
    Ok(past)
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy(template: &Template, root: &Path, round: u64) -> Result<MemberSpec> {
    let from = &template.spec.data_dir;
    let mut spec = template.spec.clone();
    spec.data_dir = root.join(format!("round{round}.data"));
    spec.log = root.join(format!("round{round}.log"));
    for file in walk(from)? {
        let to = spec.data_dir.join(file.strip_prefix(from)?);
        let parent = to.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent)?;
        fs::copy(&file, &to)?;
    }
    Ok(spec)
}

fn remove_state_store(data_dir: &Path) -> Result<()> {
    for file in walk(data_dir)? {
        if kind_of(&file) == "sled" {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

fn kind_of(file: &Path) -> &'static str {
    let path = file.to_string_lossy();
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if path.contains("/journal/") {
        if name.ends_with(".seg") && !name.starts_with("free-") { "journal" } else { "waiting" }
    } else if name.starts_with("base-") {
        "base"
    } else if path.contains("/state-") {
        "sled"
    } else if name == "IDENTITY" {
        "identity"
    } else {
        "other"
    }
}

/// One damage.
struct Hurt {
    file: PathBuf,
    kind: &'static str,
    how: How,
}

enum How {
    Flip { at: u64, mask: u8 },
    Truncate { from: u64, to: u64 },
}

impl std::fmt::Display for Hurt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        match self.how {
            How::Flip { at, mask } => write!(f, "{} {name}: byte {at} ^ {mask:#04x}", self.kind),
            How::Truncate { from, to } => {
                write!(f, "{} {name}: {from} bytes cut to {to}", self.kind)
            }
        }
    }
}

impl Hurt {
    /// A kind of file first, then a file of it: else sled's many bytes would take nearly every round.
    fn draw(data_dir: &Path, rng: &mut StdRng) -> Result<Self> {
        let mut kinds: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
        for file in walk(data_dir)? {
            if fs::metadata(&file)?.len() > 0 {
                kinds.entry(kind_of(&file)).or_default().push(file);
            }
        }
        let weighted: Vec<&str> = kinds
            .keys()
            .flat_map(|kind| {
                let weight = match *kind {
                    "journal" => 8,
                    "base" | "sled" => 4,
                    _ => 1,
                };
                std::iter::repeat_n(*kind, weight)
            })
            .collect();
        let kind = weighted[rng.random_range(0..weighted.len())];
        let (kind, files) = kinds.get_key_value(kind).context("one of the kinds")?;
        let file = files[rng.random_range(0..files.len())].clone();
        let bytes = fs::read(&file)?;
        let len = bytes.len() as u64;
        // Most of a segment, and of sled's file, may be zeros behind the content: half the flips stay within it.
        let content = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |at| at as u64 + 1);
        let how = if rng.random_bool(0.3) {
            How::Truncate { from: len, to: rng.random_range(0..len) }
        } else {
            let end = if rng.random_bool(0.8) { content } else { len };
            How::Flip { at: rng.random_range(0..end), mask: 1 << rng.random_range(0..8) }
        };
        Ok(Self { file, kind, how })
    }

    fn inflict(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        match self.how {
            How::Flip { at, mask } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ mask], at)?;
            }
            How::Truncate { to, .. } => file.set_len(to)?,
        }
        Ok(())
    }
}

/// Starts over the damage; what it came to, and what is wrong about that.
async fn judge(
    spec: &MemberSpec,
    template: &Template,
    words: &mut BTreeMap<String, u64>,
) -> Result<(Outcome, Vec<String>)> {
    let starting = spec.clone();
    let started = spawn_blocking(move || starting.start(START_DEADLINE)).await?;
    let mut findings: Vec<String> = panics_in(&spec.log)?
        .into_iter()
        .filter(|line| !line.contains("\"level\":\"fatal\""))
        .collect();
    let member = match started {
        Ok(member) => member,
        Err(error) => {
            let (text, code) = (fs::read_to_string(&spec.log)?, format!("{error:#}"));
            let fatal = text.lines().rfind(|line| line.contains("\"level\":\"fatal\""));
            let said = fatal.unwrap_or("no fatal line").to_owned();
            *words.entry(in_short(&said)).or_default() += 1;
            if !code.contains("member ended with exit status: 1") {
                findings.push(format!("no orderly refusal: {code}"));
            } else if !ADVICE.iter().any(|advice| said.contains(advice)) {
                findings.push(format!("refused without advice: {said}"));
            }
            return Ok((Outcome::Refused, findings));
        }
    };
    let client = Client::connect(&spec.endpoint()).await?;
    match Portrait::of(&client, &template.past).await {
        Ok(now) => findings.extend(template.portrait.difference(&now)),
        Err(error) => findings.push(format!("ready, but does not answer: {error:#}")),
    }
    let put = PutRequest { key: "after".into(), value: "1".into(), ..Default::default() };
    if let Err(error) = client.kv.clone().put(put).await {
        findings.push(format!("ready, but takes no put: {error}"));
    }
    let rebuilt = member.log_text()?.contains("state store rebuilt");
    spawn_blocking(move || member.kill()).await??;
    Ok(match (findings.is_empty(), rebuilt) {
        (false, _) => (Outcome::Wrong, findings),
        (true, true) => (Outcome::Rebuilt, findings),
        (true, false) => (Outcome::Served, findings),
    })
}

/// The message of a log line without what differs from round to round.
fn in_short(line: &str) -> String {
    let message = line.split_once("\"error\":").map_or(line, |(_, error)| error);
    let mut short = String::new();
    for char in message.chars() {
        let char = if char.is_ascii_digit() { '#' } else { char };
        if char != '#' || !short.ends_with('#') {
            short.push(char);
        }
    }
    short.truncate(short.char_indices().nth(160).map_or(short.len(), |(at, _)| at));
    short
}
