//! Services generated from `proto/` (see `tests/generated.rs`); their messages are the core crate's.
#![expect(clippy::allow_attributes, reason = "generated")]

/// KV, Watch, Lease, Cluster, Maintenance, Auth.
#[rustfmt::skip]
pub mod etcdserverpb;
/// Lock.
#[rustfmt::skip]
pub mod v3lockpb;
/// Election.
#[rustfmt::skip]
pub mod v3electionpb;
/// What the JSON gateway knows of the API.
#[rustfmt::skip]
pub(crate) mod gateway;
/// The standard health service.
#[rustfmt::skip]
#[path = "grpc.health.v1.rs"]
pub mod health;
