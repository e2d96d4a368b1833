//! An election, in etcd's shape (`client/v3/concurrency/election.go`), so that `etcdctl elect` and Go's
//! `concurrency.Election` contend for one name with this.
//!
//! ```text
//!   lease ── put <election>/<lease in hex> = leader id, if it is not there ── created at R
//!     └── a key below <election>/ older than R? ── yes: wait until the youngest of them is deleted, look again
//!                                                 └ no: is the own key still the one of R? ──> Guard, fence R
//! ```
//!
//! **Invariant:** nobody is told that it leads unless its term is good by the clock after its key was seen at the head
//! of the line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use quorate_core::api::pb::etcdserverpb::response_op::Response as Outcome;
use quorate_core::api::pb::mvccpb;
use tokio::time::{sleep, timeout};

use super::Hands;
use super::calls::{Calls, below, one, revision};
use super::error::{Lost, StoreError};
use super::guard::Guard;
use super::session::{REST, Session};
use super::transaction::{compare, expect};
use super::value::{Compare, EventType, Watched};
use super::watching::Watching;

/// The line is looked at anew so often at least: a member that stands still tells no watcher anything.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// `<election>/`: below it stand the keys of all candidates.
pub(super) fn line(election: &str) -> Bytes {
    format!("{election}/").into()
}

/// The key of a candidate: its lease as Go's `%x` prints a signed number.
pub(super) fn key_of(election: &str, lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{election}/{sign}{:x}", lease.unsigned_abs()).into()
}

/// Who stands first in the line.
pub(super) async fn first(
    calls: &dyn Calls,
    election: &str,
) -> Result<Option<mvccpb::KeyValue>, StoreError> {
    let request = pb::RangeRequest {
        limit: 1,
        sort_order: pb::range_request::SortOrder::Ascend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..below(&line(election))
    };
    Ok(calls.range(request).await?.kvs.into_iter().next())
}

/// Stands for `election` until it leads. Dropped, the place in the line is given up.
pub(super) async fn campaign(
    hands: &Arc<Hands>,
    election: &str,
    leader_id: &str,
    ttl: Duration,
) -> Result<Guard, StoreError> {
    let session = Session::open(hands, election, ttl).await?;
    let candidate = Candidate {
        hands,
        line: line(election),
        key: key_of(election, session.lease()),
        session: &session,
    };
    let created = candidate.unless_lost(candidate.win(leader_id)).await?;
    let key = candidate.key;
    let guard = Guard::new(hands, session, election, leader_id, key, created)?;
    match guard.lost() {
        None => Ok(guard),
        Some(why) => Err(why.into()),
    }
}

struct Candidate<'a> {
    hands: &'a Arc<Hands>,
    line: Bytes,
    key: Bytes,
    session: &'a Session,
}

impl Candidate<'_> {
    async fn unless_lost<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            why = self.session.term().ended() => Err(why.into()),
            done = work => match done {
                Err(StoreError::LeaseGone) => Err(Lost::LeaseGone.into()),
                done => done,
            },
        }
    }

    /// Returns the revision of the own key once that is the oldest.
    async fn win(&self, leader_id: &str) -> Result<i64, StoreError> {
        let created = self.join(leader_id).await?;
        while let Some((before, seen_at)) = self.before(created).await? {
            self.wait_until_gone(&before, seen_at).await?;
        }
        let own = self.again(|| self.hands.calls.range(one(self.key.clone()))).await?;
        let same = own.kvs.first().is_some_and(|kv| kv.create_revision == created);
        if same { Ok(created) } else { Err(Lost::KeyGone.into()) }
    }

    /// Puts the key, unless an earlier try has.
    async fn join(&self, leader_id: &str) -> Result<i64, StoreError> {
        let put = Operation::RequestPut(pb::PutRequest {
            key: self.key.clone(),
            value: Bytes::copy_from_slice(leader_id.as_bytes()),
            lease: self.session.lease(),
            ..Default::default()
        });
        let request = pb::TxnRequest {
            compare: vec![compare(&Compare::created(self.key.clone(), 0))],
            success: vec![pb::RequestOp { request: Some(put) }],
            failure: vec![pb::RequestOp {
                request: Some(Operation::RequestRange(one(self.key.clone()))),
            }],
        };
        let joined = self.again(|| self.hands.calls.txn(request.clone())).await?;
        if joined.succeeded {
            return Ok(revision(joined.header.as_ref()));
        }
        let found = match joined.responses.first().and_then(|op| op.response.as_ref()) {
            Some(Outcome::ResponseRange(range)) => range.kvs.first(),
            Some(
                Outcome::ResponsePut(_) | Outcome::ResponseDeleteRange(_) | Outcome::ResponseTxn(_),
            )
            | None => None,
        };
        let found = found.ok_or_else(|| expect("the key that stood in the way"))?;
        Ok(found.create_revision)
    }

    /// The youngest key of the line that is older than `created`, and the revision at which it was seen.
    async fn before(&self, created: i64) -> Result<Option<(Bytes, i64)>, StoreError> {
        let request = pb::RangeRequest {
            limit: 1,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            max_create_revision: created - 1,
            keys_only: true,
            ..below(&self.line)
        };
        let found = self.again(|| self.hands.calls.range(request.clone())).await?;
        let seen_at = revision(found.header.as_ref());
        Ok(found.kvs.into_iter().next().map(|kv| (kv.key, seen_at)))
    }

    /// Returns once `key` was deleted, or it is time to look again.
    async fn wait_until_gone(&self, key: &Bytes, seen_at: i64) -> Result<(), StoreError> {
        let deleted = async {
            let calls = Arc::clone(&self.hands.calls);
            let closed = self.hands.closed();
            let watched = Watched::Key(key);
            let mut watching = Watching::open(calls, watched, seen_at + 1, closed).await?;
            while watching.next().await?.kind != EventType::Delete {}
            Ok(())
        };
        match timeout(LOOK_AGAIN, deleted).await {
            Ok(Ok(())) | Err(_) => Ok(()),
            // It was deleted so long ago that nobody knows when.
            Ok(Err(StoreError::Compacted { .. })) => Ok(()),
            Ok(Err(why)) if why.is_transient() => {
                sleep(REST).await;
                Ok(())
            }
            Ok(Err(why)) => Err(why),
        }
    }

    /// Asks until somebody answers. What is asked may be asked twice.
    async fn again<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Err(why) if why.is_transient() => {
                    tracing::debug!(error = %why, "a candidate was not answered and asks again");
                    sleep(REST).await;
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_etcds_shape() {
        assert_eq!(key_of("e", 0x694d_77aa_9e38_260f), "e/694d77aa9e38260f");
        assert_eq!(key_of("e", -16), "e/-10");
        assert_eq!(line("/kat/leader/c"), "/kat/leader/c/");
    }
}
