//! Response headers: the keyspace fills `revision`, this adds who answers and in which term
//! (etcd `server/etcdserver/api/v3rpc/header.go`).

use quorate_core::api::pb::etcdserverpb::ResponseHeader;

use crate::keyspace::Keyspace;

/// Completes `header`; a revision that was left 0 becomes the current one.
pub(crate) fn fill(header: &mut Option<ResponseHeader>, keyspace: &Keyspace) {
    complete(header, keyspace.header());
}

/// The same for Cluster calls, whose headers carry no revision.
pub(crate) fn fill_without_revision(header: &mut Option<ResponseHeader>, keyspace: &Keyspace) {
    *header = Some(ResponseHeader { revision: 0, ..keyspace.header() });
}

fn complete(header: &mut Option<ResponseHeader>, whole: ResponseHeader) {
    let revision = match header {
        Some(ResponseHeader { revision, .. }) if *revision != 0 => *revision,
        _ => whole.revision,
    };
    *header = Some(ResponseHeader { revision, ..whole });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_revision_is_kept() {
        let whole = ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 3 };
        let mut header = Some(ResponseHeader { revision: 5, ..Default::default() });
        complete(&mut header, whole);
        assert_eq!(header, Some(ResponseHeader { revision: 5, ..whole }));
        let mut header = None;
        complete(&mut header, whole);
        assert_eq!(header, Some(whole));
    }
}
