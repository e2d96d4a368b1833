//! Watchers that come and go, on any member: everything in order, nothing missing, nothing twice, the same for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate::keyspace::Keyspace;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use quorate_core::api::pb::mvccpb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::world::World;

/// What watchers are given of one revision: key, create and mod revision, version, value, deleted.
type Events = Vec<(Bytes, i64, i64, i64, Bytes, i32)>;

/// What all watchers together have seen of history.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<i64, Events>>>);

impl Seen {
    /// Compares with what the others saw of that revision.
    fn agrees(&self, revision: i64, events: Events) -> bool {
        let mut seen = self.0.lock().expect("nobody panics while holding it");
        *seen.entry(revision).or_insert_with(|| events.clone()) == events
    }

    /// The revisions above `from`, up to `to`, in which a key with that prefix changed, and what happened to it.
    fn of(&self, prefix: &[u8], from: i64, to: i64) -> BTreeMap<i64, Events> {
        let seen = self.0.lock().expect("nobody panics while holding it");
        let revisions = seen.range(from + 1..to + 1).map(|(revision, events)| {
            let of: Events =
                events.iter().filter(|event| event.0.starts_with(prefix)).cloned().collect();
            (*revision, of)
        });
        revisions.filter(|(_, events)| !events.is_empty()).collect()
    }

    pub fn newest(&self) -> i64 {
        let seen = self.0.lock().expect("nobody panics while holding it");
        seen.last_key_value().map_or(0, |(revision, _)| *revision)
    }
}

/// What a watcher of some keys was given between two revisions.
pub struct Stretch {
    member: u64,
    prefix: &'static str,
    from: i64,
    to: i64,
    given: BTreeMap<i64, Events>,
}

/// One client that watches.
pub struct Watcher {
    world: Arc<World>,
    seen: Seen,
    rng: StdRng,
    /// Everything up to here was given, or compacted.
    have: i64,
    prefix: &'static str,
    stretches: Vec<Stretch>,
    given: u64,
}

impl Watcher {
    /// Watches all keys, or those with a prefix.
    pub fn new(world: &Arc<World>, seen: &Seen, seed: u64, prefix: &'static str) -> Watcher {
        Watcher {
            world: Arc::clone(world),
            seen: seen.clone(),
            rng: StdRng::seed_from_u64(seed),
            // An empty store is at revision 1.
            have: 1,
            prefix,
            stretches: Vec::new(),
            given: 0,
        }
    }

    /// Watches now here, now there, until the faults are over; then once more to the end.
    pub async fn run(mut self) -> Vec<Stretch> {
        while !self.world.is_over() {
            let length = Duration::from_millis(self.rng.random_range(200..8000));
            self.watch(length, i64::MAX).await;
        }
        let until = self.world.known();
        for _ in 0..20 {
            if self.have >= until {
                break;
            }
            self.watch(Duration::from_secs(2), until).await;
        }
        if self.prefix.is_empty() && self.have < until {
            let words = format!("a watcher ends at {} of {until}", self.have);
            self.world.violation(words);
        }
        self.world.looked("revisions watched", self.given);
        self.stretches
    }

    /// One stream, on one member.
    async fn watch(&mut self, length: Duration, until: i64) {
        let cast = self.world.fleet.cast();
        let id = cast[self.rng.random_range(0..cast.len())];
        let Some(member) = self.world.fleet.member(id) else {
            return tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let (responses, mut received) = mpsc::unbounded_channel();
        let (key, range_end) = match self.prefix {
            "" => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            prefix => {
                let range = super::clients::get_prefix(prefix);
                (range.key, range.range_end)
            }
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.have + 1,
            fragment: false,
            ..WatchCreateRequest::default()
        };
        let slow = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(1..60),
            _ => 0,
        };
        let stream = member.spawn(stream(member.keyspace.clone(), create, slow, responses));
        let mut stretch = Stretch {
            member: id,
            prefix: self.prefix,
            from: self.have,
            to: self.have,
            given: BTreeMap::new(),
        };
        let end = Instant::now() + length;
        while self.have < until
            && let Ok(Some(response)) = timeout_at(end, received.recv()).await
        {
            if !self.take(id, response, &mut stretch) {
                break;
            }
        }
        stream.abort();
        if !self.prefix.is_empty() {
            self.stretches.push(stretch);
        }
    }

    /// Whether the stream goes on.
    fn take(&mut self, id: u64, response: WatchResponse, stretch: &mut Stretch) -> bool {
        if response.canceled {
            // What lies between was compacted before this watcher came to it.
            self.have = self.have.max(response.compact_revision);
            stretch.to = stretch.to.min(self.have);
            self.world.looked("watchers overtaken by a compaction", 1);
            return false;
        }
        let mut of: BTreeMap<i64, Events> = BTreeMap::new();
        let mut last = self.have;
        for event in &response.events {
            let Some(event) = flat(event) else { continue };
            if event.2 < last {
                let words = format!("member {id} sends revision {} after {last}", event.2);
                self.world.violation(words);
            }
            last = event.2;
            of.entry(event.2).or_default().push(event);
        }
        for (revision, events) in of {
            self.take_revision(id, revision, events, stretch);
        }
        if response.events.is_empty() && !response.created {
            // Progress: nothing up to here is missing.
            let at = response.header.map_or(0, |header| header.revision);
            stretch.to = stretch.to.max(at);
            self.world.looked("progress notified", 1);
            if self.prefix.is_empty() && at > self.have {
                let words = format!("progress of member {id} says {at} after {}", self.have);
                self.world.violation(words);
            }
        }
        true
    }

    fn take_revision(&mut self, id: u64, revision: i64, events: Events, stretch: &mut Stretch) {
        let have = self.have;
        if revision <= have {
            self.world
                .violation(format!("member {id} sends revision {revision} again, after {have}"));
        }
        if self.prefix.is_empty() {
            if revision != have + 1 {
                let words = format!("member {id} sends revision {revision} after {have}");
                self.world.violation(words);
            }
            if !self.seen.agrees(revision, events) {
                let words = format!("member {id} shows revision {revision} otherwise");
                self.world.violation(words);
            }
        } else {
            stretch.given.insert(revision, events);
        }
        self.given += 1;
        self.have = revision;
        stretch.to = stretch.to.max(revision);
    }
}

/// The watcher's stream in the member's own process.
async fn stream(
    keyspace: Keyspace,
    create: WatchCreateRequest,
    slow_ms: u64,
    responses: mpsc::UnboundedSender<WatchResponse>,
) {
    let mut stream = keyspace.watch();
    stream.create(&create);
    let mut count = 0;
    while let Ok(response) = stream.next().await {
        if responses.send(response).is_err() {
            return;
        }
        count += 1;
        if count % 7 == 0 {
            stream.request_progress();
        }
        if slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        }
    }
}

fn flat(event: &mvccpb::Event) -> Option<(Bytes, i64, i64, i64, Bytes, i32)> {
    let kv = event.kv.as_ref()?;
    Some((
        kv.key.clone(),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.value.clone(),
        event.r#type,
    ))
}

/// Watchers of some keys were given just what watchers of all keys saw of them.
pub fn compare(seen: &Seen, stretches: &[Stretch]) -> Vec<String> {
    let known = seen.newest();
    let differs = stretches.iter().filter_map(|stretch| {
        let to = stretch.to.min(known);
        let of = seen.of(stretch.prefix.as_bytes(), stretch.from, to);
        let given: BTreeMap<_, _> =
            stretch.given.range(..to + 1).map(|(at, events)| (*at, events.clone())).collect();
        // What nobody else saw, because it was compacted, proves nothing.
        let missing = of.iter().find(|(at, events)| given.get(at) != Some(events));
        missing.map(|(at, _)| {
            let Stretch { member, prefix, from, to, .. } = stretch;
            format!("a watcher of {prefix} on member {member} from {from} to {to} misses {at}")
        })
    });
    differs.collect()
}
