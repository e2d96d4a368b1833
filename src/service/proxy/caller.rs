//! Who calls, and how: what of a client's metadata goes on to the members.

use std::fmt;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};

/// What tells whose call it is, and what it demands. Calls that differ in it are never answered together.
const IDENTITY: [&str; 3] = ["token", "authorization", "hasleader"];

/// What besides goes on with a single call.
const MANNER: [&str; 2] = ["client-api-version", "grpc-timeout"];

/// Whose call it is. Tokens are secrets: they are never shown.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller(Vec<(&'static str, Vec<u8>)>);

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Caller {
    /// Whoever sent `metadata`.
    pub(super) fn of(metadata: &MetadataMap) -> Caller {
        let shown = |name| metadata.get(name).map(|value| (name, value.as_bytes().to_vec()));
        Caller(IDENTITY.into_iter().filter_map(shown).collect())
    }

    /// Whether the call is only to be answered by a member that knows a leader.
    pub(super) fn requires_leader(&self) -> bool {
        self.0.iter().any(|(name, value)| *name == "hasleader" && value == b"true")
    }

    /// About how many bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shown| size_of_val(shown) + shown.1.len()).sum()
    }

    /// What a member is told.
    pub(super) fn metadata(&self) -> MetadataMap {
        let mut told = MetadataMap::new();
        for (name, value) in &self.0 {
            let value = AsciiMetadataValue::try_from(value.as_slice());
            told.insert(*name, value.expect("it came as metadata"));
        }
        told
    }
}

/// What of a single call's metadata goes on.
pub(super) fn carried(metadata: &MetadataMap) -> MetadataMap {
    let mut told = MetadataMap::new();
    for name in IDENTITY.into_iter().chain(MANNER) {
        if let Some(value) = metadata.get(name) {
            told.insert(name, value.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart_by_tokens_and_demands_and_tokens_are_not_shown() {
        let metadata = |token: &'static str, leader: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("token", token.parse().unwrap());
            metadata.insert("hasleader", leader.parse().unwrap());
            metadata.insert("user-agent", "x".parse().unwrap());
            metadata
        };
        let one = Caller::of(&metadata("secret.1", "true"));
        assert!(one.requires_leader());
        assert_eq!(one, Caller::of(&metadata("secret.1", "true")));
        assert_ne!(one, Caller::of(&metadata("secret.2", "true")));
        assert_ne!(one, Caller::of(&metadata("secret.1", "false")));
        assert!(!format!("{one:?}").contains("secret"));
        let told = one.metadata();
        assert_eq!((told.get("token").unwrap().as_bytes(), told.len()), (&b"secret.1"[..], 2));
        assert!(carried(&metadata("t", "true")).get("user-agent").is_none());
    }
}
