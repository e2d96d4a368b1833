//! The client side of etcd's API, generated from `proto/` (see `tests/generated.rs` of the root package).
#![expect(clippy::allow_attributes, reason = "generated")]
#![expect(unreachable_pub, reason = "generated: the meaning is documented in proto/")]

#[rustfmt::skip]
pub mod authpb;
#[rustfmt::skip]
pub mod etcdserverpb;
#[rustfmt::skip]
pub mod mvccpb;
