//! Watchers of everything that resume by revision after each break, and now and then without one, at any member.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Arena;
use crate::client::Client;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::pb::mvccpb::Event;

const PATIENCE: Duration = Duration::from_secs(4);

/// The key that tells watchers that nothing comes after it.
pub(crate) const LAST_KEY: &str = "the-end";
/// How long watchers may take to hear of it once everything is healed.
const CATCH_UP: Duration = Duration::from_secs(30);

/// One event, short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen1 {
    pub(crate) revision: i64,
    pub(crate) key: Bytes,
    pub(crate) deleted: bool,
    pub(crate) version: i64,
    pub(crate) value_sum: u64,
}

/// Stands for a value; equal ones have equal sums, others hardly ever.
pub(crate) fn value_sum(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl From<Event> for Seen1 {
    fn from(event: Event) -> Self {
        let kv = event.kv.unwrap_or_default();
        Self {
            revision: kv.mod_revision,
            key: kv.key,
            deleted: event.r#type == 1,
            version: kv.version,
            value_sum: value_sum(&kv.value),
        }
    }
}

/// Everything one watcher was told, over all its streams.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Seen1>,
    pub(crate) resumes: u64,
    pub(crate) faults: Vec<String>,
}

/// An open watch of every key from `revision` on.
pub(crate) struct Everything {
    /// Held, so that the stream stays open.
    _requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Everything {
    pub(crate) async fn from(client: &mut Client, revision: i64, prev_kv: bool) -> Option<Self> {
        let (requests, outgoing) = mpsc::channel(1);
        let create = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: revision,
            prev_kv,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.ok()?;
        let opened = timeout(PATIENCE, client.watch.watch(ReceiverStream::new(outgoing))).await;
        let responses = opened.ok()?.ok()?.into_inner();
        Some(Self { _requests: requests, responses })
    }

    /// `None` when the stream broke.
    pub(crate) async fn next(&mut self) -> Option<WatchResponse> {
        self.responses.message().await.ok().flatten()
    }
}

/// Watches until the last key, or until [`CATCH_UP`] after the load is over.
pub(crate) async fn watch(arena: Arena, seed: u64, worker: u64) -> Seen {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(4000) + worker);
    let mut seen = Seen::default();
    let mut patience = Patience { arena: arena.clone(), over: None };
    let mut at = arena.home;
    while !patience.is_exhausted() {
        let next = seen.events.last().map_or(1, |event| event.revision + 1);
        let opened = match arena.client_at(at).await {
            Some(mut client) => Everything::from(&mut client, next, worker == 0).await,
            None => None,
        };
        if let Some(everything) = opened {
            seen.resumes += 1;
            // Alone there is nowhere to go, and what breaks the stream is the fault.
            let stay = if arena.members() == 1 { 3600 } else { rng.random_range(2..20) };
            let heard = listen(everything, &mut seen, &patience, Duration::from_secs(stay)).await;
            if heard || !seen.faults.is_empty() {
                return seen;
            }
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        at = rng.random_range(0..arena.members());
    }
    if arena.members() > 1 {
        let last = seen.events.last().map_or(0, |event| event.revision);
        seen.faults.push(format!("watcher {worker}: stuck at {last}, {CATCH_UP:?} after the load"));
    }
    seen
}

/// Whether the last key has been heard.
async fn listen(
    mut everything: Everything,
    seen: &mut Seen,
    patience: &Patience,
    stay: Duration,
) -> bool {
    let begun = Instant::now();
    let mut patience = patience.clone();
    while begun.elapsed() < stay && !patience.is_exhausted() {
        let response = match timeout(Duration::from_millis(300), everything.next()).await {
            Err(_) => continue,
            Ok(None) => return false,
            Ok(Some(response)) => response,
        };
        if response.canceled {
            seen.faults.push(format!("watch cancelled: {}", response.cancel_reason));
            return false;
        }
        let before = seen.events.len();
        seen.events.extend(response.events.into_iter().map(Seen1::from));
        if seen.events[before..].iter().any(|event| event.key == LAST_KEY.as_bytes()) {
            return true;
        }
    }
    false
}

/// How long a watcher goes on once the load is over: not at all when alone, as the member may be down for good.
#[derive(Debug, Clone)]
struct Patience {
    arena: Arena,
    over: Option<Instant>,
}

impl Patience {
    fn is_exhausted(&mut self) -> bool {
        if !self.arena.over() {
            return false;
        }
        let over = *self.over.get_or_insert_with(Instant::now);
        self.arena.members() == 1 || over.elapsed() > CATCH_UP
    }
}
