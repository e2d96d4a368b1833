//! Random changes of the fleet's records, over few names, so that they meet each other.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::{
    FleetAdmit, FleetAuthTokenIssue, FleetAuthority, FleetAuthorityChange, FleetBootstrap,
    FleetFence, FleetKey, FleetNode, FleetRequest, FleetTokenIssue,
};
use crate::state_machine::tests::strategies::{rarely, txn};

/// Of few secrets; rarely it is none.
fn hash() -> impl Strategy<Value = Bytes> {
    let hash = prop::sample::select(vec!["a", "b", "c"]).prop_map(|letter| letter.repeat(32));
    prop_oneof![9 => hash, 1 => Just(String::new()), 1 => Just("short".to_owned())]
        .prop_map(Bytes::from)
}

fn nonce() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["m", "n", "n", "n", ""]).prop_map(Bytes::from)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["n1", "n2", "n2", "n3", ""]).prop_map(str::to_owned)
}

fn role() -> impl Strategy<Value = i32> {
    prop::sample::select(vec![1, 1, 1, 2, 2, 0, 3])
}

fn node() -> impl Strategy<Value = FleetNode> {
    let address = prop::sample::select(vec!["a:1", "b:1", "c:1", ""]).prop_map(str::to_owned);
    (0..4u64, name(), address, role()).prop_map(|(id, name, address, role)| FleetNode {
        id,
        name,
        address,
        role,
        record: Bytes::from("{}"),
        ..FleetNode::default()
    })
}

fn authority() -> impl Strategy<Value = FleetAuthority> {
    (0..4u64, vec(prop::sample::select(vec!["c", "d", "d", ""]), 0..3)).prop_map(
        |(generation, certificates)| FleetAuthority {
            generation,
            certificates: certificates.into_iter().map(Bytes::from).collect(),
            sealed_key: Bytes::from("sealed"),
        },
    )
}

/// A beginning that is rarely refused for what it is.
pub(crate) fn bootstrap() -> impl Strategy<Value = Request> {
    let keys = vec![
        "/kat/config/x",
        "/kat/config/x",
        "/k8sd/x",
        "/k8sd/x",
        "/k8sd/nodes/1",
        "/kat/leader/x",
        "a",
    ];
    let key = (prop::sample::select(keys), rarely())
        .prop_map(|(key, _)| FleetKey { key: Bytes::from(key), value: Bytes::from("v") });
    let node = prop_oneof![
        1 => node(),
        9 => Just(FleetNode {
            id: 1,
            name: "n1".to_owned(),
            address: "a:1".to_owned(),
            role: 1,
            record: Bytes::from("{}"),
            ..FleetNode::default()
        }),
    ];
    let authority = prop_oneof![
        1 => authority(),
        9 => Just(FleetAuthority {
            generation: 1,
            certificates: vec![Bytes::from("c")],
            sealed_key: Bytes::new(),
        }),
    ];
    (prop::option::weighted(0.95, node), prop::option::weighted(0.95, authority), vec(key, 0..2))
        .prop_map(|(node, authority, keys)| {
            let uid = "5d7b".to_owned();
            let begin = FleetBootstrap { uid, schema_version: 1, node, authority, keys };
            asked(None, Ask::Bootstrap(begin))
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    // Long ago, or far away: how entries are packed moves their hour by some milliseconds.
    let expires = prop_oneof![1 => Just(500i64), 5 => Just(10_000_000i64), 1 => Just(20_000_000)];
    let groups = vec(prop::sample::select(vec!["g", "h", "h", ""]), 0..3);
    prop_oneof![
        6 => (name(), role(), hash(), nonce(), expires).prop_map(
            |(name, role, hash, nonce, expires_ms)| {
                Ask::TokenIssue(FleetTokenIssue { name, role, hash, nonce, expires_ms })
            }
        ),
        1 => hash().prop_map(Ask::TokenRevoke),
        6 => (hash(), prop::option::weighted(0.95, node()))
            .prop_map(|(token_hash, node)| Ask::Admit(FleetAdmit { token_hash, node })),
        2 => (1..4u64).prop_map(Ask::NodeRemove),
        3 => (name(), groups, hash(), nonce()).prop_map(|(username, groups, hash, nonce)| {
            let groups = groups.into_iter().map(str::to_owned).collect();
            Ask::AuthTokenIssue(FleetAuthTokenIssue { username, groups, hash, nonce })
        }),
        1 => hash().prop_map(Ask::AuthTokenRevoke),
        1 => hash().prop_map(Ask::CapiToken),
        2 => (0..3u64, prop::option::weighted(0.95, authority())).prop_map(
            |(over_generation, authority)| {
                Ask::Authority(FleetAuthorityChange { over_generation, authority })
            }
        ),
        4 => txn(1).prop_map(Ask::Txn),
        1 => (0..4i64).prop_map(Ask::LeaseRevoke),
    ]
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let fence = (prop::sample::select(vec!["a", "b", "/k8sd/schema_version"]), 0..8i64);
    let fence = fence
        .prop_map(|(key, create_revision)| FleetFence { key: Bytes::from(key), create_revision });
    let ask =
        (prop::option::weighted(0.2, fence), ask()).prop_map(|(fence, ask)| asked(fence, ask));
    prop_oneof![1 => bootstrap(), 9 => ask]
}

fn asked(fence: Option<FleetFence>, ask: Ask) -> Request {
    Request::Fleet(FleetRequest { fence, ask: Some(ask) })
}
