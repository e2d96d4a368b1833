//! The words of the library: what is read, watched, compared and written.

use bytes::Bytes;
use quorate_core::api::pb::mvccpb;

/// A key and what is kept under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// The value; empty for a key that was deleted.
    pub value: Bytes,
    /// The revision at which it was put or deleted last: grows with every change, in the whole store.
    pub version: i64,
    /// The revision at which the key came to be; 0 for a key that was deleted.
    pub created: i64,
}

impl From<mvccpb::KeyValue> for Kv {
    fn from(kv: mvccpb::KeyValue) -> Kv {
        Kv { key: kv.key, value: kv.value, version: kv.mod_revision, created: kv.create_revision }
    }
}

/// What happened to a key. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum EventType {
    /// It has a new value.
    Put = 0,
    /// It is gone.
    Delete = 1,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventType,
    /// The key as it is now.
    pub kv: Kv,
    /// The key as it was before, if it was there and the store still knows.
    pub previous: Option<Kv>,
}

impl From<mvccpb::Event> for WatchEvent {
    fn from(event: mvccpb::Event) -> WatchEvent {
        let kind = match event.r#type() {
            mvccpb::event::EventType::Put => EventType::Put,
            mvccpb::event::EventType::Delete => EventType::Delete,
        };
        let kv = event.kv.unwrap_or_default().into();
        WatchEvent { kind, kv, previous: event.prev_kv.map(Kv::from) }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched<'a> {
    /// This very key.
    Key(&'a [u8]),
    /// Every key that begins so; all keys if it is empty.
    Prefix(&'a [u8]),
}

/// What a key is expected to be, for a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What holds of it.
    pub expected: Expected,
}

/// What holds of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It was put last at this revision; 0: it does not exist.
    Version(i64),
    /// It came to be at this revision, whatever was put since; 0: it does not exist.
    Created(i64),
}

impl Compare {
    /// `key` does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Compare {
        Compare::version(key, 0)
    }

    /// `key` has this version; 0: it does not exist.
    pub fn version(key: impl Into<Bytes>, version: i64) -> Compare {
        Compare { key: key.into(), expected: Expected::Version(version) }
    }

    /// `key` is the one that came to be at this revision.
    pub fn created(key: impl Into<Bytes>, revision: i64) -> Compare {
        Compare { key: key.into(), expected: Expected::Created(revision) }
    }
}

/// What an operation of a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpType {
    /// Puts a value.
    Put,
    /// Deletes the key, if it is there.
    Delete,
    /// Reads the key.
    Get,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub kind: OpType,
    /// To which key.
    pub key: Bytes,
    /// What is put; empty for the others.
    pub value: Bytes,
}

impl Op {
    /// Puts `value`.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op { kind: OpType::Put, key: key.into(), value: value.into() }
    }

    /// Deletes `key`, if it is there.
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op { kind: OpType::Delete, key: key.into(), value: Bytes::new() }
    }

    /// Reads `key`.
    pub fn get(key: impl Into<Bytes>) -> Op {
        Op { kind: OpType::Get, key: key.into(), value: Bytes::new() }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// Whether every check held, so that the operations on success were done; else those on failure were.
    pub committed: bool,
    /// The store's revision afterwards.
    pub revision: i64,
    /// What the `Get`s among the operations done have read, in their order; `None` for a key that is not there.
    pub read: Vec<Option<Kv>>,
}
