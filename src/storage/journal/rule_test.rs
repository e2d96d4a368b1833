//! Each rule of the journal by its number (docs/DATA_FORMAT.md), and the proof that the test would see it broken:
//! the same scenario passes with the rule in force and finds a violation with it taken out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes};
use quorate_core::api::ids::{GroupId, LogId, MemberId};

use super::frame::{self, FRAME_HEADER};
use super::options::Rule;
use super::record::Record;
use super::segment::{FileName, SEGMENT_HEADER, SegmentHeader};
use super::*;
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

type Verdict = Result<(), String>;

/// The scenario finds nothing with all rules in force, and something without `rule`.
fn guards(rule: Rule, scenario: fn(Option<Rule>) -> Verdict) {
    scenario(None).expect("with the rule in force nothing is wrong");
    let found = scenario(Some(rule));
    assert!(found.is_err(), "without {rule:?} nothing is found");
}

const SEGMENT: u64 = 32 << 10;
const GROUP: GroupId = GroupId(1);

fn options(broken: Option<Rule>) -> JournalOptions {
    JournalOptions { segment_bytes: SEGMENT, seed: Some(11), broken, ..JournalOptions::default() }
}

fn open(device: &DoubleDevice, broken: Option<Rule>) -> Result<Journal, String> {
    let opened = Journal::open(Arc::new(device.clone()), options(broken), Runner::InPlace);
    opened.map_err(|error| error.to_string())
}

fn entry(index: u64, size: usize) -> LogRecord {
    LogRecord { id: LogId::new(1, index), payload: Bytes::from(vec![index as u8; size]) }
}

/// Appends one entry; whether it was acknowledged.
fn append(log: &GroupLog, index: u64, size: usize) -> bool {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&acknowledged);
    let done: Done =
        Box::new(move |result| told.store(u64::from(result.is_ok()), Ordering::SeqCst));
    log.append(vec![entry(index, size)], done).is_ok() && acknowledged.load(Ordering::SeqCst) == 1
}

/// The journal opens and holds entries `0 .. count` of the size given.
fn holds(device: &DoubleDevice, broken: Option<Rule>, count: u64, size: usize) -> Verdict {
    let log = open(device, broken)?.group(GROUP);
    let from = log.state().purged.map_or(0, |purged| purged.index + 1);
    let found = log.entries(from, u64::MAX, usize::MAX).map_err(|e| e.to_string())?;
    let expected: Vec<_> = (from..count).map(|index| entry(index, size)).collect();
    if found != expected {
        return Err(format!("{} entries of {}", found.len(), expected.len()));
    }
    Ok(())
}

fn refused(device: &DoubleDevice, broken: Option<Rule>) -> Verdict {
    match open(device, broken) {
        Ok(_) => Err("it opened".to_owned()),
        Err(_) => Ok(()),
    }
}

/// Offsets of the good frames of a segment, as bytes say.
fn frames(bytes: &[u8]) -> Vec<(u64, frame::FrameHeader)> {
    let salt = SegmentHeader::decode(bytes).expect("a good header").salt;
    let mut at = SEGMENT_HEADER;
    let mut found = Vec::new();
    while let Some(header) = frame::check(&bytes[at..], salt, at as u64) {
        found.push((at as u64, header));
        at += header.length as usize;
    }
    found
}

fn flip(device: &DoubleDevice, segment: u64, at: u64) {
    let name = FileName::live(segment);
    let mut bytes = device.contents(&name).expect("the segment is there");
    bytes[at as usize] ^= 1;
    device.damage(&name, Some(bytes));
}

fn mark(index: u64) -> BaseMark {
    BaseMark {
        at: LogId::new(1, index),
        generation: 1,
        file_name: format!("base-{index:08}.qb"),
        len: 1,
        content_hash: 2,
    }
}

/// Marks a base at `index` and lets everything up to it go.
fn rebase(log: &GroupLog, index: u64) -> Result<(), JournalError> {
    log.set_committed(LogId::new(1, index));
    log.mark_base(mark(index), Box::new(|_| {}))?;
    log.purge_to(LogId::new(1, index))
}

#[test]
fn rule_1_a_rotten_frame_before_a_proven_one_refuses() {
    guards(Rule::RotRefuses, |broken| {
        let device = DoubleDevice::default();
        let log = open(&device, broken)?.group(GROUP);
        for index in 0..3 {
            assert!(append(&log, index, 100));
        }
        let bytes = device.contents(&FileName::live(1)).expect("it is there");
        flip(&device, 1, frames(&bytes)[1].0 + 60);
        refused(&device.after_kill(), broken)
    });
}

#[test]
fn rule_1_a_torn_last_frame_is_cut() {
    for tear in 0..60 {
        let device = DoubleDevice::default();
        let log = open(&device, None).unwrap().group(GROUP);
        assert!(append(&log, 0, 6000));
        device.freeze_at(device.syncs());
        assert!(!append(&log, 1, 6000));
        let after = device.after_power_cut(tear);
        let log = open(&after, None).expect("a torn tail opens").group(GROUP);
        let found = log.entries(0, 9, usize::MAX).unwrap();
        assert!(found.len() == 1 || found[1] == entry(1, 6000));
        assert_eq!(found[0], entry(0, 6000));
    }
}

#[test]
fn rule_2_a_segment_of_the_wrong_size_refuses() {
    guards(Rule::ChainChecked, |broken| {
        let device = DoubleDevice::default();
        let log = open(&device, broken)?.group(GROUP);
        for index in 0..3 {
            assert!(append(&log, index, 100));
        }
        let name = FileName::live(1);
        let mut bytes = device.contents(&name).expect("it is there");
        let third = frames(&bytes)[2].0;
        bytes.truncate(third as usize);
        device.damage(&name, Some(bytes));
        refused(&device.after_kill(), broken)
    });
}

#[test]
fn rule_2_a_frame_of_another_history_refuses() {
    guards(Rule::ChainChecked, |broken| {
        let device = DoubleDevice::default();
        let journal = open(&device, broken)?;
        assert!(append(&journal.group(GROUP), 0, 100));
        journal.close().map_err(|e| e.to_string())?;
        let fork = device.after_kill();
        let name = FileName::live(1);
        let write = |device: &DoubleDevice, size| -> Result<Vec<u8>, String> {
            let log = open(device, broken)?.group(GROUP);
            assert!(append(&log, 1, size) && append(&log, 2, 200));
            Ok(device.contents(&name).expect("it is there"))
        };
        let mut ours = write(&device, 100)?;
        let theirs = write(&fork, 99)?;
        // The second append differs within its padding; the third lies at the same place in both.
        let (at, header) = frames(&theirs)[2];
        let range = at as usize..at as usize + header.length as usize;
        assert_eq!(frames(&ours)[2].0, at);
        ours[range.clone()].copy_from_slice(&theirs[range]);
        device.damage(&name, Some(ours));
        refused(&device.after_kill(), broken)
    });
}

#[test]
fn rule_2_leftovers_of_a_recycled_segment_never_pass() {
    guards(Rule::SaltSeedsCrc, |broken| {
        let device = DoubleDevice::default();
        let journal = open(&device, broken)?;
        let log = journal.group(GROUP);
        let mut next = 0;
        while journal.usage().segments_recycled < 4 {
            assert!(append(&log, next, 1000));
            next += 1;
            if next % 20 == 0 {
                rebase(&log, next - 2).map_err(|e| e.to_string())?;
            }
            if journal.usage().segments_recycled > 0 {
                holds(&device.after_kill(), broken, next, 1000)?;
            }
        }
        Ok(())
    });
}

#[test]
fn rule_2_a_lost_segment_refuses() {
    let device = DoubleDevice::default();
    let journal = open(&device, None).unwrap();
    let log = journal.group(GROUP);
    for index in 0..100 {
        assert!(append(&log, index, 1000));
    }
    let live = journal.usage().segments;
    assert!(live > 3);
    for lost in 1..=live {
        let device = device.after_kill();
        device.damage(&FileName::live(lost), None);
        refused(&device, None).expect("every segment is missed, the last one too");
    }
}

#[test]
fn rule_3_what_was_possibly_never_synced_is_written_anew() {
    guards(Rule::Rewrites, |broken| {
        let device = DoubleDevice::default();
        let log = open(&device, broken)?.group(GROUP);
        assert!(append(&log, 0, 100));
        // The failed sync leaves clean pages in the cache that are not on the disk.
        device.fail_sync_at(device.syncs());
        assert!(!append(&log, 1, 7000));
        let device = device.after_kill();
        let log = open(&device, broken)?.group(GROUP);
        let next = log.state().last.map_or(0, |last| last.index + 1);
        assert!(append(&log, next, 7000));
        let after = device.after_power_cut(0);
        let found = open(&after, broken)?.group(GROUP);
        match found.state().last {
            Some(last) if last.index == next => Ok(()),
            other => Err(format!("entry {next} was acknowledged, the log ends at {other:?}")),
        }
    });
}

/// A history of bases and recycled segments, the power cut at every sync; `what is acknowledged` must be there.
fn cut_while_recycling(broken: Option<Rule>) -> Verdict {
    for at in 0.. {
        let device = DoubleDevice::default();
        let journal = open(&device, broken)?;
        let log = journal.group(GROUP);
        device.freeze_at(device.syncs() + at);
        let mut next = 0;
        while !device.is_frozen() && next < 150 && append(&log, next, 1000) {
            next += 1;
            if next % 20 == 0 && rebase(&log, next - 2).is_err() {
                break;
            }
        }
        let finished = !device.is_frozen();
        let after = device.after_power_cut(at);
        let log = open(&after, broken)?.group(GROUP);
        let last = log.state().last.map_or(0, |last| last.index + 1);
        if last < next {
            return Err(format!("{next} acknowledged, {last} found after a cut at sync {at}"));
        }
        if finished {
            break;
        }
    }
    Ok(())
}

#[test]
fn rule_4_the_floor_is_synced_before_segments_go() {
    guards(Rule::FloorFirst, cut_while_recycling);
}

#[test]
fn rule_4_a_name_is_synced_before_the_first_frame() {
    guards(Rule::NameSynced, cut_while_recycling);
}

#[test]
fn rule_5_rot_in_the_very_last_frame_is_seen_once_sealed() {
    guards(Rule::Seals, |broken| {
        for closing in [false, true] {
            let device = DoubleDevice::default();
            let journal = open(&device, broken)?;
            assert!(append(&journal.group(GROUP), 0, 100));
            let bytes = device.contents(&FileName::live(1)).expect("it is there");
            let last = frames(&bytes).last().expect("there is a frame").0;
            if closing {
                journal.close().map_err(|e| e.to_string())?;
            } else {
                journal.idle();
            }
            flip(&device, 1, last + 60);
            refused(&device.after_kill(), broken)?;
        }
        Ok(())
    });
}

#[test]
fn rule_6_a_failed_sync_ends_the_journal() {
    guards(Rule::Poisons, |broken| {
        let device = DoubleDevice::default();
        let journal = open(&device, broken)?;
        let log = journal.group(GROUP);
        assert!(append(&log, 0, 7000));
        device.fail_sync_at(device.syncs());
        let mut acknowledged = 1;
        for index in 1..3 {
            if append(&log, index, 7000) {
                acknowledged = index + 1;
            }
        }
        drop(log);
        holds(&device.after_power_cut(0), broken, acknowledged, 7000)?;
        match journal.poisoned() {
            Some(_) => Ok(()),
            None => Err("it goes on".to_owned()),
        }
    });
}

#[test]
fn rule_6_a_full_disk_refuses_growth_and_is_tried_again() {
    let device = DoubleDevice::with_capacity(3 * SEGMENT);
    let opened = Journal::open(Arc::new(device.clone()), options(None), Runner::Thread);
    let journal = opened.unwrap();
    let log = journal.group(GROUP);
    assert!(!journal.growth_refused(0));
    device.set_capacity(2 * SEGMENT);
    assert!(journal.growth_refused(0));
    let (told, answers) = std::sync::mpsc::channel();
    for index in 0..100 {
        let told = told.clone();
        let done: Done = Box::new(move |result| told.send(result.is_ok()).expect("we listen"));
        log.append(vec![entry(index, 1000)], done).unwrap();
    }
    device.set_capacity(100 * SEGMENT);
    assert!(answers.iter().take(100).all(|durable| durable));
    assert_eq!(journal.poisoned(), None);
    drop(log);
    journal.close().unwrap();
    holds(&device.after_kill(), None, 100, 1000).unwrap();
}

#[test]
fn rule_7_a_stamp_never_runs_ahead_of_the_entries() {
    guards(Rule::StampsWithin, |broken| {
        let device = DoubleDevice::default();
        let log = open(&device, broken)?.group(GROUP);
        assert!(append(&log, 0, 100));
        log.set_committed(LogId::new(1, 5));
        assert!(append(&log, 1, 100));
        let log = open(&device.after_kill(), broken)?.group(GROUP);
        let committed = log.state().committed;
        if committed.is_some_and(|committed| committed.index > 1) {
            return Err(format!("committed {committed:?}"));
        }
        Ok(())
    });
}

/// Adds a frame of `records`, good but for what they say, after the last frame of segment 1.
fn forge(device: &DoubleDevice, records: &[Record]) {
    let name = FileName::live(1);
    let mut bytes = device.contents(&name).expect("it is there");
    let salt = SegmentHeader::decode(&bytes).expect("a good header").salt;
    let (at, last) = *frames(&bytes).last().expect("there is a frame");
    let offset = at + u64::from(last.length);
    let mut frame = vec![0; FRAME_HEADER];
    for record in records {
        record.encode(GROUP, &mut frame);
    }
    let (sequence, count) = (last.sequence + 1, records.len() as u32);
    frame::finish(&mut frame, salt, offset, last.crc, sequence, sequence, count);
    let mut rest = &mut bytes[offset as usize..];
    rest.put_slice(&frame);
    device.damage(&name, Some(bytes));
}

#[test]
fn rule_8_replay_refuses_what_no_log_can_say() {
    guards(Rule::ReplayChecks, |broken| {
        let vote =
            |term| Record::Vote(Vote { term, voted_for: Some(MemberId(1)), committed: false });
        let gap = Record::Entry { entry: entry(9, 10), restated: false };
        let truncation = Record::TruncateFrom { from: 2, last: Some(LogId::new(1, 1)) };
        for impossible in [vote(4), gap, truncation] {
            let device = DoubleDevice::default();
            let log = open(&device, broken)?.group(GROUP);
            let taken = log
                .save_vote(Vote { term: 5, voted_for: None, committed: false }, Box::new(|_| {}));
            taken.map_err(|e| e.to_string())?;
            for index in 0..4 {
                assert!(append(&log, index, 10));
            }
            log.set_committed(LogId::new(1, 3));
            assert!(append(&log, 4, 10));
            forge(&device, &[impossible]);
            refused(&device.after_kill(), broken)?;
        }
        Ok(())
    });
}

#[test]
fn rule_9_an_idle_group_keeps_its_vote_when_segments_go() {
    guards(Rule::Restates, |broken| {
        let device = DoubleDevice::default();
        let journal = open(&device, broken)?;
        let idle = journal.group(GroupId(7));
        let vote = Vote { term: 3, voted_for: Some(MemberId(2)), committed: true };
        let taken = idle.save_vote(vote, Box::new(|_| {}));
        taken.map_err(|e| e.to_string())?;
        let busy = journal.group(GROUP);
        let mut next = 0;
        while journal.usage().segments_recycled == 0 {
            assert!(append(&busy, next, 1000));
            next += 1;
            if next % 20 == 0 {
                rebase(&busy, next - 2).map_err(|e| e.to_string())?;
            }
        }
        let found = open(&device.after_power_cut(0), broken)?.group(GroupId(7)).state().vote;
        if found != Some(vote) {
            return Err(format!("the vote is {found:?}"));
        }
        Ok(())
    });
}

#[test]
fn rule_9_a_few_old_entries_do_not_keep_the_whole_journal() {
    guards(Rule::MovesPinned, |broken| {
        let device = DoubleDevice::default();
        let limit = 6 * SEGMENT;
        let options = JournalOptions { retained_bytes_max: limit, ..options(broken) };
        let opened = Journal::open(Arc::new(device.clone()), options, Runner::InPlace);
        let journal = opened.map_err(|e| e.to_string())?;
        let idle = journal.group(GroupId(7));
        for index in 0..5 {
            assert!(append(&idle, index, 500));
        }
        let busy = journal.group(GROUP);
        for next in 0..600 {
            assert!(append(&busy, next, 1000));
            if next % 20 == 19 {
                rebase(&busy, next - 2).map_err(|e| e.to_string())?;
            }
        }
        let live = journal.usage().segment_bytes;
        if live > limit + 2 * SEGMENT {
            return Err(format!("{live} bytes are live"));
        }
        let expected: Vec<_> = (0..5).map(|index| entry(index, 500)).collect();
        assert_eq!(idle.entries(0, 9, usize::MAX).unwrap(), expected);
        let again = open(&device.after_power_cut(0), broken)?.group(GroupId(7));
        assert_eq!(again.entries(0, 9, usize::MAX).unwrap(), expected);
        Ok(())
    });
}

#[test]
fn rule_10_an_install_drops_a_log_of_another_history() {
    guards(Rule::InstallDrops, |broken| {
        let device = DoubleDevice::default();
        let log = open(&device, broken)?.group(GROUP);
        for index in 0..10 {
            assert!(append(&log, index, 100));
        }
        for (snapshot, last) in [(LogId::new(1, 3), 9), (LogId::new(2, 5), 5)] {
            let install = InstallMark {
                snapshot,
                generation: snapshot.index,
                base: BaseMark { at: snapshot, ..mark(0) },
                membership: Bytes::new(),
            };
            let installed = log.install(install, Box::new(|_| {}));
            installed.map_err(|e| e.to_string())?;
            for state in [log.state(), open(&device.after_kill(), broken)?.group(GROUP).state()] {
                let purged_and_committed = (state.purged, state.committed);
                assert_eq!(purged_and_committed, (Some(snapshot), Some(snapshot)));
                if state.last.is_none_or(|found| found.index != last) {
                    return Err(format!("the log ends at {:?}", state.last));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_lost_or_foreign_journal_is_told_from_a_first_start() {
    let device = DoubleDevice::default();
    let journal = open(&device, None).unwrap();
    let expect = |id, device: &DoubleDevice| {
        let options = JournalOptions { expected: Some(id), ..options(None) };
        Journal::open(Arc::new(device.clone()), options, Runner::InPlace)
    };
    assert!(expect(journal.id(), &device.after_kill()).is_ok());
    let foreign = expect(JournalId([9; 16]), &device.after_kill());
    assert!(matches!(foreign, Err(JournalError::Foreign { .. })), "{foreign:?}");
    let lost = expect(journal.id(), &DoubleDevice::default());
    assert!(matches!(lost, Err(JournalError::Lost { .. })), "{lost:?}");
    assert!(DoubleDevice::default().list().unwrap().is_empty());
}
