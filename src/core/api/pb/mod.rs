//! Messages generated from `proto/` (see `tests/generated.rs`), one module a package.
#![expect(missing_docs, reason = "generated: the meaning is documented in proto/")]

/// etcd's requests and responses.
#[rustfmt::skip]
pub mod etcdserverpb;
/// Key-values and events.
#[rustfmt::skip]
pub mod mvccpb;
/// Users, roles, permissions.
#[rustfmt::skip]
pub mod authpb;
/// The lock service.
#[rustfmt::skip]
pub mod v3lockpb;
/// The election service.
#[rustfmt::skip]
pub mod v3electionpb;
/// The standard health service.
#[rustfmt::skip]
#[path = "grpc.health.v1.rs"]
pub mod health;

/// Packages below `quorate.`.
pub mod quorate {
    /// What Quorate writes to its own log and records.
    pub mod internal {
        include!("quorate.internal.rs");
    }
}
pub use quorate::internal;
