//! The writer's thread under callers of its own: answers in order, nothing acknowledged lost, nobody left waiting.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::{GroupId, LogId};

use super::*;
use crate::storage::device::LogFile;
use crate::storage::device::double::DoubleDevice;

const GROUPS: u64 = 4;
const LONG: Duration = Duration::from_secs(60);

fn open(device: &DoubleDevice) -> Journal {
    let options = JournalOptions {
        segment_bytes: 64 << 10,
        queue_bytes_max: 4 << 10,
        tail_bytes: 8 << 10,
        idle_seal: Duration::from_micros(50),
        ..JournalOptions::default()
    };
    Journal::open(Arc::new(device.clone()), options, Runner::Thread).expect("it opens")
}

fn entry(index: u64) -> LogRecord {
    LogRecord { id: LogId::new(1, index), payload: Bytes::from(vec![index as u8; 200]) }
}

fn rebase(log: &GroupLog, at: LogId) -> Result<(), JournalError> {
    log.set_committed(at);
    let mark = BaseMark { at, file_name: "base".to_owned(), ..BaseMark::default() };
    log.mark_base(mark, Box::new(|_| {}))?;
    log.purge_to(at)
}

/// Appends until the journal stops; how many were acknowledged, in order.
fn append_until_stopped(log: &GroupLog, count: u64) -> u64 {
    let acknowledged = Arc::new(AtomicU64::new(0));
    for index in 0..count {
        let told = Arc::clone(&acknowledged);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                assert_eq!(told.swap(index + 1, Ordering::SeqCst), index, "answered in order");
            }
        });
        if log.append(vec![entry(index)], done).is_err() {
            break;
        }
        if index % 50 == 49 && rebase(log, LogId::new(1, index - 20)).is_err() {
            break;
        }
    }
    // What is still queued is answered before this wait ends, either way.
    let _ = log.wait_durable(count - 1, LONG);
    acknowledged.load(Ordering::SeqCst)
}

#[test]
fn callers_on_many_threads_lose_nothing_to_a_power_cut() {
    for round in 0..6 {
        let device = DoubleDevice::default();
        let journal = open(&device);
        device.freeze_at(device.syncs() + 20 + 40 * round);
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let logs = (0..GROUPS).map(|id| journal.group(GroupId(id)));
            let callers: Vec<_> =
                logs.map(|log| scope.spawn(move || append_until_stopped(&log, 2000))).collect();
            callers.into_iter().map(|caller| caller.join().expect("no caller panics")).collect()
        });
        drop(journal);
        let journal = open(&device.after_power_cut(round));
        for (id, acknowledged) in (0..GROUPS).zip(acknowledged) {
            let log = journal.group(GroupId(id));
            let state = log.state();
            let last = state.last.map_or(0, |last| last.index + 1);
            assert!(
                last >= acknowledged,
                "round {round}: {acknowledged} acknowledged, {last} found"
            );
            let from = state.purged.map_or(0, |purged| purged.index + 1);
            let found = log.entries(from, last, usize::MAX).expect("all can be read");
            assert_eq!(found, (from..last).map(entry).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_callback_may_append_though_the_queue_is_full() {
    let journal = open(&DoubleDevice::default());
    let log = journal.group(GroupId(0));
    let (told, answers) = channel();
    let again = log.clone();
    let first: Done = Box::new(move |result| {
        result.expect("it is durable");
        for index in 1..200 {
            let told = told.clone();
            let done: Done = Box::new(move |result| told.send(result.is_ok()).expect("we listen"));
            again.append(vec![entry(index)], done).expect("it is taken");
        }
    });
    log.append(vec![entry(0)], first).unwrap();
    for _ in 1..200 {
        assert_eq!(answers.recv_timeout(LONG), Ok(true));
    }
}

#[test]
fn the_durable_end_is_told_and_waited_for() {
    let device = DoubleDevice::default();
    let journal = open(&device);
    let log = journal.group(GroupId(0));
    let (told, ends) = channel();
    log.on_durable(Arc::new(move |end| {
        // The test may have ended.
        let _ = told.send(end);
    }));
    assert_eq!(log.durable(), None);
    log.append((0..10).map(entry).collect(), Box::new(|_| {})).unwrap();
    assert!(log.wait_durable(9, LONG).unwrap());
    assert_eq!(log.durable(), Some(LogId::new(1, 9)));
    assert_eq!(ends.recv_timeout(LONG), Ok(LogId::new(1, 9)));
    assert!(!log.wait_durable(10, Duration::from_millis(1)).unwrap());
    device.fail_writes(true);
    log.append(vec![entry(10)], Box::new(|_| {})).unwrap();
    assert!(matches!(log.wait_durable(10, LONG), Err(JournalError::Poisoned { .. })));
    assert!(matches!(
        log.append(vec![entry(11)], Box::new(|_| {})),
        Err(JournalError::Poisoned { .. })
    ));
}

#[test]
fn a_close_does_not_wait_for_space() {
    let device = DoubleDevice::with_capacity(64 << 10);
    let journal = open(&device);
    let log = journal.group(GroupId(0));
    let (told, answers) = channel();
    let caller = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let append = |index| {
                let told = told.clone();
                let done: Done = Box::new(move |result| told.send(result.is_ok()).expect("held"));
                log.append(vec![entry(index)], done)
            };
            (0..400).take_while(|index| append(*index).is_ok()).count()
        });
        assert_eq!(answers.recv_timeout(LONG), Ok(true));
        while !journal.inner.pool.is_waited_for() {
            std::thread::yield_now();
        }
        let closed = journal.clone().close();
        (caller.join().expect("it does not panic"), closed)
    });
    assert!(caller.0 < 400, "{caller:?}");
    assert!(matches!(caller.1, Err(JournalError::Poisoned { .. })), "{caller:?}");
    let answered = 1 + answers.try_iter().count();
    assert_eq!(answered, caller.0, "every caller is answered");
}

#[test]
fn an_idle_journal_is_sealed() {
    let device = DoubleDevice::default();
    let journal = open(&device);
    let log = journal.group(GroupId(0));
    let (told, answers) = channel();
    let done: Done = Box::new(move |result| told.send(result.is_ok()).expect("we listen"));
    log.append(vec![entry(0)], done).unwrap();
    assert_eq!(answers.recv_timeout(LONG), Ok(true));
    let sealed = |device: &DoubleDevice| {
        let bytes = device.contents("0000000000000001.seg").expect("it is there");
        bytes.windows(4).filter(|word| word == b"QFRM").count() == 2
    };
    let clock = JournalOptions::default().clock;
    let deadline = clock.monotonic() + LONG;
    while !sealed(&device) {
        assert!(clock.monotonic() < deadline, "no seal was written");
        std::thread::yield_now();
    }
}

/// Notes which thread removes files and syncs the folder.
#[derive(Debug)]
struct Removals {
    device: DoubleDevice,
    by: Mutex<Vec<String>>,
}

impl Removals {
    fn note(&self, what: &str) {
        let thread = std::thread::current();
        self.by.lock().push(format!("{} {what}", thread.name().unwrap_or_default()));
    }
}

impl LogDevice for Removals {
    fn list(&self) -> io::Result<Vec<String>> {
        self.device.list()
    }
    fn create_zeroed(
        &self,
        name: &str,
        size: u64,
        written: &mut dyn FnMut(u64),
    ) -> io::Result<Arc<dyn LogFile>> {
        self.device.create_zeroed(name, size, written)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        self.device.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        self.device.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.device.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.note("removes");
        self.device.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.note("syncs");
        self.device.sync_dir()
    }
    fn free_space(&self) -> io::Result<u64> {
        self.device.free_space()
    }
}

/// Giving back a segment of 64 MiB takes a file system some 10 ms, a sync of the folder waits for its journal, and a
/// large base frees many segments at once.
#[test]
fn freed_segments_are_dealt_with_by_a_thread_that_nobody_waits_for() {
    let device = DoubleDevice::default();
    let watched = Arc::new(Removals { device: device.clone(), by: Mutex::default() });
    let options = JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::default() };
    let journal = Journal::open(Arc::clone(&watched) as _, options, Runner::Thread).unwrap();
    let log = journal.group(GroupId(0));
    log.append((0..3000).map(entry).collect(), Box::new(|_| {})).unwrap();
    assert!(log.wait_durable(2999, LONG).unwrap());
    assert!(journal.usage().segments > 6);
    watched.by.lock().clear();
    rebase(&log, LogId::new(1, 2998)).unwrap();
    log.append(vec![entry(3000)], Box::new(|_| {})).unwrap();
    assert!(log.wait_durable(3000, LONG).unwrap());
    journal.close().unwrap();
    let by = watched.by.lock();
    let removed = by.iter().filter(|what| *what == "journal-pool removes").count();
    assert!(removed >= 4 && by.iter().all(|what| what.starts_with("journal-pool")), "{by:?}");
    let left = device.list().unwrap();
    assert!(left.len() <= 4, "{left:?}");
}
