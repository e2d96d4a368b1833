//! Draws the script of a run from its seed.
//!
//! The key space is small, so that calls collide, and never holds more than twelve keys: up to there Go's sort is
//! stable, and the order of ties can be compared.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::call::{Call, relative};
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

/// Streams a run multiplexes its watchers on.
pub(super) const STREAMS: usize = 3;

const KEYS: [&[u8]; 10] =
    [b"a", b"a0", b"a1", b"ab", b"b", b"b\0", b"c", b"k", b"\xff", b"\xff\xff"];

const LEASES: [i64; 7] = [1, 2, 3, 4, 5, 77, -5];

/// What an oracle of another release must not be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// etcd 3.5.1 ends in a panic on an unknown sort target, and takes any sort order.
    pub(super) unknown_sorts: bool,
    /// RangeStream came with 3.7.
    pub(super) range_stream: bool,
    /// The hash of a compacted store changed with 3.5.16 (tombstones at the compacted revision).
    pub(super) hash_after_compaction: bool,
    /// Until 3.5.8 progress was told of watchers that had not caught up.
    pub(super) manual_progress: bool,
    /// Watching from below zero is refused at once since 3.6.6; the watcher id -1 was lost on the way before.
    pub(super) negative_starts: bool,
}

pub(super) fn script(seed: u64, calls: usize, dialect: Dialect) -> Vec<Call> {
    let mut draw = Draw { rng: StdRng::seed_from_u64(seed), dialect };
    (0..calls).map(|_| draw.call()).collect()
}

struct Draw {
    rng: StdRng,
    dialect: Dialect,
}

impl Draw {
    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn call(&mut self) -> Call {
        match self.rng.random_range(0..1000) {
            0..260 => Call::Range(self.range()),
            260..290 => self.range_stream(),
            290..500 => Call::Put(self.put()),
            500..570 => Call::DeleteRange(self.delete_range()),
            570..760 => self.txn_call(),
            760..772 => Call::Compact(self.compact()),
            772..800 => Call::Grant(self.grant()),
            800..806 => Call::GrantAndRevoke(self.short_grant()),
            806..807 => self.expire(),
            807..818 => Call::Revoke(self.lease()),
            818..838 => Call::KeepAlive(self.lease()),
            838..858 => Call::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.chance(700),
            }),
            858..868 => Call::Leases,
            868..880 => self.hash_kv(),
            880..884 => Call::MemberList(self.chance(500)),
            884..888 => Call::Status,
            888..935 => Call::WatchCreate(self.stream(), self.watch_create()),
            935..955 => Call::WatchCancel(self.stream(), self.watch_id()),
            955..963 if self.dialect.manual_progress => Call::WatchProgress(self.stream()),
            963..966 => Call::WatchReopen(self.stream()),
            966..980 => Call::WatchSettle,
            980..982 => Call::Put(self.huge_put()),
            _ => Call::Range(self.range()),
        }
    }

    fn key(&mut self) -> Bytes {
        match self.rng.random_range(0..1000) {
            0..12 => Bytes::new(),
            12..40 => Bytes::from_static(b"\0"),
            _ => Bytes::from_static(self.pick(&KEYS)),
        }
    }

    fn key_and_end(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.rng.random_range(0..100) {
            0..40 => (key, Bytes::new()),
            40..58 => {
                let end = prefix_end(&key);
                (key, end)
            }
            58..68 => (key, Bytes::from_static(b"\0")),
            68..78 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            _ => (key, self.key()),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.rng.random_range(0..100) {
            0..8 => Bytes::new(),
            8..70 => Bytes::from(format!("v{}", self.rng.random_range(0..5))),
            70..98 => {
                let length = self.rng.random_range(1..24);
                (0..length).map(|_| self.rng.random::<u8>()).collect()
            }
            _ => vec![b'x'; self.rng.random_range(1000..9000)].into(),
        }
    }

    fn huge_put(&mut self) -> PutRequest {
        let length = self.pick(&[1_572_300, 1_573_000, 1_700_000, 2_100_000]);
        PutRequest { key: self.key(), value: vec![b'h'; length].into(), ..PutRequest::default() }
    }

    /// Mostly now, often the recent past, sometimes nonsense.
    fn revision(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0..50 => 0,
            50..80 => relative(-self.rng.random_range(0..20)),
            80..88 => relative(-self.rng.random_range(0..300)),
            88..92 => relative(self.rng.random_range(1..4)),
            92..95 => -self.rng.random_range(1..4),
            _ => self.rng.random_range(1..40),
        }
    }

    fn bound(&mut self) -> i64 {
        if self.chance(930) {
            return 0;
        }
        match self.rng.random_range(0..10) {
            0..8 => relative(-self.rng.random_range(0..40)),
            8 => self.rng.random_range(1..30),
            _ => -1,
        }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.key_and_end();
        let sort_order = match self.rng.random_range(0..100) {
            0..60 => 0,
            60..78 => 1,
            98.. if self.dialect.unknown_sorts => self.pick(&[3, -1]),
            _ => 2,
        };
        let sort_target = match self.rng.random_range(0..100) {
            0..50 => 0,
            98.. if self.dialect.unknown_sorts => self.pick(&[5, -1]),
            _ => self.rng.random_range(0..5),
        };
        RangeRequest {
            key,
            range_end,
            limit: if self.chance(700) { 0 } else { self.pick(&[1, 1, 2, 3, 5, -1]) },
            revision: self.revision(),
            sort_order,
            sort_target,
            serializable: self.chance(300),
            keys_only: self.chance(150),
            count_only: self.chance(100),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn range_stream(&mut self) -> Call {
        let mut request = self.range();
        if !self.dialect.range_stream {
            return Call::Range(request);
        }
        if request.sort_order == 0 {
            // etcd sorts each chunk, then goes on after its last key: it skips keys and miscounts.
            request.sort_target = 0;
        }
        if self.chance(800) {
            request.sort_order = 0;
            request.sort_target = 0;
            request.min_mod_revision = 0;
            request.max_mod_revision = 0;
            request.min_create_revision = 0;
            request.max_create_revision = 0;
        }
        Call::RangeStream(request)
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.chance(60);
        PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(800) { Bytes::new() } else { self.value() },
            lease: if self.chance(780) { 0 } else { self.lease() },
            prev_kv: self.chance(300),
            ignore_value,
            ignore_lease: self.chance(60),
        }
    }

    fn delete_range(&mut self) -> DeleteRangeRequest {
        let (key, range_end) =
            if self.chance(700) { (self.key(), Bytes::new()) } else { self.key_and_end() };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(400) }
    }

    fn txn_call(&mut self) -> Call {
        if self.chance(15) {
            return Call::Txn(self.crowded_txn());
        }
        let mut txn = self.txn(0);
        if deletes(&txn) {
            keep_nothing(&mut txn);
        }
        Call::Txn(txn)
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compares = self.rng.random_range(0..4);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<RequestOp> {
        let ops = self.rng.random_range(0..4);
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        let request = match self.rng.random_range(0..100) {
            0..35 => Some(Request::RequestPut(self.put())),
            35..65 => Some(Request::RequestRange(self.range())),
            65..83 => Some(Request::RequestDeleteRange(self.delete_range())),
            83..98 if depth < 2 => Some(Request::RequestTxn(self.txn(depth + 1))),
            83..98 => Some(Request::RequestRange(self.range())),
            _ => None,
        };
        RequestOp { request }
    }

    /// At, and one over, the limit of operations; at the top level and one below it.
    fn crowded_txn(&mut self) -> TxnRequest {
        let read = RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: Bytes::from_static(b"a"),
                ..RangeRequest::default()
            })),
        };
        let count = self.pick(&[127, 128, 129]);
        if self.chance(500) {
            return TxnRequest { success: vec![read; count], ..TxnRequest::default() };
        }
        let inner = TxnRequest { failure: vec![read.clone(); count - 2], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(Request::RequestTxn(inner)) };
        TxnRequest { success: vec![nested, read], ..TxnRequest::default() }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) =
            if self.chance(750) { (self.key(), Bytes::new()) } else { self.key_and_end() };
        let target =
            if self.chance(15) { self.pick(&[5, -1]) } else { self.rng.random_range(0..5) };
        let asked = if self.chance(100) { self.rng.random_range(0..5) } else { target };
        let target_union = match asked {
            0 => Some(TargetUnion::Version(self.rng.random_range(0..4))),
            1 => Some(TargetUnion::CreateRevision(self.compared_revision())),
            2 => Some(TargetUnion::ModRevision(self.compared_revision())),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(if self.chance(500) { 0 } else { self.lease() })),
            _ => None,
        };
        Compare {
            result: if self.chance(15) { self.pick(&[4, -1]) } else { self.rng.random_range(0..4) },
            target,
            key,
            range_end,
            target_union: if self.chance(40) { None } else { target_union },
        }
    }

    fn compared_revision(&mut self) -> i64 {
        match self.rng.random_range(0..10) {
            0..3 => 0,
            3..9 => relative(-self.rng.random_range(0..12)),
            _ => -1,
        }
    }

    fn compact(&mut self) -> CompactionRequest {
        let revision = match self.rng.random_range(0..100) {
            0..60 => relative(-self.rng.random_range(0..60)),
            60..75 => relative(0),
            75..90 => relative(-self.rng.random_range(60..600)),
            90..95 => relative(self.rng.random_range(1..6)),
            95..98 => 0,
            _ => -1,
        };
        CompactionRequest { revision, physical: self.chance(600) }
    }

    fn lease(&mut self) -> i64 {
        if self.chance(60) { self.pick(&[99, i64::MAX, i64::MIN, 0]) } else { self.pick(&LEASES) }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        let ttl = match self.rng.random_range(0..100) {
            0..94 => self.pick(&[600, 1200, 3600, 100_000]),
            94..97 => 9_000_000_000,
            _ => self.pick(&[9_000_000_001, i64::MAX]),
        };
        LeaseGrantRequest { ttl, id: self.pick(&LEASES) }
    }

    fn short_grant(&mut self) -> LeaseGrantRequest {
        LeaseGrantRequest {
            ttl: self.pick(&[0, 1, 2, -7, i64::MIN, 700]),
            id: self.pick(&[0, 0, 500]),
        }
    }

    fn expire(&mut self) -> Call {
        Call::Expire(PutRequest {
            key: Bytes::from_static(self.pick(&KEYS)),
            value: self.value(),
            lease: 900,
            ..PutRequest::default()
        })
    }

    fn hash_kv(&mut self) -> Call {
        let revision = match self.rng.random_range(0..100) {
            0..40 => 0,
            40..90 => relative(-self.rng.random_range(0..60)),
            90..95 => relative(3),
            _ => -1,
        };
        Call::HashKv(revision)
    }

    fn stream(&mut self) -> usize {
        self.rng.random_range(0..STREAMS)
    }

    fn watch_id(&mut self) -> i64 {
        match self.rng.random_range(-2..12) {
            -1 if !self.dialect.negative_starts => 3,
            id => id,
        }
    }

    fn watch_create(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.key_and_end();
        let start_revision = match self.rng.random_range(0..100) {
            0..50 => 0,
            50..75 => relative(-self.rng.random_range(0..30)),
            75..80 => relative(-self.rng.random_range(30..400)),
            80..86 => relative(1),
            86..92 => relative(self.rng.random_range(2..30)),
            92..95 if self.dialect.negative_starts => -self.rng.random_range(1..3),
            _ => self.rng.random_range(1..30),
        };
        let filters = match self.rng.random_range(0..100) {
            0..80 => vec![],
            80..88 => vec![0],
            88..96 => vec![1],
            96..98 => vec![0, 1],
            _ => vec![self.pick(&[2, -1])],
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.chance(200),
            filters,
            prev_kv: self.chance(400),
            watch_id: if self.chance(750) { 0 } else { self.watch_id() },
            fragment: self.chance(200),
        }
    }
}

fn ops_of(txn: &TxnRequest) -> impl Iterator<Item = &Request> {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.filter_map(|op| op.request.as_ref())
}

fn deletes(txn: &TxnRequest) -> bool {
    ops_of(txn).any(|request| match request {
        Request::RequestDeleteRange(_) => true,
        Request::RequestTxn(txn) => deletes(txn),
        Request::RequestRange(_) | Request::RequestPut(_) => false,
    })
}

/// Takes `ignore_value` and `ignore_lease` out of a txn that deletes.
///
/// The check for duplicate keys overlooks deletes up to the end of the key space (`range_end` `\0`), so a put may find
/// the key gone whose value it is to keep: every etcd up to 3.7.1 then ends in a panic while applying
/// (server/etcdserver/txn/put.go), and again at every start. Nothing is to be compared with that.
fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => {
                put.ignore_value = false;
                put.ignore_lease = false;
            }
            Some(Request::RequestTxn(txn)) => keep_nothing(txn),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
}

/// The end of the range of keys that start with `prefix`.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Dialect = Dialect {
        unknown_sorts: true,
        range_stream: true,
        hash_after_compaction: true,
        negative_starts: true,
        manual_progress: true,
    };

    #[test]
    fn the_same_seed_draws_the_same_script() {
        assert_eq!(script(7, 500, ALL), script(7, 500, ALL));
        assert_ne!(script(7, 500, ALL), script(8, 500, ALL));
    }

    #[test]
    fn a_prefix_of_the_highest_bytes_has_no_end() {
        assert_eq!(prefix_end(b"a\xff"), Bytes::from_static(b"b"));
        assert_eq!(prefix_end(b"\xff\xff"), Bytes::from_static(b"\0"));
    }
}
