//! Which keys a request means, by etcd's rules for `key` and `range_end`.

use std::ops::Bound;

use bytes::Bytes;

/// Where keys start and end.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The keys of a request (etcd `api/etcdserverpb/rpc.proto`, `RangeRequest.range_end`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// `range_end` empty: this key alone.
    One(Bytes),
    /// From a key on, up to another exclusively, or to the end of all keys.
    From(Bytes, Option<Bytes>),
}

impl Span {
    /// The keys that `key` and `range_end` mean. An end of `\0` is "to the end of all keys".
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> Span {
        match range_end.as_ref() {
            b"" => Span::One(key.clone()),
            b"\0" => Span::From(key.clone(), None),
            _ => Span::From(key.clone(), Some(range_end.clone())),
        }
    }

    /// Its bounds, starting at `from` if given. `None`: it holds no keys, as when the end is not above the start.
    pub(crate) fn bounds<'a>(&'a self, from: Option<&'a [u8]>) -> Option<Bounds<'a>> {
        let (start, end) = match self {
            Span::One(key) => return Some((Bound::Included(key), Bound::Included(key))),
            Span::From(start, end) => (from.unwrap_or(start), end.as_deref()),
        };
        match end {
            None => Some((Bound::Included(start), Bound::Unbounded)),
            Some(end) if start < end => Some((Bound::Included(start), Bound::Excluded(end))),
            Some(_) => None,
        }
    }
}
