//! Who has registered at the discovery service.

use super::Fault;
use super::registry::Entry;
use crate::embed::bootstrap;

/// The members found so far, in the order in which they registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    members: Vec<Entry>,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    fn knows(&self, key: &str) -> bool {
        self.members.iter().any(|member| member.key == key)
    }

    /// Takes in what was found, or tells why not.
    pub(super) fn take(&mut self, found: Entry, prefix: &str) {
        let key = found.key.trim().to_owned();
        let value = found.value.trim().to_owned();
        if let Some(why) = self.refuses(&key, &value, prefix) {
            tracing::warn!("memberKey" = key, "memberInfo" = value, "{why}");
            return;
        }
        tracing::info!(
            "memberKey" = key,
            "memberInfo" = value,
            "found peer from discovery service"
        );
        self.members.push(Entry { key, value, ..found });
        // More may register than are wanted: those who came first are the cluster, whoever looks.
        self.members.sort_by_key(|member| member.create_revision);
    }

    fn refuses(&self, key: &str, value: &str, prefix: &str) -> Option<&'static str> {
        if !key.starts_with(prefix) {
            return Some("invalid peer registry key");
        }
        if !value.contains('=') {
            return Some("invalid peer info returned from discovery service");
        }
        self.knows(key).then_some("found duplicate peer from discovery service")
    }

    /// Takes in those that are not known yet.
    pub(super) fn add_missing(&mut self, found: Vec<Entry>, prefix: &str) {
        for entry in found {
            if !self.knows(entry.key.trim()) {
                self.take(entry, prefix);
            }
        }
    }

    /// Whether `size` others have registered before the member of `key`, or without it.
    pub(super) fn is_full_for(&self, key: &str, size: usize) -> bool {
        let ahead = self.members.iter().take_while(|member| member.key != key).count();
        ahead >= size
    }

    /// The first `size` members, as `--initial-cluster` would list them.
    pub(super) fn initial_cluster(&self, size: usize) -> Result<String, Fault> {
        let first: Vec<&str> =
            self.members.iter().take(size).map(|member| member.value.as_str()).collect();
        let listed = first.join(",");
        bootstrap::parse(&listed).map(|_| listed).map_err(|_| Fault::InvalidUrl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/_etcd/registry/t/members";

    fn entry(id: u32, value: &str, create_revision: i64) -> Entry {
        Entry { key: format!("{PREFIX}/{id}"), value: value.to_owned(), create_revision }
    }

    fn roster(found: &[Entry]) -> Roster {
        let mut roster = Roster::default();
        for entry in found {
            roster.take(entry.clone(), PREFIX);
        }
        roster
    }

    #[test]
    fn members_stand_in_the_order_in_which_they_came_and_what_is_none_is_left_out() {
        let strange = Entry { key: "/else/t/members/2".to_owned(), ..entry(2, "b=http://b:1", 6) };
        let found = roster(&[
            entry(1, "a=http://a:1", 8),
            strange,
            entry(2, " b=http://b:1\n", 6),
            entry(4, "http://d:1", 5),
            entry(3, "c=http://c:1", 7),
            entry(1, "a=http://a:2", 2),
        ]);
        assert_eq!(found.len(), 3);
        let all = "b=http://b:1,c=http://c:1,a=http://a:1".to_owned();
        assert_eq!(found.initial_cluster(3), Ok(all.clone()));
        assert_eq!(found.initial_cluster(5), Ok(all));
        assert_eq!(found.initial_cluster(1), Ok("b=http://b:1".to_owned()));
        let bad = roster(&[entry(1, "a=nowhere", 1)]);
        assert_eq!(bad.initial_cluster(1), Err(Fault::InvalidUrl));
    }

    #[test]
    fn a_cluster_is_full_for_whoever_is_not_among_the_first() {
        let found = roster(&[entry(1, "a=http://a:1", 1), entry(2, "b=http://b:1", 2)]);
        let key = |id: u32| format!("{PREFIX}/{id}");
        assert!(!found.is_full_for(&key(9), 3));
        assert!(found.is_full_for(&key(9), 2));
        assert!(!found.is_full_for(&key(2), 2));
        assert!(found.is_full_for(&key(2), 1));
        assert!(!found.is_full_for(&key(1), 1));
        assert!(!Roster::default().is_full_for(&key(1), 1));
    }

    #[test]
    fn reading_them_again_adds_those_that_are_missing() {
        let mut found = roster(&[entry(1, "a=http://a:1", 1)]);
        found.add_missing(vec![entry(1, "a=http://a:1", 1), entry(2, "b=http://b:1", 2)], PREFIX);
        assert_eq!(found.initial_cluster(2), Ok("a=http://a:1,b=http://b:1".to_owned()));
    }
}
