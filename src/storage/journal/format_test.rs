//! The format on disk: what one version wrote, every later one opens. Guards against a change of layout without a
//! change of the version. `UPDATE_FIXTURE=1` writes the fixture anew, which only a new format version may need.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::ids::{GroupId, LogId, MemberId};

use super::segment::FileName;
use super::*;
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/journal/v1")
}

fn open(device: &DoubleDevice) -> Journal {
    let options =
        JournalOptions { segment_bytes: 16 << 10, seed: Some(20), ..JournalOptions::default() };
    Journal::open(Arc::new(device.clone()), options, Runner::InPlace).expect("it opens")
}

fn entries(term: u64, range: std::ops::Range<u64>, size: usize) -> Vec<LogRecord> {
    let entry = |index| LogRecord {
        id: LogId::new(term, index),
        payload: Bytes::from(vec![b'a' + (index % 26) as u8; size]),
    };
    range.map(entry).collect()
}

fn ignore() -> Done {
    Box::new(|result| result.expect("it is durable"))
}

/// Every kind of record, over several segments.
fn write(device: &DoubleDevice) {
    let journal = open(device);
    let one = journal.group(GroupId(1));
    one.save_vote(vote(), ignore()).unwrap();
    for at in 0..12 {
        one.append(entries(3, at * 4..at * 4 + 4, 900), ignore()).unwrap();
    }
    one.set_committed(LogId::new(3, 30));
    one.truncate_from(40, ignore()).unwrap();
    one.append(entries(4, 40..44, 900), ignore()).unwrap();
    one.mark_base(base(LogId::new(3, 20)), ignore()).unwrap();
    one.purge_to(LogId::new(3, 20)).unwrap();
    let two = journal.group(GroupId(2));
    two.append(entries(1, 0..3, 10), ignore()).unwrap();
    let install = InstallMark {
        snapshot: LogId::new(2, 9),
        generation: 5,
        base: BaseMark { generation: 5, ..base(LogId::new(2, 9)) },
        membership: Bytes::from_static(b"who"),
    };
    two.install(install, ignore()).unwrap();
    let three = journal.group(GroupId(3));
    three.append(entries(1, 0..3, 10), ignore()).unwrap();
    three.drop_group(ignore()).unwrap();
    journal.idle();
    one.append(entries(4, 44..46, 20), ignore()).unwrap();
    journal.close().unwrap();
}

fn vote() -> Vote {
    Vote { term: 7, voted_for: Some(MemberId(0xabc)), committed: false }
}

fn base(at: LogId) -> BaseMark {
    BaseMark {
        at,
        generation: 2,
        file_name: "base-1.qb".to_owned(),
        len: 77,
        content_hash: 0x1122_3344_5566_7788,
    }
}

fn load(device: &DoubleDevice) {
    for file in fs::read_dir(fixture()).expect("the fixture is checked in") {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        device.damage(&name, Some(fs::read(path).unwrap()));
    }
}

#[test]
fn a_journal_of_version_1_opens() {
    if std::env::var_os("UPDATE_FIXTURE").is_some() {
        let device = DoubleDevice::default();
        write(&device);
        fs::create_dir_all(fixture()).unwrap();
        for name in device.list().unwrap() {
            if let FileName::Live(_) = FileName::parse(&name) {
                fs::write(fixture().join(&name), device.contents(&name).unwrap()).unwrap();
            }
        }
    }
    let device = DoubleDevice::default();
    load(&device);
    let journal = open(&device);
    assert!(journal.report().closed);
    assert_eq!(journal.groups(), [GroupId(1), GroupId(2)]);

    let one = journal.group(GroupId(1));
    let state = GroupState {
        vote: Some(vote()),
        committed: Some(LogId::new(3, 30)),
        purged: Some(LogId::new(3, 20)),
        last: Some(LogId::new(4, 45)),
        base: Some(base(LogId::new(3, 20))),
        generation: 2,
    };
    assert_eq!(one.state(), state);
    let mut expected = entries(3, 21..40, 900);
    expected.extend(entries(4, 40..44, 900));
    expected.extend(entries(4, 44..46, 20));
    assert_eq!(one.entries(21, 99, usize::MAX).unwrap(), expected);

    let two = journal.group(GroupId(2)).state();
    let snapshot = Some(LogId::new(2, 9));
    assert_eq!((two.purged, two.last, two.generation), (snapshot, snapshot, 5));
}

#[test]
fn this_version_writes_what_the_fixture_holds() {
    let (written, kept) = (DoubleDevice::default(), DoubleDevice::default());
    write(&written);
    load(&kept);
    for name in kept.list().unwrap() {
        assert!(written.contents(&name) == kept.contents(&name), "{name} differs");
    }
}

#[test]
fn a_newer_format_is_refused_as_newer() {
    let device = DoubleDevice::default();
    drop(open(&device));
    let name = FileName::live(1);
    let mut bytes = device.contents(&name).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    device.damage(&name, Some(bytes));
    let opened = Journal::open(Arc::new(device), JournalOptions::default(), Runner::InPlace);
    assert!(matches!(opened, Err(JournalError::Newer { found: 2, known: 1 })), "{opened:?}");
}
