//! The paths of the calls that we make of members, or look into.

pub(in crate::service) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(in crate::service) const PUT: &str = "/etcdserverpb.KV/Put";
pub(in crate::service) const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
pub(in crate::service) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(in crate::service) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(in crate::service) const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
pub(in crate::service) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(in crate::service) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(in crate::service) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(in crate::service) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(in crate::service) const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub(in crate::service) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
pub(in crate::service) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
