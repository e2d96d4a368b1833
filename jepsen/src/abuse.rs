//! What no client and no operator should do, and what must come of it: a clear refusal, nothing lost, nothing hung.
//!
//! ```text
//! member under a beat of puts ── garbage on its port ── 100,000 watches on one stream ── too long a request
//! beside it ── a second process on its ports, on its directory, on a file, on a directory put together from two
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::bench::usage;
use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace, free_port, panics_in};
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use crate::verdict::Verdict;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Whatever is done to it, a member answers a put within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// A start that is refused ends within this.
const REFUSAL: Duration = Duration::from_secs(15);
/// Events told to a crowd.
const EVENTS: usize = 1000;
const TOO_LARGE: &str = "etcdserver: request is too large";

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test.
    #[arg(long)]
    ours: PathBuf,
    /// Watches on one stream.
    #[arg(long, default_value_t = 100_000)]
    watches: usize,
    /// Connections that talk garbage.
    #[arg(long, default_value_t = 300)]
    strangers: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs all of it against one member.
pub(crate) async fn abuse(options: &Options) -> Result<Verdict> {
    let workspace = Workspace::create("abuse")?;
    println!("seed {}, in {}", options.seed, workspace.path().display());
    let spec = MemberSpec::single(&options.ours, workspace.path(), "abused")?;
    let member = spec.start(START_DEADLINE)?;
    let mut findings = Vec::new();
    let mut beat = Beat::new(&spec).await?;
    garbage(options, &spec, &mut beat, &mut findings).await?;
    crowd(options, &member, &mut beat, &mut findings).await?;
    too_long(&spec, &mut findings).await?;
    starts(&member, workspace.path(), &mut findings)?;
    beat.check(&mut findings).await?;
    let (spec, status) = member.stop(START_DEADLINE)?;
    if !status.success() {
        findings.push(format!("SIGTERM afterwards: {status}"));
    }
    mixed(&spec, workspace.path(), &mut findings)?;
    findings.extend(panics_in(&spec.log)?);
    if findings.is_empty() {
        workspace.discard()?;
    }
    Ok(Verdict::of(findings))
}

/// Puts of a client that behaves, between the others: answered in time, and all there at the end.
struct Beat {
    client: Client,
    puts: u64,
    slowest: Duration,
}

impl Beat {
    async fn new(spec: &MemberSpec) -> Result<Self> {
        let client = Client::connect(&spec.endpoint()).await?;
        Ok(Self { client, puts: 0, slowest: Duration::ZERO })
    }

    async fn put(&mut self, after: &str, findings: &mut Vec<String>) {
        let begun = Instant::now();
        let key = format!("beat/{:06}", self.puts).into();
        let put = PutRequest { key, value: after.to_owned().into(), ..PutRequest::default() };
        match tokio::time::timeout(PATIENCE, self.client.kv.put(put)).await {
            Ok(Ok(_)) => self.puts += 1,
            Ok(Err(status)) => findings.push(format!("a put after {after}: {status}")),
            Err(_) => findings.push(format!("a put after {after} took over {PATIENCE:?}")),
        }
        self.slowest = self.slowest.max(begun.elapsed());
    }

    async fn check(&mut self, findings: &mut Vec<String>) -> Result<()> {
        let all = RangeRequest {
            key: "beat/".into(),
            range_end: "beat0".into(),
            count_only: true,
            ..RangeRequest::default()
        };
        let count = self.client.kv.range(all).await?.into_inner().count;
        if u64::try_from(count)? != self.puts {
            findings.push(format!("{} puts were acknowledged, {count} are there", self.puts));
        }
        println!("{} puts meanwhile, slowest {:.0?}", self.puts, self.slowest);
        Ok(())
    }
}

/// What a stranger says, by number.
fn nonsense(kind: usize, rng: &mut StdRng) -> Vec<u8> {
    let mut noise = vec![0; rng.random_range(1..20_000)];
    rng.fill_bytes(&mut noise);
    let after = |head: &[u8], noise: &[u8]| [head, noise].concat();
    match kind % 8 {
        0 => noise,
        1 => after(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &noise),
        // An empty SETTINGS, then a HEADERS frame that promises more than it brings.
        2 => after(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\xff\xff\x01\x04\0\0\0\x01",
            &noise,
        ),
        // A TLS hello at a port without TLS.
        3 => after(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", &noise),
        4 => b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .to_vec(),
        5 => after(
            b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            &noise,
        ),
        6 => [b"GET /".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        // Half a request, and silence.
        _ => b"PRI * HTTP/2.0\r\n".to_vec(),
    }
}

async fn garbage(
    options: &Options,
    spec: &MemberSpec,
    beat: &mut Beat,
    findings: &mut Vec<String>,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut open = Vec::new();
    let mut answered = 0;
    for kind in 0..options.strangers {
        let mut stream = TcpStream::connect(("127.0.0.1", spec.client_port)).await?;
        // The member may hang up in the middle of it.
        let _refused = stream.write_all(&nonsense(kind, &mut rng)).await;
        let mut answer = [0; 256];
        let wait = Duration::from_millis(5);
        if let Ok(Ok(1..)) = tokio::time::timeout(wait, stream.read(&mut answer)).await {
            answered += 1;
        }
        open.push(stream);
        beat.put("garbage", findings).await;
    }
    println!("{} strangers talked garbage, {answered} got an answer", options.strangers);
    drop(open);
    beat.put("strangers went", findings).await;
    Ok(())
}

async fn crowd(
    options: &Options,
    member: &Member,
    beat: &mut Beat,
    findings: &mut Vec<String>,
) -> Result<()> {
    let resident = || usage::resident_mib(member.pid()).map(|(anonymous, file)| anonymous + file);
    let before = resident()?;
    let mut client = Client::connect(&member.spec().endpoint()).await?;
    let (ask, asked) = mpsc::channel(1024);
    let mut answers = client.watch.watch(ReceiverStream::new(asked)).await?.into_inner();
    let begun = Instant::now();
    let count = options.watches;
    let asking = tokio::spawn(async move {
        for n in 0..count {
            let create = WatchCreateRequest {
                key: format!("crowd/{n:06}").into(),
                ..WatchCreateRequest::default()
            };
            let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            if ask.send(request).await.is_err() {
                break;
            }
        }
        ask
    });
    let mut created = 0;
    while created < count {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        let answer = answer.context("no answer to a watch")??.context("the stream ended")?;
        ensure!(answer.created && !answer.canceled, "watch {created} was refused: {answer:?}");
        created += 1;
    }
    let ask = asking.await?;
    let took = begun.elapsed();
    let after = resident()?;
    println!("{count} watches on one stream in {took:.1?}, resident {before:.0} to {after:.0} MiB");
    beat.put("a crowd of watches", findings).await;
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut told = std::collections::BTreeMap::new();
    let begun = Instant::now();
    for _ in 0..EVENTS {
        let key = Bytes::from(format!("crowd/{:06}", rng.random_range(0..count)));
        *told.entry(key.clone()).or_insert(0) += 1;
        client.kv.put(PutRequest { key, ..PutRequest::default() }).await?;
    }
    let mut events = 0;
    while events < EVENTS {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        let Ok(answer) = answer else {
            findings.push(format!("{events} of {EVENTS} events reached the crowd"));
            break;
        };
        for event in answer?.context("the stream ended")?.events {
            let key = event.kv.context("an event has a key")?.key;
            match told.get_mut(&key) {
                Some(left @ 1..) => *left -= 1,
                _ => findings.push(format!("an event too many of {}", key.escape_ascii())),
            }
            events += 1;
        }
    }
    println!("{events} events to them in {:.1?}", begun.elapsed());
    drop((ask, answers));
    beat.put("the crowd went", findings).await;
    Ok(())
}

async fn too_long(spec: &MemberSpec, findings: &mut Vec<String>) -> Result<()> {
    let mut client = Client::connect(&spec.endpoint()).await?;
    let put = |bytes: usize| PutRequest {
        key: "long".into(),
        value: vec![b'x'; bytes].into(),
        ..PutRequest::default()
    };
    client.kv.put(put((1536 << 10) - 64)).await.context("a put just below the limit")?;
    match client.kv.put(put(1536 << 10)).await {
        Err(status) if status.message() == TOO_LARGE => {}
        other => findings.push(format!("a put above the limit: {other:?}")),
    }
    match client.kv.put(put(16 << 20)).await {
        Err(status) if status.code() == tonic::Code::ResourceExhausted => {}
        other => findings.push(format!("a put of 16 MiB: {:?}", other.map(drop))),
    }
    Ok(())
}

/// How a start ended that had to be refused: its exit code and all it said.
fn refused(spec: &MemberSpec, expected: &[&str], findings: &mut Vec<String>) -> Result<()> {
    let out = spec.log.with_extension("refused");
    let file = fs::File::create(&out)?;
    let mut child =
        spec.command().stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > REFUSAL {
            child.kill()?;
            child.wait()?;
            findings.push(format!("not refused within {REFUSAL:?}: {}", fs::read_to_string(&out)?));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = fs::read_to_string(&out)?;
    let missing: Vec<_> = expected.iter().filter(|words| !text.contains(**words)).collect();
    if status.success() || !missing.is_empty() || text.contains("panicked") {
        findings.push(format!("{status}, does not say {missing:?}: {text}"));
    }
    let last = text.lines().last().unwrap_or_default();
    println!("refused with {}: {last}", status.code().unwrap_or(-1));
    Ok(())
}

/// Starts beside the running member that must not succeed.
fn starts(member: &Member, root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let running = member.spec();
    let elsewhere = |name: &str| -> Result<MemberSpec> {
        Ok(MemberSpec {
            data_dir: root.join(format!("{name}.data")),
            log: root.join(format!("{name}.log")),
            client_port: free_port()?,
            peer_port: free_port()?,
            ..running.clone()
        })
    };
    let ports = MemberSpec {
        client_port: running.client_port,
        peer_port: running.peer_port,
        ..elsewhere("ports")?
    };
    refused(&ports, &["address already in use"], findings)?;
    let held_by = format!("in use by process {}", member.pid());
    let held = MemberSpec { data_dir: running.data_dir.clone(), ..elsewhere("held")? };
    refused(&held, &[&held_by], findings)?;
    let file = elsewhere("file")?;
    fs::write(&file.data_dir, b"not a directory")?;
    refused(&file, &["not a directory"], findings)?;
    let unwritable = MemberSpec { data_dir: PathBuf::from("/proc/quorate"), ..elsewhere("proc")? };
    refused(&unwritable, &["/proc/quorate"], findings)?;
    let mut flags = elsewhere("flags")?;
    flags.extra.push("--no-such-flag=1".to_owned());
    refused(&flags, &["no-such-flag"], findings)
}

/// A directory put together from those of two members.
fn mixed(stopped: &MemberSpec, root: &Path, findings: &mut Vec<String>) -> Result<()> {
    let other = MemberSpec::single(&stopped.binary, root, "other")?;
    let (other, status) = other.start(START_DEADLINE)?.stop(START_DEADLINE)?;
    ensure!(status.success(), "the other member ended with {status}");
    let journal = other.data_dir.join("member/journal");
    fs::remove_dir_all(&journal)?;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(stopped.data_dir.join("member/journal"))
        .arg(&journal)
        .status()?;
    if !copied.success() {
        bail!("cannot copy a journal: {copied}");
    }
    refused(&other, &["journal"], findings)
}
