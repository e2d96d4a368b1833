//! Random histories: against the model, packed anew, sent twice, restored.

use std::hash::{BuildHasher, RandomState};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};

use crate::api::batch::{LeaseChange, RecordChange, RevisionRecord, Space};
use crate::api::ids::LeaseId;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::AlarmType;

use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::refusal::Refusal;
use crate::api::reply::{Applied, Reply, TokenChange};
use crate::state_machine::testing::{MemoryView, Model};
use crate::state_machine::{Restorer, RevisionHeader, StateMachine, show_rows, txn};

use super::member::{Member, command, entry};
use super::strategies;

/// So little that values are forever leaving memory.
const TIGHT_BUDGET: usize = 500;

/// A new seed each run; a failure prints it with the command that replays it.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        cases,
        failure_persistence: None,
        // The default costs as much as all the rest, unoptimised.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(cases),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    println!("replay: PROPTEST_RNG_SEED={seed} cargo test -p quorate-core --lib properties");
    config
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn requests_and_ranges_are_answered_as_the_model_answers_them(
        steps in strategies::all_asked(1..24),
        reads in vec((strategies::range(), strategies::txn(0), 1..4usize), 1..24),
        budget in prop::sample::select(vec![0, TIGHT_BUDGET, 1 << 20]),
    ) {
        let (mut member, mut model) = (Member::new(budget), Model::default());
        for (asked, (range, read, slice)) in steps.iter().zip(reads.into_iter().cycle()) {
            let command = member.command(asked);
            let expected = model.apply(member.term, member.now_ms(), &command);
            prop_assert_eq!(member.pack_commands(vec![command]).replies.remove(0), expected);
            let auth = member.machine.auth();
            prop_assert_eq!((auth.revision(), auth.is_enabled()), model.auth());
            prop_assert_eq!(member.machine.fleet().record().is_some(), model.has_fleet());
            prop_assert_eq!(member.machine.revision(), model.revision());
            prop_assert_eq!(member.machine.live_key_count(), model.live_key_count());
            prop_assert_eq!(member.machine.compact_revision(), model.compact_revision());
            if slice == 1 {
                member.sweep(slice);
            }
            prop_assert_eq!(member.range(&range, slice), model.range(&range));
            if txn::is_read_only(&read) {
                let answer = member.machine.read_only(&member.view, &read).unwrap();
                prop_assert_eq!(answer, model.txn(&read));
            }
            prop_assert!(member.machine.hot_bytes() <= budget);
        }
    }

    #[test]
    fn a_range_under_way_sees_no_change_and_no_sweep(
        first in vec(strategies::request(), 1..20),
        mut then in vec(strategies::request(), 1..10),
        range in strategies::range(),
        rows in 1..3usize,
    ) {
        let (mut member, mut model) = (Member::new(TIGHT_BUDGET), Model::default());
        for request in first {
            let _replied = model.apply(member.term, member.now_ms(), &command(request.clone()));
            let _replied = member.one(request);
        }
        let range = pb::RangeRequest { limit: 0, sort_order: 0, sort_target: 0, ..range };
        let expected = model.range(&range);
        let answer = streamed(&mut member, &range, rows, &mut |member| {
            if let Some(request) = then.pop() {
                let _replied = member.one(request);
            }
            let compaction = pb::CompactionRequest { revision: member.machine.revision(), physical: false };
            let _replied = member.one(Request::Compaction(compaction));
            member.sweep(2);
        });
        prop_assert_eq!(answer, expected);
    }

    #[test]
    fn a_restored_machine_goes_on_as_the_one_it_was_taken_from(
        first in strategies::all_asked(1..30),
        sweeps in vec(any::<bool>(), 1..30),
        then in vec(strategies::asked(), 1..10),
    ) {
        let mut member = Member::new(TIGHT_BUDGET);
        for (asked, sweep) in first.iter().zip(sweeps.into_iter().cycle()) {
            let command = member.command(asked);
            let _refused = member.pack_commands(vec![command]);
            if sweep {
                member.sweep(2);
            }
        }
        let mut restored = restore(&member);
        prop_assert_eq!(facts(&restored.machine), facts(&member.machine));
        for asked in then {
            let command = member.command(&asked);
            prop_assert_eq!(&command, &restored.command(&asked));
            let ours = member.pack_commands(vec![command.clone()]);
            let theirs = restored.pack_commands(vec![command]);
            prop_assert_eq!(ours, theirs);
            prop_assert_eq!(facts(&restored.machine), facts(&member.machine));
        }
        prop_assert_eq!(member.hash(0), restored.hash(0));
    }

    #[test]
    fn an_entry_sent_again_changes_nothing(
        packs in vec(vec(strategies::request(), 0..4), 1..10),
        again in vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let mut member = Member::new(TIGHT_BUDGET);
        for pack in &packs {
            member.pack(pack.clone());
        }
        for index in again {
            let seq = index.index(packs.len());
            let before = facts(&member.machine);
            let entry = entry(1, seq as u64 + 1, packs[seq].clone());
            let applied = member.payload(Payload::Entry(entry)).unwrap();
            prop_assert!(applied.duplicate);
            prop_assert!(applied.replies.is_empty() && applied.leases.is_empty());
            prop_assert!(applied.batch.revisions.is_empty());
            let spaces: Vec<Space> = applied.batch.records.iter().map(|record| record.space).collect();
            prop_assert_eq!(spaces, vec![Space::Machine]);
            prop_assert_eq!(facts(&member.machine), before);
        }
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn a_sweep_keeps_what_can_be_read_and_tombstones_at_the_compact_revision(
        steps in vec((strategies::request(), 1..6usize), 1..40),
        pinned in -1..12i64,
    ) {
        let mut member = Member::new(TIGHT_BUDGET);
        let mut whole = member.view.clone();
        let mut pin = None;
        for (request, step) in steps {
            if member.machine.swept_revision() <= pinned && pinned <= member.machine.revision() && pin.is_none() {
                pin = Some(member.machine.pin(pinned));
            }
            whole.commit(&member.pack(vec![request]).batch);
            if step > 1 {
                member.sweep(step);
                let swept = member.machine.swept_revision();
                prop_assert!(member.view.records().eq(kept(&whole, swept).iter()));
                let target = member.machine.compact_revision();
                let held = pin.as_ref().map_or(target, |_| target.min(pinned));
                prop_assert_eq!(swept, held);
            }
        }
        drop(pin);
        member.sweep(3);
        prop_assert_eq!(member.machine.swept_revision(), member.machine.compact_revision());
        prop_assert!(member.view.records().eq(kept(&whole, member.machine.swept_revision()).iter()));
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn how_requests_are_packed_is_invisible(
        all_asked in strategies::all_asked(1..9),
        cuts in vec(any::<bool>(), 1..9),
    ) {
        let (mut one_by_one, mut packed) = (Member::new(TIGHT_BUDGET), Member::new(TIGHT_BUDGET));
        let (mut expected, mut answered) = (Told::default(), Told::default());
        let mut pack = Vec::new();
        let last = all_asked.len() - 1;
        for (place, (asked, cut)) in all_asked.iter().zip(cuts.into_iter().cycle()).enumerate() {
            let command = one_by_one.command(asked);
            expected.add(one_by_one.pack_commands(vec![command.clone()]));
            pack.push(command);
            if cut || place == last {
                answered.add(packed.pack_commands(std::mem::take(&mut pack)));
                prop_assert_eq!(facts(&one_by_one.machine), facts(&packed.machine));
            }
        }
        prop_assert_eq!(expected, answered);
        prop_assert!(one_by_one.view.records().eq(packed.view.records()));
    }
}

/// A range without a limit, as a stream takes it slice by slice while the store goes on changing.
fn streamed(
    member: &mut Member,
    request: &pb::RangeRequest,
    rows: usize,
    meanwhile: &mut dyn FnMut(&mut Member),
) -> Result<pb::RangeResponse, Refusal> {
    let mut whole = pb::RangeResponse::default();
    let mut cursor = None;
    loop {
        let slice = member.machine.select(request, cursor.as_ref(), rows)?;
        meanwhile(member);
        whole.kvs.extend(show_rows(request, &slice.rows, &member.view).unwrap());
        whole.count += slice.count;
        whole.header =
            Some(pb::ResponseHeader { revision: slice.revision, ..pb::ResponseHeader::default() });
        cursor = slice.next;
        if cursor.is_none() {
            return Ok(whole);
        }
    }
}

/// What a compaction at `at` leaves of a history: all that is newer, and of each key the newest that is not, unless
/// it is a tombstone of an earlier revision.
fn kept(whole: &MemoryView, at: i64) -> Vec<RevisionRecord> {
    let all: Vec<&RevisionRecord> = whole.records().collect();
    let is_kept = |place: usize| {
        let record = all[place];
        let superseded = all[place + 1..]
            .iter()
            .any(|later| later.kv.key == record.kv.key && later.revision.main <= at);
        record.revision.main > at
            || (!superseded && (!record.tombstone || record.revision.main == at))
    };
    (0..all.len()).filter(|place| is_kept(*place)).map(|place| all[place].clone()).collect()
}

/// What the outside hears, entry boundaries left out.
#[derive(Debug, Default, PartialEq)]
struct Told {
    replies: Vec<Result<Reply, Refusal>>,
    events: Vec<RevisionRecord>,
    leases: Vec<LeaseChange>,
    tokens: Vec<TokenChange>,
    compacted_to: Option<i64>,
}

impl Told {
    fn add(&mut self, applied: Applied) {
        self.replies.extend(applied.replies);
        self.events.extend(applied.batch.revisions);
        self.leases.extend(applied.leases);
        self.tokens.extend(applied.tokens);
        self.compacted_to = applied.batch.compacted_to.or(self.compacted_to);
    }
}

/// All that two members must agree on wherever their logs stand.
#[derive(Debug, PartialEq)]
struct Facts {
    revision: i64,
    compact_revision: i64,
    rolling_hash: u64,
    cluster_level: u32,
    auth: String,
    fleet: String,
    leases: Vec<LeaseFacts>,
    live_keys: usize,
    alarms: usize,
    records: Vec<RecordChange>,
}

type LeaseFacts = (LeaseId, Option<(i64, i64)>, Vec<bytes::Bytes>);

fn facts(machine: &StateMachine) -> Facts {
    let mut records = machine.freeze().records;
    records.retain(|record| !matches!(record.space, Space::Machine | Space::Proposer));
    Facts {
        revision: machine.revision(),
        compact_revision: machine.compact_revision(),
        rolling_hash: machine.rolling_hash(),
        cluster_level: machine.cluster_level(),
        // With what users may do, which is in no record.
        auth: format!("{:?}", machine.auth()),
        fleet: format!("{:?}", machine.fleet()),
        leases: machine
            .leases()
            .map(|id| {
                let ttl = machine.lease(id).map(|lease| (lease.granted_ttl, lease.remaining_ttl));
                (id, ttl, machine.lease_keys(id))
            })
            .collect(),
        live_keys: machine.live_key_count(),
        alarms: machine.alarms(AlarmType::None).len(),
        records,
    }
}

fn restore(member: &Member) -> Member {
    let mut restorer = Restorer::new(TIGHT_BUDGET);
    for record in member.machine.freeze().records {
        let value = record.value.expect("a frozen record has a value");
        restorer.record(record.space, &record.key, &value).unwrap();
    }
    for record in member.view.records() {
        let kv = &record.kv;
        restorer
            .header(&RevisionHeader {
                revision: record.revision,
                tombstone: record.tombstone,
                key: kv.key.clone(),
                create_revision: kv.create_revision,
                version: kv.version,
                lease: kv.lease,
                value_len: kv.value.len() as u32,
            })
            .unwrap();
    }
    Member {
        machine: restorer.finish(member.machine.applied()).unwrap(),
        view: member.view.clone(),
        next_index: member.next_index,
        term: member.term,
        next_seq: member.next_seq,
        later_ms: member.later_ms,
    }
}
