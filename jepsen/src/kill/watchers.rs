//! Watchers of everything that resume by revision after each break.

use std::time::Duration;

use bytes::Bytes;
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

/// One event, short: revision, key, whether it deletes, version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen1 {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) deleted: bool,
    pub(super) version: i64,
    pub(super) value_len: usize,
}

impl From<Event> for Seen1 {
    fn from(event: Event) -> Self {
        let kv = event.kv.unwrap_or_default();
        Self {
            revision: kv.mod_revision,
            key: kv.key,
            deleted: event.r#type == 1,
            version: kv.version,
            value_len: kv.value.len(),
        }
    }
}

/// Everything one watcher was told, over all its streams.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) events: Vec<Seen1>,
    pub(super) resumes: u64,
    pub(super) faults: Vec<String>,
}

/// An open watch of every key from `revision` on.
pub(super) struct Everything {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Everything {
    pub(super) async fn from(client: &mut Client, revision: i64, prev_kv: bool) -> Option<Self> {
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
        Some(Self { requests, responses })
    }

    /// `None` when the stream broke.
    pub(super) async fn next(&mut self) -> Option<WatchResponse> {
        debug_assert!(!self.requests.is_closed(), "held so that the stream stays open");
        self.responses.message().await.ok().flatten()
    }
}

pub(super) async fn watch(arena: Arena, worker: u64) -> Seen {
    let mut seen = Seen::default();
    let mut next = 1;
    while let Some(mut client) = arena.client().await {
        let Some(mut everything) = Everything::from(&mut client, next, worker == 0).await else {
            continue;
        };
        seen.resumes += 1;
        while !arena.over() {
            let response = match timeout(Duration::from_millis(300), everything.next()).await {
                Err(_) => continue,
                Ok(None) => break,
                Ok(Some(response)) => response,
            };
            if response.canceled {
                seen.faults
                    .push(format!("watch from {next} cancelled: {}", response.cancel_reason));
                return seen;
            }
            for event in response.events {
                let event = Seen1::from(event);
                next = event.revision + 1;
                seen.events.push(event);
            }
        }
    }
    seen
}
