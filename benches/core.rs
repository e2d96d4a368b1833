//! Deciding alone, without disk or wire: packed puts applied, ranges selected. `cargo bench --bench core`.

#![expect(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::etcdserverpb::{PutRequest, RangeRequest};
use quorate_core::api::pb::internal::{Command, Entry, LogPayload, command, log_payload};
use quorate_core::state_machine::testing::MemoryView;
use quorate_core::state_machine::{RangeWork, StateMachine};

const PUTS_AN_ENTRY: u64 = 100;
const KEYS: u64 = 10_000;

/// One entry that puts `PUTS_AN_ENTRY` of `KEYS` keys, 256 bytes each.
fn entry(seq: u64) -> LogPayload {
    let commands = (0..PUTS_AN_ENTRY)
        .map(|i| {
            let key = format!("bench/{:08}", (seq * PUTS_AN_ENTRY + i) * 7919 % KEYS);
            let put = PutRequest {
                key: key.into_bytes().into(),
                value: vec![7; 256].into(),
                ..PutRequest::default()
            };
            Command { request: Some(command::Request::Put(put)), ..Command::default() }
        })
        .collect();
    let entry = Entry { level: 1, member_id: 1, incarnation: 1, seq, time_ms: 0, commands };
    LogPayload { payload: Some(log_payload::Payload::Entry(entry)) }
}

/// A machine that holds every key, and the store under it.
fn filled() -> (StateMachine, MemoryView, u64) {
    let mut machine = StateMachine::new(64 << 20);
    let mut view = MemoryView::default();
    let entries = KEYS / PUTS_AN_ENTRY;
    for seq in 1..=entries {
        let applied = machine.apply(&view, LogId::new(1, seq), &entry(seq)).expect("it applies");
        view.commit(&applied.batch);
    }
    (machine, view, entries)
}

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(PUTS_AN_ENTRY));
    let (mut machine, view, mut seq) = filled();
    group.bench_function("an entry of 100 puts over 10k keys", |b| {
        b.iter_batched(
            || {
                seq += 1;
                (LogId::new(1, seq), entry(seq))
            },
            |(at, payload)| machine.apply(&view, at, &payload).expect("it applies"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn ranges(c: &mut Criterion) {
    let (machine, view, _) = filled();
    let mut group = c.benchmark_group("range");
    for limit in [1_i64, 1000] {
        let request = RangeRequest {
            key: b"bench/".to_vec().into(),
            range_end: b"bench0".to_vec().into(),
            limit,
            ..RangeRequest::default()
        };
        group.throughput(Throughput::Elements(limit.unsigned_abs()));
        group.bench_function(format!("{limit} of 10k keys"), |b| {
            b.iter(|| {
                let mut work = RangeWork::new(request.clone());
                while !work.step(&machine, 1000).expect("it is in range") {}
                work.finish(&view).expect("every value is there")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, puts, ranges);
criterion_main!(benches);
