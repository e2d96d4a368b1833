//! Which keys a watcher asks for.

use bytes::Bytes;

/// A watched range `[key, end)`, or one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyRange {
    /// Exactly this key.
    One(Bytes),
    /// Every key from `start` up to, and without, `end`.
    Span {
        /// The first key.
        start: Bytes,
        /// Where it ends.
        end: End,
    },
}

/// The open end of a span. Ordered: infinity is after every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// There is no end.
    Infinity,
}

impl End {
    /// The key lies before this end.
    pub(super) fn is_after(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < end.as_ref(),
            End::Infinity => true,
        }
    }
}

impl KeyRange {
    /// Reads `key` and `range_end` as etcd does: an empty key is `\0`, no end is one key, the end `\0` is no end.
    /// `None` when the range is empty.
    pub(super) fn of(key: &Bytes, range_end: &Bytes) -> Option<KeyRange> {
        let start = if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() };
        if range_end.is_empty() {
            return Some(KeyRange::One(start));
        }
        if range_end.as_ref() == b"\0" {
            let end = End::Infinity;
            return Some(KeyRange::Span { start, end });
        }
        let end = range_end.clone();
        (start < end).then_some(KeyRange::Span { start, end: End::Before(end) })
    }

    /// The key is in the range.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one.as_ref() == key,
            KeyRange::Span { start, end } => start.as_ref() <= key && end.is_after(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &'static [u8], end: &'static [u8]) -> Option<KeyRange> {
        KeyRange::of(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn ends_are_read_as_etcd_reads_them() {
        let one = of(b"a", b"").unwrap();
        assert!(one.contains(b"a") && !one.contains(b"a\0"));

        let span = of(b"a", b"b").unwrap();
        assert!(span.contains(b"a") && span.contains(b"azz"));
        assert!(!span.contains(b"b") && !span.contains(b"Z"));

        let from = of(b"m", b"\0").unwrap();
        assert!(from.contains(b"m") && from.contains(b"\xff\xff") && !from.contains(b"l"));

        let all = of(b"", b"\0").unwrap();
        assert!(all.contains(b"\0") && all.contains(b"z"));
    }

    #[test]
    fn a_range_that_holds_no_key_is_empty() {
        assert_eq!(of(b"b", b"a"), None);
        assert_eq!(of(b"a", b"a"), None);
        assert!(of(b"", b"a").is_some());
    }
}
