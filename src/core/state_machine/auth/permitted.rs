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
                Some(last) if last.reaches(&range.start) => {
                    let longer = match (&last.end, &range.end) {
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(old), Some(new)) => new > old,
                    };
                    if longer {
                        last.end = range.end;
                    }
                }
                Some(_) | None => merged.push(range),
            }
        }
        Ranges(merged)
    }

    /// The whole of a request's `key` and `range_end` lies within. A range that holds no keys, its end not above its
    /// start, counts as its start alone; in etcd it depends on the shape of a tree.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
        let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
        Permission { perm_type: kind as i32, key, range_end }
    }

    type KeyAndEnd = (&'static str, &'static str);

    fn to_read(ranges: &[KeyAndEnd]) -> Ranges {
        let granted: Vec<Permission> =
            ranges.iter().map(|(key, end)| permission(Type::Read, key, end)).collect();
        Permitted::merge(granted.iter()).read
    }

    #[test]
    fn a_range_is_covered_by_what_is_granted_together() {
        #[rustfmt::skip]
        let table: [(&[KeyAndEnd], &str, &str, bool); 30] = [
            // granted                                   key   range_end
            (&[],                                        "a",  "",    false),
            (&[("a", "")],                               "a",  "",    true),
            (&[("a", "")],                               "a\0","",    false),
            (&[("a", "")],                               "a",  "a\0", true),
            (&[("a", "")],                               "a",  "b",   false),
            (&[("a", "")],                               "a",  "\0",  false),
            (&[("a", "c"), ("x", "z")],                  "a",  "z",   false),
            (&[("a", "c"), ("x", "z")],                  "f",  "",    false),
            (&[("a", "c")],                              "c",  "",    false),
            (&[("a", "c")],                              "b",  "c",   true),
            (&[("a", "c")],                              "b",  "c\0", false),
            (&[("a", "f"), ("c", "d"), ("f", "z")],      "a",  "z",   true),
            (&[("f", "z"), ("a", "f"), ("c", "d")],      "b",  "",    true),
            (&[("a", "d"), ("a", "b"), ("c", "f")],      "a",  "f",   true),
            (&[("a", "d"), ("a", "b"), ("c", "f")],      "a",  "\0",  false),
            (&[("a", "d"), ("a", "b"), ("c", "f")],      "d",  "",    true),
            (&[("a", "d"), ("a", "b"), ("c", "f")],      "f",  "",    false),
            (&[("a", "d"), ("a", "b"), ("c", "\0")],     "f",  "",    true),
            (&[("a", "d"), ("c", "\0")],                 "a",  "\0",  true),
            (&[("a", "c"), ("d", "\0")],                 "a",  "\0",  false),
            (&[("a", "\0"), ("b", "c")],                 "b",  "\0",  true),
            (&[("a", "\0")],                             "A",  "\0",  false),
            (&[("\0", "\0")],                            "a",  "\0",  true),
            (&[("\0", "\0")],                            "\0", "\0",  true),
            (&[("\0", "\0")],                            "a",  "b",   true),
            // A key, and what begins right behind it.
            (&[("a", ""), ("a\0", "c")],                 "a",  "c",   true),
            (&[("a", ""), ("b", "c")],                   "a",  "c",   false),
            // No keys: counts as its start.
            (&[("a", "c")],                              "b",  "a",   true),
            (&[("a", "c")],                              "b",  "b",   true),
            (&[("a", "c")],                              "d",  "a",   false),
        ];
        for (granted, key, range_end, covered) in table {
            let ranges = to_read(granted);
            let answer = ranges.cover(key.as_bytes(), range_end.as_bytes());
            assert_eq!(answer, covered, "{granted:?}: {key:?} to {range_end:?}");
        }
    }

    #[test]
    fn kinds_are_kept_apart_and_unknown_ones_permit_nothing() {
        let mut odd = permission(Type::Read, "d", "");
        odd.perm_type = 7;
        let granted = [
            permission(Type::Read, "a", ""),
            permission(Type::Write, "b", ""),
            permission(Type::Readwrite, "c", ""),
            odd,
        ];
        let permitted = Permitted::merge(granted.iter());
        let may = |key: &str| {
            (permitted.read.cover(key.as_bytes(), b""), permitted.write.cover(key.as_bytes(), b""))
        };
        assert_eq!(may("a"), (true, false));
        assert_eq!(may("b"), (false, true));
        assert_eq!(may("c"), (true, true));
        assert_eq!(may("d"), (false, false));
    }
}
