//! The journal on the disk under the temporary folder, beside a bare write + fdatasync: a lone append, 128 appenders,
//! and batches of 45 KB. `cargo bench --bench journal`; `TMPDIR` chooses the disk.

#![expect(missing_docs, reason = "criterion's macros make public functions")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate::storage::device::{FileDevice, LogDevice};
use quorate::storage::journal::{
    BaseMark, Done, GroupLog, Journal, JournalOptions, LogRecord, Runner,
};
use quorate_core::api::ids::{GroupId, LogId};
use tempfile::TempDir;

const ENTRY: usize = 300;

/// A journal on real files, its answers, and the next index.
struct Rig {
    log: GroupLog,
    told: Sender<()>,
    answers: Receiver<()>,
    next: u64,
    _folder: TempDir,
}

impl Rig {
    fn new(runner: Runner) -> Rig {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let device = FileDevice::open(folder.path()).expect("it is there");
        let opened = Journal::open(Arc::new(device), JournalOptions::default(), runner);
        let (told, answers) = channel();
        let log = opened.expect("a new journal opens").group(GroupId(0));
        Rig { log, told, answers, next: 0, _folder: folder }
    }

    fn append(&mut self, payload: &Bytes) {
        let told = self.told.clone();
        let done: Done = Box::new(move |result| {
            result.expect("the disk works");
            // The bench may have ended.
            let _ = told.send(());
        });
        let record = LogRecord { id: LogId::new(1, self.next), payload: payload.clone() };
        self.log.append(vec![record], done).expect("the journal takes it");
        self.next += 1;
    }

    fn wait(&self) {
        self.answers.recv().expect("we hold a sender");
    }

    /// `count` appends, `in_flight` at a time.
    fn burst(&mut self, count: u64, in_flight: u64, payload: &Bytes) {
        for sent in 0..count {
            self.append(payload);
            if sent >= in_flight {
                self.wait();
            }
        }
        for _ in 0..in_flight.min(count) {
            self.wait();
        }
        self.let_go();
    }

    /// Lets all entries go, so that segments are recycled as in a member's life.
    fn let_go(&self) {
        let at = LogId::new(1, self.next - 1);
        self.log.set_committed(at);
        let mark = BaseMark { at, file_name: "base".to_owned(), ..BaseMark::default() };
        self.log.mark_base(mark, Box::new(|_| {})).expect("the journal takes it");
        self.log.purge_to(at).expect("the journal takes it");
    }
}

fn bare(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let device = FileDevice::open(folder.path()).expect("it is there");
    let size = 64 << 20;
    let file = device.create_zeroed("bare", size, &mut |_| {}).expect("there is room");
    let bytes = vec![7; ENTRY + 76];
    let mut offset = 0;
    c.bench_function("journal/bare write + fdatasync", |b| {
        b.iter(|| {
            file.write_at(offset, &bytes).expect("the disk works");
            file.sync_data().expect("the disk works");
            offset = (offset + bytes.len() as u64) % (size - 4096);
        });
    });
}

fn lone_append(c: &mut Criterion) {
    let payload = Bytes::from(vec![7; ENTRY]);
    for (name, runner) in [("thread", Runner::Thread), ("in place", Runner::InPlace)] {
        let mut rig = Rig::new(runner);
        c.bench_function(&format!("journal/lone append, {name}"), |b| {
            b.iter(|| {
                rig.append(&payload);
                rig.wait();
            });
        });
    }
}

fn many_appenders(c: &mut Criterion) {
    let mut rig = Rig::new(Runner::Thread);
    let payload = Bytes::from(vec![7; ENTRY]);
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(12_800));
    group.bench_function("128 appenders", |b| b.iter(|| rig.burst(12_800, 128, &payload)));
    group.finish();
}

fn large_batches(c: &mut Criterion) {
    let mut rig = Rig::new(Runner::Thread);
    let payload = Bytes::from(vec![9; 45_000]);
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Bytes(64 * 45_000));
    group.bench_function("45 KB batches", |b| b.iter(|| rig.burst(64, 4, &payload)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = bare, lone_append, many_appenders, large_batches
}
criterion_main!(benches);
