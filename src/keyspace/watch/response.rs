//! The shapes of etcd's watch responses. Headers carry only the revision; the service adds who and when.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchResponse};

use super::event::Event;
use super::watcher::Watcher;

/// Answers that belong to no watcher carry this id.
const NO_WATCHER: WatchId = WatchId(-1);

/// Why a watcher was not made. The texts are etcd's, in `cancel_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    NegativeStart,
}

fn of(id: WatchId, revision: i64) -> WatchResponse {
    WatchResponse {
        header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
        watch_id: id.0,
        ..WatchResponse::default()
    }
}

/// A watcher was made.
pub(super) fn created(id: WatchId, revision: i64) -> WatchResponse {
    WatchResponse { created: true, ..of(id, revision) }
}

/// A watcher was not made.
pub(super) fn refused(reason: String, revision: i64) -> WatchResponse {
    WatchResponse {
        created: true,
        canceled: true,
        cancel_reason: reason,
        ..of(NO_WATCHER, revision)
    }
}

/// A watcher was cancelled by the client.
pub(super) fn cancelled(id: WatchId, revision: i64) -> WatchResponse {
    WatchResponse { canceled: true, ..of(id, revision) }
}

/// A watcher was overtaken by compaction; etcd leaves the header's revision 0.
pub(super) fn compacted(id: WatchId, compact_revision: i64) -> WatchResponse {
    WatchResponse { canceled: true, compact_revision, ..of(id, 0) }
}

/// Nothing up to `revision` is missing: of one watcher, or of all on the stream (`None`).
pub(super) fn progress(id: Option<WatchId>, revision: i64) -> WatchResponse {
    of(id.unwrap_or(NO_WATCHER), revision)
}

/// Events of one watcher, in one response, or in fragments if it asked for them and they are large.
pub(super) fn events(
    watcher: &Watcher,
    revision: i64,
    events: &[Arc<Event>],
    compacted: i64,
    fragment_bytes: usize,
) -> VecDeque<WatchResponse> {
    let messages = events.iter().map(|event| event.message(watcher.prev_kv, compacted));
    let whole = WatchResponse { events: messages.collect(), ..of(watcher.id, revision) };
    if !watcher.fragment || whole.events.len() < 2 || whole.encoded_len() < fragment_bytes {
        return VecDeque::from([whole]);
    }
    fragments(whole, fragment_bytes)
}

/// Cuts a response between events, each piece below `fragment_bytes` unless one event alone is larger. All but the
/// last say `fragment` (etcd `v3rpc/watch.go`, `sendFragments`).
fn fragments(whole: WatchResponse, fragment_bytes: usize) -> VecDeque<WatchResponse> {
    let bare = WatchResponse { fragment: true, events: Vec::new(), ..whole };
    let bare_bytes = bare.encoded_len();
    let mut pieces = VecDeque::from([bare.clone()]);
    let mut bytes = bare_bytes;
    for event in whole.events {
        let length = event.encoded_len();
        // The field's tag takes one byte.
        let adds = 1 + prost::length_delimiter_len(length) + length;
        let last = pieces.back().expect("there is a first piece");
        if !last.events.is_empty() && bytes + adds >= fragment_bytes {
            pieces.push_back(bare.clone());
            bytes = bare_bytes;
        }
        let last = pieces.back_mut().expect("there is a first piece");
        last.events.push(event);
        bytes += adds;
    }
    if let Some(last) = pieces.back_mut() {
        last.fragment = false;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use quorate_core::api::pb::mvccpb;

    use super::*;

    fn event(bytes: usize) -> mvccpb::Event {
        mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: "k".into(),
                value: vec![7; bytes].into(),
                ..mvccpb::KeyValue::default()
            }),
            ..mvccpb::Event::default()
        }
    }

    #[test]
    fn fragments_are_cut_between_events_and_the_last_says_so() {
        let events: Vec<_> = [10, 10, 300, 10, 10, 10].map(event).into();
        let whole = WatchResponse { events: events.clone(), ..of(WatchId(3), 9) };

        let pieces = fragments(whole, 100);

        let shape: Vec<_> = pieces.iter().map(|piece| piece.events.len()).collect();
        assert_eq!(shape, [2, 1, 3]);
        let marks: Vec<_> = pieces.iter().map(|piece| piece.fragment).collect();
        assert_eq!(marks, [true, true, false]);
        assert!(pieces.iter().all(|piece| piece.watch_id == 3));
        assert!(pieces.iter().all(
            |piece| piece.header == Some(ResponseHeader { revision: 9, ..Default::default() })
        ));
        let together: Vec<_> = pieces.into_iter().flat_map(|piece| piece.events).collect();
        assert_eq!(together, events);
    }
}
