//! Damaged files: rot, truncation, lost and swapped files either refuse, or change nothing that was acknowledged.
//! Guards against the silent losses that every log library tried had (docs/decisions).

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::ids::{GroupId, LogId, MemberId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::record::GroupState;
use super::segment::FileName;
use super::*;
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

const SEGMENT: usize = 32 << 10;
const DAMAGES: u64 = 400;

type Contents = Vec<(GroupState, Vec<LogRecord>)>;

fn open(device: &DoubleDevice) -> Result<Journal, JournalError> {
    let options = JournalOptions {
        segment_bytes: SEGMENT as u64,
        seed: Some(3),
        ..JournalOptions::default()
    };
    Journal::open(Arc::new(device.clone()), options, Runner::InPlace)
}

fn contents(journal: &Journal) -> Result<Contents, JournalError> {
    let read = |id| {
        let log = journal.group(GroupId(id));
        let state = log.state();
        let from = state.purged.map_or(0, |purged| purged.index + 1);
        Ok((state, log.entries(from, u64::MAX, usize::MAX)?))
    };
    (0..3).map(read).collect()
}

/// Several segments of three groups; all of it acknowledged, and sealed as an idle member leaves it.
fn healthy() -> (DoubleDevice, Contents) {
    let device = DoubleDevice::default();
    let journal = open(&device).unwrap();
    for round in 0..30_u64 {
        for id in 0..3 {
            let log = journal.group(GroupId(id));
            let vote = Vote { term: round + 1, voted_for: Some(MemberId(id)), committed: true };
            log.save_vote(vote, Box::new(|_| {})).unwrap();
            let records = (round * 5..round * 5 + 5).map(|index| LogRecord {
                id: LogId::new(round + 1, index),
                payload: Bytes::from(vec![round as u8; 350]),
            });
            log.append(records.collect(), Box::new(|_| {})).unwrap();
            log.set_committed(LogId::new(round + 1, round * 5 + 2));
        }
    }
    journal.idle();
    let contents = contents(&journal).unwrap();
    (device.after_kill(), contents)
}

/// Damages one file, or its name; says how.
fn damage(device: &DoubleDevice, rng: &mut StdRng) -> String {
    let live: Vec<String> = device
        .list()
        .unwrap()
        .into_iter()
        .filter(|name| matches!(FileName::parse(name), FileName::Live(_)))
        .collect();
    let name = live[rng.random_range(0..live.len())].clone();
    let mut bytes = device.contents(&name).unwrap();
    let at = rng.random_range(0..bytes.len());
    let what = match rng.random_range(0..8) {
        0..3 => {
            bytes[at] ^= 1 << rng.random_range(0..8);
            format!("bit of byte {at}")
        }
        3 => {
            let end = (at + rng.random_range(1..600)).min(bytes.len());
            rng.fill(&mut bytes[at..end]);
            format!("bytes {at}..{end} at random")
        }
        4 => {
            let page = at / 4096 * 4096;
            bytes[page..page + 4096].fill(0);
            format!("page at {page} zeroed")
        }
        5 => {
            bytes.truncate(at);
            format!("truncated to {at}")
        }
        6 => {
            let other = live[rng.random_range(0..live.len())].clone();
            bytes = device.contents(&other).unwrap();
            format!("replaced by {other}")
        }
        _ => {
            device.damage(&name, None);
            return format!("{name}: removed");
        }
    };
    device.damage(&name, Some(bytes));
    format!("{name}: {what}")
}

#[test]
fn damage_to_acknowledged_data_refuses_or_is_harmless() {
    let (device, expected) = healthy();
    let seeds = match std::env::var("JOURNAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("JOURNAL_SEED is a number")],
        Err(_) => (0..DAMAGES).collect(),
    };
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds {
        let again = format!(
            "JOURNAL_SEED={seed} cargo test -p quorate --lib storage::journal::damage_test"
        );
        let device = device.after_kill();
        let what = damage(&device, &mut StdRng::seed_from_u64(seed));
        let found = open(&device).and_then(|journal| contents(&journal));
        match found {
            Err(JournalError::Damaged { .. } | JournalError::Newer { .. }) => refused += 1,
            Err(error) => panic!("{what}: not told as damage: {error}: {again}"),
            Ok(found) if found == expected => harmless += 1,
            Ok(_) => panic!("{what}: opened with other content: {again}"),
        }
    }
    println!("{refused} refused, {harmless} harmless");
}

#[test]
fn a_flip_while_running_is_found_by_the_reader() {
    let (device, _) = healthy();
    let journal = open(&device).unwrap();
    let name = FileName::live(2);
    let file = device.open(&name).unwrap();
    for at in (5000..20_000).step_by(700) {
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 4]).unwrap();
    }
    let read: Result<Contents, _> = contents(&journal);
    assert!(matches!(read, Err(JournalError::Damaged { .. })), "{read:?}");
}
