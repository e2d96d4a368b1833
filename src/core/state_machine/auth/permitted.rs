//! The ranges that a user's roles open to it, merged.
//!
//! ```text
//!   granted     [a .......... c)                     READ
//!                          [c .. f)                  READWRITE
//!                                     {k}            WRITE
//!   to read     [a ............ f)                   a range from a to f, from b to d, the key e
//!   to write                [c .. f)  [k .. k\0)     the keys d and k, but no range from c to l
//! ```
//!
//! After etcd `server/auth/range_perm_cache.go` and `pkg/adt`: a range is permitted if the union of what is granted
//! covers it, an open one only by an open one.

use bytes::Bytes;

use crate::api::pb::authpb::Permission;
use crate::api::pb::authpb::permission::Type;

/// What a user may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permitted {
    pub(super) read: Ranges,
    pub(super) write: Ranges,
}

impl Permitted {
    /// All of `permissions` together. Those of a kind that is not known permit nothing.
    pub(super) fn merge<'p>(permissions: impl Iterator<Item = &'p Permission>) -> Permitted {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let range = KeyRange::of(permission);
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(range),
                Ok(Type::Write) => write.push(range),
                Ok(Type::Readwrite) => {
                    read.push(range.clone());
                    write.push(range);
                }
                Err(_) => {}
            }
        }
        Permitted { read: Ranges::merge(read), write: Ranges::merge(write) }
    }
}

/// Keys from `start` on, up to `end` exclusively or without end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

impl KeyRange {
    fn of(permission: &Permission) -> KeyRange {
        let end = match permission.range_end.as_ref() {
            b"" => {
                let mut next = Vec::with_capacity(permission.key.len() + 1);
                next.extend_from_slice(&permission.key);
                next.push(0);
                Some(next.into())
            }
            b"\0" => None,
            _ => Some(permission.range_end.clone()),
        };
        KeyRange { start: permission.key.clone(), end }
    }

    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| end >= key)
    }
}

/// Ranges that neither touch nor overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<KeyRange>);

impl Ranges {
    fn merge(mut ranges: Vec<KeyRange>) -> Ranges {
        ranges.sort_by(|one, other| one.start.cmp(&other.start));
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.reaches(&range.start) => match (&last.end, range.end) {
                    (None, _) => {}
                    (Some(end), Some(new)) if *end >= new => {}
                    (Some(_), new) => last.end = new,
                },
                Some(_) | None => merged.push(range),
            }
        }
        Ranges(merged)
    }

    /// The whole of a request's `key` and `range_end` lies within. A range that holds no keys, its end not above its
    /// start, counts as its start alone.
    pub(super) fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|range| range.start <= key);
        let Some(range) = after.checked_sub(1).and_then(|place| self.0.get(place)) else {
            return false;
        };
        match range_end {
            b"\0" => range.end.is_none(),
            end if end > key => range.reaches(end),
            _ => range.end.as_ref().is_none_or(|end| end > key),
        }
    }
}
