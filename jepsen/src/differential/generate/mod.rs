//! Draws the script of a run from its seed.
//!
//! The key space is small, so that calls collide, and never holds more keys than Go's sort orders stably
//! ([`Dialect::keys`]): so the order of ties can be compared. Only a burst makes more, and compacts them away.

mod kv;
mod lease;
mod txn;
mod watch;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::call::{Call, relative, since_compaction};
use crate::pb::etcdserverpb::LeaseTimeToLiveRequest;

/// Streams a run multiplexes its watchers on.
pub(super) const STREAMS: usize = 3;

/// With `\0` and the sentinel twelve keys: Go sorts up to twelve by insertion.
const KEYS: &[&[u8]] = &[b"a", b"a0", b"a1", b"ab", b"b", b"b\0", b"c", b"k", b"\xff", b"\xff\xff"];

/// With `\0` and the sentinel six keys: from seven on, Go before 1.19 makes one pass over keys six apart.
const FEW_KEYS: &[&[u8]] = &[b"a", b"a0", b"b", b"\xff"];

/// What an oracle of another release must not be asked; the changes are named in [`super::allowed`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) unknown_enums: bool,
    pub(super) range_stream: bool,
    pub(super) keeps_last_tombstone: bool,
    pub(super) negative_starts: bool,
    pub(super) negative_leases: bool,
    pub(super) counts_nested_puts: bool,
    /// Built with Go 1.19 or later.
    pub(super) stable_to_twelve: bool,
}

impl Dialect {
    fn keys(self) -> &'static [&'static [u8]] {
        if self.stable_to_twelve { KEYS } else { FEW_KEYS }
    }
}

pub(super) fn script(seed: u64, calls: usize, dialect: Dialect) -> Vec<Call> {
    let mut draw = Draw::new(seed, dialect);
    (0..calls).map(|_| draw.call()).collect()
}

pub(super) struct Draw {
    pub(super) rng: StdRng,
    dialect: Dialect,
    /// What is still to be done until no alarm stands, last thing first; empty when none does.
    alarms: Vec<Call>,
}

impl Draw {
    pub(super) fn new(seed: u64, dialect: Dialect) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), dialect, alarms: Vec::new() }
    }

    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn call(&mut self) -> Call {
        if let Some(next) = self.alarms.pop() {
            return next;
        }
        match self.rng.random_range(0..1000) {
            880..884 => Call::MemberList(self.chance(500)),
            884..888 => Call::Status,
            888..932 => Call::WatchCreate(self.stream(), self.watch_create()),
            932..935 => Call::WatchNothing(self.stream()),
            935..955 => Call::WatchCancel(self.stream(), self.watch_id()),
            955..963 => Call::WatchProgress(self.stream()),
            963..966 => Call::WatchReopen(self.stream()),
            966..980 => Call::WatchSettle,
            980..982 => Call::Put(self.huge_put()),
            982..985 => Call::Burst(Box::new(self.burst())),
            985..988 => self.alarm_episode(),
            988..990 => Call::Alarm(self.alarm_look()),
            990 if self.chance(500) => self.expire(),
            991 if self.chance(400) => Call::Restart,
            _ => self.quiet_call(),
        }
    }

    /// A call that needs no watcher to have caught up, and may be made while an alarm stands.
    pub(super) fn quiet_call(&mut self) -> Call {
        match self.rng.random_range(0..892) {
            0..270 => Call::Range(self.range()),
            270..300 => Call::RangeStream(self.streamed_range()),
            300..510 => Call::Put(self.put()),
            510..580 => Call::DeleteRange(self.delete_range()),
            580..772 => self.txn_call(),
            772..784 => Call::Compact(self.compact()),
            784..812 => Call::Grant(self.grant()),
            812..818 => Call::GrantAndRevoke(self.short_grant()),
            818..830 => Call::Revoke(self.lease()),
            830..850 => Call::KeepAlive(self.lease()),
            850..870 => Call::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.chance(700),
            }),
            870..880 => Call::Leases,
            _ => self.hash_kv(),
        }
    }

    pub(super) fn key(&mut self) -> Bytes {
        match self.rng.random_range(0..1000) {
            0..12 => Bytes::new(),
            12..40 => Bytes::from_static(b"\0"),
            _ => Bytes::from_static(self.pick(self.dialect.keys())),
        }
    }

    pub(super) fn key_and_end(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.rng.random_range(0..100) {
            0..38 => (key, Bytes::new()),
            38..56 => {
                let end = prefix_end(&key);
                (key, end)
            }
            56..66 => (key, Bytes::from_static(b"\0")),
            66..76 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            76..78 => (key, Bytes::from_static(b"\0\0")),
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

    /// Mostly now, often the recent past, sometimes the edge of what is compacted, sometimes nonsense.
    fn revision(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0..50 => 0,
            50..76 => relative(-self.rng.random_range(0..20)),
            76..82 => relative(-self.rng.random_range(0..300)),
            82..88 => since_compaction(self.rng.random_range(-1..3)),
            88..92 => relative(self.rng.random_range(1..4)),
            92..95 => -self.rng.random_range(1..4),
            95..96 => self.pick(&[i64::MAX, i64::MIN]),
            _ => self.rng.random_range(1..40),
        }
    }

    fn stream(&mut self) -> usize {
        self.rng.random_range(0..STREAMS)
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
pub(super) mod tests {
    use super::*;

    pub(in crate::differential) const ALL: Dialect = Dialect {
        unknown_enums: true,
        range_stream: true,
        keeps_last_tombstone: true,
        negative_starts: true,
        negative_leases: true,
        counts_nested_puts: true,
        stable_to_twelve: true,
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

    #[test]
    fn an_alarm_is_taken_back_before_the_next_settling() {
        let mut standing = false;
        for call in script(3, 20_000, ALL) {
            match &call {
                Call::Alarm(request) => match request.action {
                    1 => standing = request.alarm != 0,
                    2 => standing = false,
                    _ => {}
                },
                Call::WatchSettle | Call::WatchReopen(_) | Call::Burst(_) => {
                    assert!(!standing, "{call:?} under an alarm");
                }
                _ => {}
            }
        }
    }
}
