//! Watchers.

use rand::Rng;

use super::Draw;
use crate::differential::call::{relative, since_compaction};
use crate::pb::etcdserverpb::WatchCreateRequest;

impl Draw {
    pub(super) fn watch_id(&mut self) -> i64 {
        match self.rng.random_range(-2..12) {
            -1 if !self.dialect.negative_starts => 3,
            id => id,
        }
    }

    pub(in crate::differential) fn watch_create(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.key_and_end();
        let start_revision = match self.rng.random_range(0..100) {
            0..45 => 0,
            45..68 => relative(-self.rng.random_range(0..30)),
            68..74 => relative(-self.rng.random_range(30..400)),
            74..80 => since_compaction(self.rng.random_range(-1..3)),
            80..86 => relative(1),
            86..92 => relative(self.rng.random_range(2..30)),
            92..95 if self.dialect.negative_starts => self.pick(&[-1, -2, i64::MIN]),
            _ => self.rng.random_range(1..30),
        };
        let filters = match self.rng.random_range(0..100) {
            0..78 => vec![],
            78..86 => vec![0],
            86..94 => vec![1],
            94..96 => vec![0, 1],
            96..98 => vec![1, 1, 0],
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
