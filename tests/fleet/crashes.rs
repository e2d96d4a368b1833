//! Nodes that are killed while a fleet begins, grows and shrinks: whoever is killed, and whenever, in the end every node
//! is a voter that all others list, or is clean, and the fleet writes.
//!
//! As many rounds as fit into half a minute; `QUORATE_ROUNDS=<n>` asks for so many. A round that fails names its seed:
//! `QUORATE_SEED=<n> cargo test -p quorate --test fleet crashes` tries that one again. When a process is killed within
//! a step is not replayed: only which process, and which step.

use std::process::Child;
use std::time::Duration;

use quorate::fleet::store::StateStore as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use super::daemon::{Daemon, LONG};

/// As long as new rounds begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(25);

/// A node that was let in and never added is forgotten after a minute and a half: the longest that anything is odd.
const AGREES_WITHIN: Duration = Duration::from_secs(150);

/// So that a join which cannot come about is given up early.
const FLAGS: [&str; 4] = ["--log-level", "debug", "--call-timeout", "20"];

/// When a process is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as its log names this step.
    Step(&'static str),
    After(Duration),
}

impl Moment {
    fn draw(random: &mut StdRng, steps: &[&'static str], most_ms: u64) -> Moment {
        match steps.choose(random) {
            Some(step) if random.random_bool(0.6) => Moment::Step(step),
            Some(_) | None => Moment::After(Duration::from_millis(random.random_range(0..most_ms))),
        }
    }

    /// Waits for it, or for the command that it is part of.
    async fn come(self, victim: &Daemon, command: &mut Child) {
        let step = match self {
            Moment::After(wait) => return sleep(wait).await,
            Moment::Step(step) => format!("\"step\":\"{step}\""),
        };
        let deadline = Instant::now() + LONG;
        while !victim.log().contains(&step) {
            let ended = command.try_wait().expect("it is waited for").is_some();
            if ended || Instant::now() > deadline {
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Ends a process at its moment, and starts it anew a while later.
async fn kill(victim: &Daemon, moment: Moment, command: &mut Child, random: &mut StdRng) {
    moment.come(victim, command).await;
    victim.kill();
    sleep(Duration::from_millis(random.random_range(0..800))).await;
    victim.restart();
}

async fn ended(mut command: Child) -> bool {
    let deadline = Instant::now() + LONG;
    loop {
        match command.try_wait().expect("it is waited for") {
            Some(status) => return status.success(),
            None if Instant::now() > deadline => {
                command.kill().expect("it runs");
                return command.wait().expect("it is waited for").success();
            }
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What keeps the nodes from agreeing; `None`: nothing does, and each of them writes.
async fn disagreement(nodes: &[&Daemon]) -> Option<String> {
    let mut members = Vec::new();
    for node in nodes {
        match node.is_reset() {
            true => {}
            false if node.noted().contains("\"member\"") => members.push(*node),
            false => return Some(format!("{} is on its way: {}", node.name, node.noted())),
        }
    }
    for node in &members {
        let Some(status) = node.reached_status().await else {
            return Some(format!("{} does not tell", node.name));
        };
        let listed = status["membership"]["nodes"].as_array().cloned().unwrap_or_default();
        let voters = listed.iter().filter(|node| node["raft"] == "voter").count();
        let agrees = status["ready"] == true && status["membership"]["consistent"] == true;
        if !agrees || voters != listed.len() || voters != members.len() {
            return Some(format!("{} of {}: {status}", node.name, members.len()));
        }
        if let Err(why) = node.store().put(b"/written/last", node.name.as_bytes()).await {
            return Some(format!("{} does not write: {why}", node.name));
        }
    }
    None
}

async fn agree(nodes: &[&Daemon], story: &str) {
    let deadline = Instant::now() + AGREES_WITHIN;
    while let Some(why) = disagreement(nodes).await {
        if Instant::now() > deadline {
            let logs: Vec<String> = nodes.iter().map(|node| node.log()).collect();
            panic!("{story}: {why}\n{}", logs.join("\n----\n"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn start(name: &str) -> Daemon {
    Daemon::start_with(name, &FLAGS)
}

/// A fleet of so many nodes.
fn formed(count: usize) -> Vec<Daemon> {
    let nodes: Vec<Daemon> = (1..=count).map(|number| start(&format!("n{number}"))).collect();
    nodes[0].does(&["bootstrap"]);
    for node in &nodes[1..] {
        node.does(&["join-cluster", &nodes[0].token(&node.name)]);
    }
    nodes
}

async fn bootstrap(random: &mut StdRng, story: &str) {
    let steps = ["noted", "key", "certificates", "started", "ready", "agreed"];
    let moment = Moment::draw(random, &steps, 1500);
    let story = format!("{story}: a node that begins is killed at {moment:?}");
    eprintln!("{story}");
    let node = start("n1");
    let mut command = node.begins(&["bootstrap"]);
    kill(&node, moment, &mut command, random).await;
    ended(command).await;
    agree(&[&node], &story).await;
    if node.is_reset() {
        node.does(&["bootstrap"]);
    }
    agree(&[&node], &story).await;
    assert_eq!(node.voters().await, 1, "{story}");
}

async fn join(random: &mut StdRng, story: &str) {
    let mut nodes = formed(random.random_range(1..=2));
    nodes.push(start("joiner"));
    let victim = random.random_range(0..nodes.len());
    let steps: &[&'static str] = match (victim, nodes.len() - 1 - victim) {
        (_, 0) => &["joining", "let in", "catching up", "votes"],
        (0, _) => &["admitted", "added"],
        (_, _) => &[],
    };
    let moment = Moment::draw(random, steps, 2000);
    let of = nodes.len();
    let story =
        format!("{story}: of {of} with the joiner, number {victim} is killed at {moment:?}");
    eprintln!("{story}");
    let joiner = &nodes[of - 1];
    let mut command = joiner.begins(&["join-cluster", &nodes[0].token("joiner")]);
    kill(&nodes[victim], moment, &mut command, random).await;
    let joined = ended(command).await;
    let all: Vec<&Daemon> = nodes.iter().collect();
    agree(&all, &story).await;
    assert!(!joined || !joiner.is_reset(), "{story}: it was told that it is in");
}

async fn remove(random: &mut StdRng, story: &str) {
    let nodes = formed(3);
    let victim = random.random_range(0..nodes.len());
    let steps: &[&'static str] = if victim == 0 { &["out of raft"] } else { &[] };
    let moment = Moment::draw(random, steps, 700);
    let story =
        format!("{story}: while the last of 3 is removed, number {victim} is killed at {moment:?}");
    eprintln!("{story}");
    let mut command = nodes[0].begins(&["remove-node", "n3"]);
    kill(&nodes[victim], moment, &mut command, random).await;
    let removed = ended(command).await;
    let all: Vec<&Daemon> = nodes.iter().collect();
    agree(&all, &story).await;
    assert!(!removed || nodes[2].is_reset(), "{story}: it was told to be gone");
    if !nodes[2].is_reset() {
        nodes[0].does(&["remove-node", "n3"]);
        agree(&all, &story).await;
    }
    assert_eq!(nodes[0].voters().await, 2, "{story}");
}

async fn round(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let story = format!("QUORATE_SEED={seed} cargo test -p quorate --test fleet crashes");
    match seed % 4 {
        0 => bootstrap(&mut random, &story).await,
        1 => remove(&mut random, &story).await,
        _ => join(&mut random, &story).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_whoever_is_killed_and_whenever_the_nodes_agree_in_the_end() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("QUORATE_SEED") {
        return round(seed).await;
    }
    let first = rand::rng().random_range(0..1_000_000);
    match number("QUORATE_ROUNDS") {
        Some(rounds) => {
            for seed in first..first + rounds {
                round(seed).await;
            }
        }
        None => {
            let began = Instant::now();
            for seed in first.. {
                round(seed).await;
                if began.elapsed() > BEGINS_WITHIN {
                    break;
                }
            }
        }
    }
}
