//! Ranges, puts, deletes, compactions and hashes.

use bytes::Bytes;
use rand::Rng;

use super::Draw;
use crate::differential::call::{Burst, Call, relative, since_compaction};
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Keys of a burst start with it: no other call draws one.
const BURST_PREFIX: &str = "w";

impl Draw {
    /// Around the two limits: of a request (1.5 MiB with its envelope) and of a message (2 MiB).
    pub(super) fn huge_put(&mut self) -> PutRequest {
        let length = self.pick(&[1_572_300, 1_573_000, 1_700_000, 2_097_138, 2_097_139, 2_100_000]);
        let key = Bytes::from_static(b"k");
        PutRequest { key, value: vec![b'h'; length].into(), ..PutRequest::default() }
    }

    fn bound(&mut self) -> i64 {
        if self.chance(920) {
            return 0;
        }
        match self.rng.random_range(0..10) {
            0..8 => relative(-self.rng.random_range(0..40)),
            8 => self.rng.random_range(1..30),
            _ => self.pick(&[-1, i64::MAX, i64::MIN]),
        }
    }

    fn limit(&mut self) -> i64 {
        if self.chance(650) {
            return 0;
        }
        self.pick(&[1, 1, 2, 3, 5, 9, 10, 11, -1, i64::MAX, i64::MIN])
    }

    pub(super) fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.key_and_end();
        let sort_order = match self.rng.random_range(0..100) {
            0..60 => 0,
            60..78 => 1,
            98.. if self.dialect.unknown_enums => self.pick(&[3, -1]),
            _ => 2,
        };
        let sort_target = match self.rng.random_range(0..100) {
            0..50 => 0,
            98.. if self.dialect.unknown_enums => self.pick(&[5, -1]),
            _ => self.rng.random_range(0..5),
        };
        RangeRequest {
            key,
            range_end,
            limit: self.limit(),
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

    /// Mostly one that can be streamed: in key order and without bounds.
    pub(super) fn streamed_range(&mut self) -> RangeRequest {
        let mut request = self.range();
        if !self.dialect.range_stream || self.chance(800) {
            let target = self.rng.random_range(0..5);
            (request.sort_order, request.sort_target) =
                self.pick(&[(0, 0), (0, 0), (1, 0), (0, target)]);
            request.min_mod_revision = 0;
            request.max_mod_revision = 0;
            request.min_create_revision = 0;
            request.max_create_revision = 0;
        }
        request
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let ignore_value = self.chance(70);
        PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(800) { Bytes::new() } else { self.value() },
            lease: if self.chance(780) { 0 } else { self.lease() },
            prev_kv: self.chance(300),
            ignore_value,
            ignore_lease: self.chance(70),
        }
    }

    pub(super) fn delete_range(&mut self) -> DeleteRangeRequest {
        let (key, range_end) =
            if self.chance(700) { (self.key(), Bytes::new()) } else { self.key_and_end() };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(400) }
    }

    pub(super) fn compact(&mut self) -> CompactionRequest {
        let revision = match self.rng.random_range(0..100) {
            0..55 => relative(-self.rng.random_range(0..60)),
            55..68 => relative(0),
            68..83 => relative(-self.rng.random_range(60..600)),
            83..90 => since_compaction(self.rng.random_range(-1..3)),
            90..95 => relative(self.rng.random_range(1..6)),
            95..98 => 0,
            _ => self.pick(&[-1, i64::MAX, i64::MIN]),
        };
        CompactionRequest { revision, physical: self.chance(600) }
    }

    pub(super) fn hash_kv(&mut self) -> Call {
        let revision = match self.rng.random_range(0..100) {
            0..35 => 0,
            35..80 => relative(-self.rng.random_range(0..60)),
            80..90 => since_compaction(self.rng.random_range(-1..3)),
            90..95 => relative(3),
            _ => self.pick(&[-1, -1, i64::MAX, i64::MIN]),
        };
        Call::HashKv(revision)
    }

    /// Many keys in one revision, read back in several ways. Sorted only by what has no ties.
    pub(super) fn burst(&mut self) -> Burst {
        let keys = self.rng.random_range(20..=128);
        let op = |key: usize| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: format!("{BURST_PREFIX}{key:03}").into(),
                value: format!("{}", key * 7919 % 1009).into(),
                ..PutRequest::default()
            })),
        };
        let all = RangeRequest {
            key: BURST_PREFIX.into(),
            range_end: super::prefix_end(BURST_PREFIX.as_bytes()),
            ..RangeRequest::default()
        };
        let (sort_order, sort_target) = self.pick(&[(0, 0), (1, 4), (2, 4), (2, 0), (0, 4)]);
        let limit = self.pick(&[0, 0, 1, 10, 11, 29, 30, 31, 127, 128]);
        Burst {
            write: TxnRequest { success: (0..keys).map(op).collect(), ..TxnRequest::default() },
            range: RangeRequest { sort_order, sort_target, limit, ..all.clone() },
            stream: RangeRequest {
                limit,
                keys_only: self.chance(300),
                count_only: self.chance(100),
                ..all.clone()
            },
            delete: DeleteRangeRequest {
                key: all.key,
                range_end: all.range_end,
                prev_kv: self.chance(500),
            },
        }
    }
}
