//! Clients of one life, and what they were told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate::keyspace::{Keyspace, KeyspaceError};
use quorate_core::api::pb::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::trace::Trace;

/// Writes that were acknowledged, by key: each key is written once, so each must be there at version 1.
pub type Acknowledged = BTreeMap<String, (i64, Bytes)>;

/// One client's life: writes keys of its own until it is told no.
pub struct Client {
    /// Which life and which client: the prefix of its keys.
    pub name: String,
    /// Its own chance.
    pub seed: u64,
    /// Calls at most.
    pub calls: usize,
}

impl Client {
    /// Runs to the end of its calls or to the first error, which is when the power goes.
    pub async fn run(self, keyspace: Keyspace, trace: Trace) -> Acknowledged {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let start = tokio::time::Instant::now();
        let mut acknowledged = Acknowledged::new();
        for call in 0..self.calls {
            tokio::time::sleep(Duration::from_micros(rng.random_range(10..2000))).await;
            let key = format!("{}/{call:05}", self.name);
            let value = Bytes::from(vec![b'v'; rng.random_range(0..2000)]);
            let answer = match rng.random_range(0..10) {
                0..6 => put(&keyspace, &key, &value).await,
                6..8 => txn(&keyspace, &key, &value).await,
                8 => read(&keyspace, &acknowledged).await.map(|()| None),
                _ => compact(&keyspace).await.map(|()| None),
            };
            match answer {
                Ok(Some(revision)) => {
                    trace.line(start.elapsed(), || format!("{key} written at {revision}"));
                    acknowledged.insert(key, (revision, value));
                }
                Ok(None) => {
                    trace.line(start.elapsed(), || format!("{} read or compacted", self.name))
                }
                Err(error) => {
                    trace.line(start.elapsed(), || format!("{} ends: {error:?}", self.name));
                    break;
                }
            }
        }
        acknowledged
    }
}

async fn put(keyspace: &Keyspace, key: &str, value: &Bytes) -> Result<Option<i64>, KeyspaceError> {
    let request = put_request(key, value);
    let answer = keyspace.put(request).await?;
    Ok(answer.header.map(|header| header.revision))
}

async fn txn(keyspace: &Keyspace, key: &str, value: &Bytes) -> Result<Option<i64>, KeyspaceError> {
    let absent = pb::Compare {
        key: key.as_bytes().to_vec().into(),
        target: pb::compare::CompareTarget::Version.into(),
        target_union: Some(pb::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let put = pb::request_op::Request::RequestPut(put_request(key, value));
    let request = pb::TxnRequest {
        compare: vec![absent],
        success: vec![pb::RequestOp { request: Some(put) }],
        failure: Vec::new(),
    };
    let answer = keyspace.txn(request).await?;
    assert!(answer.succeeded, "{key} was there before it was written");
    Ok(answer.header.map(|header| header.revision))
}

/// A linearizable read sees the client's own last write.
async fn read(keyspace: &Keyspace, acknowledged: &Acknowledged) -> Result<(), KeyspaceError> {
    let Some((key, (revision, value))) = acknowledged.last_key_value() else {
        return Ok(());
    };
    let request = pb::RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() };
    let answer = keyspace.range(request).await?;
    assert_eq!(answer.kvs.len(), 1, "{key} was acknowledged at {revision}");
    assert_eq!((answer.kvs[0].mod_revision, &answer.kvs[0].value), (*revision, value), "{key}");
    Ok(())
}

async fn compact(keyspace: &Keyspace) -> Result<(), KeyspaceError> {
    let revision = keyspace.revision() - 20;
    if revision <= keyspace.compact_revision() {
        return Ok(());
    }
    let request = pb::CompactionRequest { revision, physical: false };
    match keyspace.compact(request).await {
        Ok(_) | Err(KeyspaceError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn put_request(key: &str, value: &Bytes) -> pb::PutRequest {
    pb::PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.clone(),
        ..Default::default()
    }
}
