//! What is watched, and for whom.

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;

use super::super::caller::Caller;
use super::super::namespace::Namespace;

/// Watchers of equal subjects see the same events, apart from where they begin: they can share a watch at a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    key: Bytes,
    range_end: Bytes,
    prev_kv: bool,
    filters: Vec<i32>,
    fragment: bool,
    /// A watch made for one is not another's: a member has looked at its rights.
    pub(super) caller: Caller,
}

impl Subject {
    pub(super) fn new(names: &Namespace, create: &WatchCreateRequest, caller: Caller) -> Subject {
        let (mut key, mut range_end) = (create.key.clone(), create.range_end.clone());
        names.enter(&mut key, &mut range_end);
        let (prev_kv, fragment) = (create.prev_kv, create.fragment);
        Subject { key, range_end, prev_kv, filters: create.filters.clone(), fragment, caller }
    }

    /// The request for a watch at a member. Progress is always asked for: what is known to have come need not be
    /// asked for again.
    pub(super) fn create(&self, start_revision: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision,
            progress_notify: true,
            filters: self.filters.clone(),
            prev_kv: self.prev_kv,
            watch_id: 0,
            fragment: self.fragment,
        }
    }
}
