//! The journal as its callers see it: what is acknowledged is there after a close, a kill and a power cut.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::{GroupId, LogId, MemberId};

use super::*;
use crate::storage::device::FileDevice;
use crate::storage::device::double::DoubleDevice;

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 64 << 10, seed: Some(7), ..JournalOptions::default() }
}

fn open(device: &DoubleDevice) -> Journal {
    Journal::open(Arc::new(device.clone()), options(), Runner::InPlace).expect("it opens")
}

fn entry(term: u64, index: u64) -> LogRecord {
    LogRecord {
        id: LogId::new(term, index),
        payload: Bytes::from(format!("{term}/{index}").repeat(20)),
    }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<LogRecord> {
    range.map(|index| entry(term, index)).collect()
}

fn must() -> Done {
    Box::new(|result| result.expect("the change is durable"))
}

#[test]
fn what_was_written_is_there_after_a_close() {
    let device = DoubleDevice::default();
    let journal = open(&device);
    let log = journal.group(GroupId(3));
    let vote = Vote { term: 4, voted_for: Some(MemberId(9)), committed: true };
    log.save_vote(vote, must()).unwrap();
    log.append(entries(4, 0..50), must()).unwrap();
    log.set_committed(LogId::new(4, 30));
    log.truncate_from(40, must()).unwrap();
    log.append(entries(5, 40..45), must()).unwrap();
    let before = log.state();
    journal.idle();
    journal.close().unwrap();
    drop(log);

    let journal = open(&device);
    assert!(journal.report().closed);
    let log = journal.group(GroupId(3));
    assert_eq!(log.state(), before);
    let mut expected = entries(4, 0..40);
    expected.extend(entries(5, 40..45));
    assert_eq!(log.entries(0, u64::MAX, usize::MAX).unwrap(), expected);
    log.append(entries(5, 45..46), must()).unwrap();
    drop((journal, log));

    let journal = open(&device.after_power_cut(1));
    assert!(!journal.report().closed);
    expected.extend(entries(5, 45..46));
    let log = journal.group(GroupId(3));
    assert_eq!(log.entries(0, u64::MAX, usize::MAX).unwrap(), expected);
}

#[test]
fn segments_are_recycled_behind_a_base() {
    let device = DoubleDevice::default();
    let journal = open(&device);
    let log = journal.group(GroupId(0));
    let mut next = 0;
    for round in 0..20 {
        for _ in 0..10 {
            log.append(entries(1, next..next + 30), must()).unwrap();
            next += 30;
        }
        let at = LogId::new(1, next - 10);
        log.set_committed(at);
        let mark = BaseMark {
            at,
            generation: 1,
            file_name: format!("base-{round}.qb"),
            len: 1,
            content_hash: 2,
        };
        log.mark_base(mark, must()).unwrap();
        log.purge_to(at).unwrap();
    }
    let usage = journal.usage();
    assert!(usage.segments <= 2, "{usage:?}");
    assert!(usage.segments_recycled > 3, "{usage:?}");
    // Nothing was idle: each sync ended a frame or began a segment.
    let begun = usage.segments_created + usage.segments_recycled;
    assert_eq!(usage.syncs, usage.frames + begun, "{usage:?}");
    assert!(usage.bytes_written > usage.segments_recycled * (32 << 10), "{usage:?}");
    assert_eq!(usage.bytes_zeroed % options().segment_bytes, 0, "{usage:?}");
    assert!(usage.bytes_zeroed >= usage.segments_created * options().segment_bytes, "{usage:?}");
    let before = log.state();
    drop((journal, log));

    let log = open(&device.after_power_cut(5)).group(GroupId(0));
    assert_eq!(log.state(), before);
    assert_eq!(log.entries(next - 9, next, usize::MAX).unwrap(), entries(1, next - 9..next));
}

#[test]
fn a_thread_writes_to_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let real = || Arc::new(FileDevice::open(&folder.path().join("journal")).unwrap());
    let journal = Journal::open(real(), options(), Runner::Thread).unwrap();
    let log = journal.group(GroupId(0));
    let (told, done) = mpsc::channel();
    for index in 0..2000 {
        let told = told.clone();
        let note: Done = Box::new(move |result| told.send((index, result.is_ok())).unwrap());
        log.append(vec![entry(1, index)], note).unwrap();
    }
    let answers: Vec<_> = done.iter().take(2000).collect();
    assert_eq!(answers, (0..2000).map(|index| (index, true)).collect::<Vec<_>>());
    assert!(log.wait_durable(1999, Duration::from_secs(10)).unwrap());
    drop(log);
    journal.close().unwrap();

    let journal = Journal::open(real(), options(), Runner::Thread).unwrap();
    let log = journal.group(GroupId(0));
    assert_eq!(log.entries(0, 2000, usize::MAX).unwrap(), entries(1, 0..2000));
}

#[test]
fn a_stepped_journal_acknowledges_what_was_stepped_and_keeps_no_more() {
    let device = DoubleDevice::default();
    let open = |device: &DoubleDevice| {
        Journal::open(Arc::new(device.clone()), options(), Runner::Stepped).expect("it opens")
    };
    let journal = open(&device);
    let log = journal.group(GroupId(3));
    let (tell, told) = mpsc::channel();
    let done = |name: &'static str| -> Done {
        let tell = tell.clone();
        Box::new(move |result| {
            result.expect("it is durable");
            tell.send(name).expect("the test listens");
        })
    };
    log.append(entries(1, 0..3), done("first")).unwrap();
    log.append(entries(1, 3..5), done("second")).unwrap();
    assert_eq!((journal.waiting(), log.durable(), told.try_iter().count()), (2, None, 0));

    journal.step(1);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["first"]);
    assert_eq!((journal.waiting(), log.durable()), (1, Some(LogId::new(1, 2))));

    drop((journal, log));
    let journal = open(&device.after_power_cut(1));
    let log = journal.group(GroupId(3));
    assert_eq!(log.entries(0, u64::MAX, usize::MAX).unwrap(), entries(1, 0..3));

    log.append(entries(1, 3..4), done("third")).unwrap();
    let base = BaseMark {
        at: LogId::new(1, 2),
        generation: 0,
        file_name: "base".to_owned(),
        len: 1,
        content_hash: 2,
    };
    log.mark_base(base, done("mark")).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["third", "mark"]);
    log.append(entries(1, 4..6), done("last")).unwrap();
    journal.close().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["last"]);
}

/// Wherever in a segment it falls, and with what is before it in the same frame or not.
#[test]
fn what_a_member_decides_alone_is_durable_together_or_not_at_all() {
    let vote = Vote { term: 2, voted_for: Some(MemberId(9)), committed: true };
    let mut seen = [0; 2];
    for filled in (0..600).step_by(7) {
        let device = DoubleDevice::default();
        let journal = Journal::open(Arc::new(device.clone()), options(), Runner::Stepped).unwrap();
        let log = journal.group(GroupId(3));
        for index in 0..filled {
            log.append(entries(1, index..index + 1), must()).unwrap();
        }
        journal.step(journal.waiting());
        log.append(entries(1, filled..filled + 3), Box::new(drop)).unwrap();
        let before = GroupState { last: Some(LogId::new(1, filled + 2)), ..log.state() };
        let alone = entries(2, filled + 3..filled + 5);
        log.decide_alone(vote, alone.clone(), Box::new(drop)).unwrap();
        let after = log.state();
        assert_eq!((after.vote, after.committed), (Some(vote), after.last));
        assert_eq!(log.entries(filled + 3, u64::MAX, usize::MAX).unwrap(), alone);
        device.freeze_at(device.syncs() + filled % 3);
        journal.step(2);
        let seeds = if device.is_frozen() { 0..6 } else { 0..1 };
        for seed in seeds {
            let found = open(&device.after_power_cut(seed)).group(GroupId(3)).state();
            let whole = found == after;
            let lost = GroupState { last: found.last, ..before.clone() } == found;
            assert!(whole != lost, "{filled} filled, seed {seed}: {found:?}");
            assert!(whole || device.is_frozen());
            seen[usize::from(whole)] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn what_a_member_decides_alone_is_refused_as_a_whole() {
    let device = DoubleDevice::default();
    let log = open(&device).group(GroupId(3));
    log.append(entries(3, 0..3), must()).unwrap();
    log.save_vote(Vote { term: 3, voted_for: Some(MemberId(1)), committed: true }, must()).unwrap();
    let before = log.state();
    let vote = |term| Vote { term, voted_for: Some(MemberId(9)), committed: true };
    let large = LogRecord { id: LogId::new(4, 3), payload: vec![0; log.entry_bytes_max()].into() };
    for (vote, records) in
        [(vote(3), entries(4, 3..4)), (vote(4), entries(4, 4..5)), (vote(4), vec![large])]
    {
        let refused = log.decide_alone(vote, records, must());
        assert!(matches!(refused, Err(JournalError::Refused(_))), "{refused:?}");
        assert_eq!(log.state(), before);
    }
    log.decide_alone(vote(4), entries(4, 3..4), must()).unwrap();
}
