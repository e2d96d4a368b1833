//! Watches: who gets which events, in which order, however slow they read.
//!
//! ```text
//!   sink of the keyspace                                        a client's stream (one WatchStream)
//!   publish(revisions) ──► WatchHub ──► index: who matches ──►  queue: created, events, progress, cancel
//!                             │             │ queue full              ▲           │ next()
//!                             ▼             ▼                         │           ▼
//!                           tail         watcher lags: a cursor ──► catch-up    WatchResponse
//!                      (newest events)      (no events kept)       tail, or slices of history
//!                                                                  scanned outside every lock
//! ```
//!
//! A watcher is *synced* (events reach it as they are published) or *lagging* (it has a cursor, and its own stream
//! reads history for it, a slice at a time, as fast as the client takes the answers). A full queue turns a synced
//! watcher into a lagging one; a cursor that has reached the newest revision turns it back, under the hub's lock.
//!
//! **Invariant:** `publish` never waits for a watcher and keeps nothing for one beyond its stream's bounded queue.
//! **Invariant:** what a stream sends has one order, the order of its queue; progress for revision R is queued under
//! the hub's lock, after every event up to R of the watchers it speaks for.
//! **Invariant:** a main revision is in one response or in none.
//! **Invariant:** no watcher is given a revision below its cursor, and a cursor below the compact revision is
//! cancelled, never moved.
//!
//! Behaviour: etcd `server/etcdserver/api/v3rpc/watch.go`, `server/storage/mvcc/watchable_store.go`.

mod catch_up;
mod counters;
mod event;
mod history;
mod hub;
mod index;
mod interval;
mod progress;
mod queue;
mod range;
mod response;
mod slice;
mod stream;
mod tail;
mod watcher;

pub use counters::WatchCounters;
pub use history::History;
pub use hub::{WatchHub, WatchOptions};
pub use stream::{WatchError, WatchStream};

#[cfg(test)]
pub(crate) mod tests;
