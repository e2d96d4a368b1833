//! Everything a member shows of its content, to be compared with what it showed before.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;

use crate::client::Client;
use crate::pb::etcdserverpb::{HashKvRequest, LeaseLeasesRequest, RangeRequest};
use crate::pb::mvccpb::KeyValue;

/// Keys fetched at once.
const PAGE_KEYS: i64 = 500;

/// Every key at its newest revision, the revision, and who else can tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Portrait {
    pub(crate) revision: i64,
    pub(crate) keys: BTreeMap<Bytes, KeyValue>,
    /// HashKV at `revision`, with the compact revision that it was computed with. That of the newest compaction is
    /// remembered with the one before it, as in etcd, until a restart: then the two are not compared.
    pub(crate) hash: (i64, u32),
    /// Number of keys at older revisions, each with the sum of their mod revisions.
    pub(crate) past: Vec<(i64, usize, i64)>,
    pub(crate) leases: Vec<i64>,
}

impl Portrait {
    /// Asks for all of it; `past` names older revisions that are not compacted.
    pub(crate) async fn of(client: &Client, past: &[i64]) -> Result<Self> {
        let (revision, keys) = keys(client, 0).await?;
        let mut maintenance = client.maintenance.clone();
        let hash = maintenance.hash_kv(HashKvRequest { revision }).await.context("HashKV")?;
        let mut older = Vec::new();
        for at in past {
            let (_, keys) = self::keys(client, *at).await?;
            older.push((*at, keys.len(), keys.values().map(|kv| kv.mod_revision).sum()));
        }
        let leases = client.lease.clone().lease_leases(LeaseLeasesRequest {}).await?.into_inner();
        let mut leases: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
        leases.sort_unstable();
        let hash = hash.into_inner();
        let hash = (hash.compact_revision, hash.hash);
        Ok(Self { revision, keys, hash, past: older, leases })
    }

    /// The first difference, in words.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        if self.revision != now.revision {
            return Some(format!("revision {} became {}", self.revision, now.revision));
        }
        let lost = self.keys.iter().find(|(key, kv)| now.keys.get(*key) != Some(kv));
        if let Some((key, kv)) = lost {
            let found = now.keys.get(key).map(|kv| kv.mod_revision);
            return Some(format!("{key:?} of revision {} became {found:?}", kv.mod_revision));
        }
        let hash_differs = self.hash.0 == now.hash.0 && self.hash.1 != now.hash.1;
        let same = !hash_differs
            && (&self.keys, &self.past, &self.leases) == (&now.keys, &now.past, &now.leases);
        (!same).then(|| {
            format!(
                "keys {} and {}, HashKV {:?} and {:?}, past {:?} and {:?}, leases {:?} and {:?}",
                self.keys.len(),
                now.keys.len(),
                self.hash,
                now.hash,
                self.past,
                now.past,
                self.leases,
                now.leases
            )
        })
    }
}

/// All keys at `revision` (0: the newest), page by page at one revision, and that revision.
pub(crate) async fn keys(
    client: &Client,
    revision: i64,
) -> Result<(i64, BTreeMap<Bytes, KeyValue>)> {
    read(client, revision, false).await
}

/// The same from the member alone: it asks no other what is newest.
pub(crate) async fn own_keys(
    client: &Client,
    revision: i64,
) -> Result<(i64, BTreeMap<Bytes, KeyValue>)> {
    read(client, revision, true).await
}

async fn read(
    client: &Client,
    mut revision: i64,
    serializable: bool,
) -> Result<(i64, BTreeMap<Bytes, KeyValue>)> {
    let mut kv = client.kv.clone();
    let mut all = BTreeMap::new();
    let mut key = Bytes::from_static(b"\0");
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: Bytes::from_static(b"\0"),
            limit: PAGE_KEYS,
            revision,
            serializable,
            ..RangeRequest::default()
        };
        let page = kv.range(request).await.context("reading everything")?.into_inner();
        if revision == 0 {
            revision = page.header.context("a header")?.revision;
        }
        let Some(last) = page.kvs.last() else {
            return Ok((revision, all));
        };
        key = [&last.key[..], b"\0"].concat().into();
        let before = all.len();
        let count = page.kvs.len();
        all.extend(page.kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
        ensure!(all.len() == before + count, "a page repeats keys");
        if !page.more {
            return Ok((revision, all));
        }
    }
}
