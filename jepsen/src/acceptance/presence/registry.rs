//! The recipe for at most five devices of a user, without a counter that an ended lease would leave wrong.
//!
//! ```text
//!   read the user's devices at revision R ── five? refused
//!                                         └─ put under a lease, if no device of the user is newer than R ── else again
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

use crate::client::Client;
use crate::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Devices of a user.
pub(super) const LIMIT: usize = 5;
pub(super) const PREFIX: &str = "/registry/users/";
/// Lost races before a registration is given up: each lost one is another's success.
const TRIES: usize = 200;

/// One connection to one member.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    pub(super) client: Client,
    ttl: u64,
}

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) user: String,
    pub(super) device: String,
}

impl Device {
    pub(super) fn key(&self) -> String {
        format!("{PREFIX}{}/{}", self.user, self.device)
    }
}

/// What all devices of a user begin with.
pub(super) fn prefix_of(user: &str) -> String {
    format!("{PREFIX}{user}/")
}

/// The end of the range of a prefix that ends with a slash.
pub(super) fn end_of(prefix: &str) -> Bytes {
    format!("{}0", prefix.trim_end_matches('/')).into()
}

impl Registry {
    pub(super) async fn connect(endpoint: &str, ttl: u64) -> Result<Self> {
        Ok(Self { client: Client::connect(endpoint).await?, ttl })
    }

    /// Puts a device under a lease of its own; `None` if the user has as many as may be.
    pub(super) async fn register(&self, device: &Device, gateway: usize) -> Result<Option<i64>> {
        let grant = LeaseGrantRequest { ttl: i64::try_from(self.ttl)?, id: 0 };
        let lease = self.client.lease.clone().lease_grant(grant).await.context("a grant")?;
        let lease = lease.into_inner().id;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let put = PutRequest {
            key: device.key().into(),
            value: format!("gw-{gateway}:8080|{now}").into(),
            lease,
            ..PutRequest::default()
        };
        let prefix = prefix_of(&device.user);
        for _ in 0..TRIES {
            let read = RangeRequest {
                key: prefix.clone().into(),
                range_end: end_of(&prefix),
                count_only: true,
                ..RangeRequest::default()
            };
            let read = self.client.kv.clone().range(read).await.context("a read")?.into_inner();
            if read.count >= LIMIT as i64 {
                self.forget(lease).await?;
                return Ok(None);
            }
            let revision = read.header.context("a header")?.revision;
            let txn = TxnRequest {
                compare: vec![none_newer(&prefix, revision)],
                success: vec![RequestOp { request: Some(Op::RequestPut(put.clone())) }],
                ..TxnRequest::default()
            };
            let txn = self.client.kv.clone().txn(txn).await.context("a registration")?;
            if txn.into_inner().succeeded {
                return Ok(Some(lease));
            }
        }
        bail!("{} lost {TRIES} races", device.key())
    }

    /// Lets a lease go, and its device with it.
    pub(super) async fn forget(&self, lease: i64) -> Result<()> {
        let revoke = LeaseRevokeRequest { id: lease };
        self.client.lease.clone().lease_revoke(revoke).await.context("a revocation")?;
        Ok(())
    }

    pub(super) async fn count(&self, prefix: &str) -> Result<i64> {
        let read = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end_of(prefix),
            count_only: true,
            ..RangeRequest::default()
        };
        Ok(self.client.kv.clone().range(read).await?.into_inner().count)
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl)
    }
}

/// Holds if nothing below the prefix was written after `revision`; that something went does not matter.
fn none_newer(prefix: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key: prefix.to_owned().into(),
        range_end: end_of(prefix),
        target_union: Some(TargetUnion::ModRevision(revision + 1)),
    }
}
