//! The client side of etcd's API, generated from `proto/` (see `tests/generated.rs` of the root package).
#![expect(clippy::enum_variant_names, reason = "generated: the names are the protocol's")]
#![allow(
    dead_code,
    reason = "generated: whole files of the protocol, of which the harness speaks a part"
)]
#![expect(unreachable_pub, reason = "generated: the meaning is documented in proto/")]

#[rustfmt::skip]
pub mod authpb;
#[rustfmt::skip]
pub mod etcdserverpb;
#[rustfmt::skip]
pub mod mvccpb;
