//! Lines about the fleet. Each may end with `fence=KEY@REVISION`: the key that the asker was elected by.
//!
//! ```text
//!   bootstrap UID id=1 name=n address=a:1     further lines: the keys beside the first ones, `KEY VALUE`
//!   token NAME ROLE hash=h expires=HOURS      ROLE is control-plane or worker, NAME may be ''; h stands for 32 of it
//!   admit HASH NAME ROLE id=2 address=b:1     HASH may be '': a member that came another way
//!   fleet-txn                                 further lines: as of a txn
//! ```

use std::fmt::Write as _;

use bytes::Bytes;

use crate::api::ids::LeaseId;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::{
    FleetAdmit, FleetAuthTokenIssue, FleetAuthority, FleetAuthorityChange, FleetBootstrap,
    FleetFence, FleetKey, FleetNode, FleetRequest, FleetTokenIssue,
};
use crate::api::reply::FleetReply;
use crate::state_machine::StateMachine;
use crate::state_machine::fleet::FleetState;

use super::parse::{Line, place_of, txn, unescape};
use super::print;

/// A change of the fleet's records; `None` if the verb is none.
pub(super) fn request(lines: &[&str]) -> Option<Request> {
    let line = Line::new(lines[0]);
    let ask = match line.verb() {
        "bootstrap" => Ask::Bootstrap(bootstrap(&line, &lines[1..])),
        "token" => Ask::TokenIssue(FleetTokenIssue {
            name: word(&line, 0),
            role: role(line.args()[1]),
            hash: hash(line.option("hash").unwrap()),
            nonce: nonce(&line),
            expires_ms: line.number("expires") * 3_600_000,
        }),
        "token-revoke" => Ask::TokenRevoke(hash(&word(&line, 0))),
        "admit" => Ask::Admit(FleetAdmit {
            token_hash: hash(&word(&line, 0)),
            node: Some(node(&line, word(&line, 1), role(line.args()[2]))),
        }),
        "node-remove" => Ask::NodeRemove(line.arg(0)),
        "auth-token" => Ask::AuthTokenIssue(FleetAuthTokenIssue {
            username: word(&line, 0),
            groups: line.args()[1..].iter().map(|group| (*group).to_owned()).collect(),
            hash: hash(line.option("hash").unwrap()),
            nonce: nonce(&line),
        }),
        "auth-token-revoke" => Ask::AuthTokenRevoke(hash(&word(&line, 0))),
        "capi-token" => Ask::CapiToken(hash(&word(&line, 0))),
        "authority" => Ask::Authority(FleetAuthorityChange {
            over_generation: line.number("over") as u64,
            authority: Some(authority(line.number("generation") as u64)),
        }),
        "fleet-txn" => Ask::Txn(txn(&lines[1..])),
        _ => return None,
    };
    Some(Request::Fleet(FleetRequest { fence: line.option("fence").map(fence), ask: Some(ask) }))
}

fn bootstrap(line: &Line<'_>, lines: &[&str]) -> FleetBootstrap {
    let key = |text: &&str| {
        let (key, value) = text.trim().split_once(' ').unwrap();
        FleetKey { key: unescape(key), value: unescape(value) }
    };
    let name = line.option("name").unwrap().to_owned();
    FleetBootstrap {
        uid: word(line, 0),
        schema_version: 1,
        node: Some(node(line, name, 1)),
        authority: Some(authority(1)),
        keys: lines.iter().map(key).collect(),
    }
}

fn node(line: &Line<'_>, name: String, role: i32) -> FleetNode {
    FleetNode {
        id: line.number("id") as u64,
        address: line.option("address").unwrap_or_default().to_owned(),
        role,
        record: format!("record-of-{name}").into(),
        name,
        ..FleetNode::default()
    }
}

fn authority(generation: u64) -> FleetAuthority {
    let certificate = Bytes::from(format!("certificate {generation}"));
    FleetAuthority { generation, certificates: vec![certificate], sealed_key: Bytes::new() }
}

fn fence(text: &str) -> FleetFence {
    let (key, revision) = text.split_once('@').unwrap();
    FleetFence { key: unescape(key), create_revision: revision.parse().unwrap() }
}

fn role(word: &str) -> i32 {
    place_of(word, &["nothing", "control-plane", "worker"])
}

fn word(line: &Line<'_>, place: usize) -> String {
    line.args()[place].trim_matches('\'').to_owned()
}

fn hash(letter: &str) -> Bytes {
    letter.repeat(32).into()
}

/// Of a token's hash, so that answers tell which token they are about.
fn nonce(line: &Line<'_>) -> Bytes {
    format!("nonce-of-{}", line.option("hash").unwrap()).into()
}

pub(super) fn reply(reply: &FleetReply) -> String {
    let given = |fresh: &bool| if *fresh { "fresh" } else { "given before" };
    match reply {
        FleetReply::Done => "done\n".to_owned(),
        FleetReply::Token { nonce, expires_ms, fresh } => {
            let hours = expires_ms / 3_600_000;
            format!("token {} for {hours} h, {}\n", nonce.escape_ascii(), given(fresh))
        }
        FleetReply::AuthToken { nonce, fresh } => {
            format!("token {}, {}\n", nonce.escape_ascii(), given(fresh))
        }
        FleetReply::Txn(txn) => print::txn_reply(txn, ""),
    }
}

/// All that is known of the fleet beside its keys.
pub(super) fn state(fleet: &FleetState) -> String {
    let Some(record) = fleet.record() else {
        return "none\n".to_owned();
    };
    let authority = record.authority.as_ref().unwrap();
    let mut out = format!(
        "uid {}, schema {}, authority {}, capi {}\n",
        record.uid,
        record.schema_version,
        authority.generation,
        letter(&record.capi_token)
    );
    for node in fleet.nodes() {
        assert!(node.record.is_empty(), "what its key says is not kept twice");
        let role = node.role().as_str_name();
        writeln!(out, "node {:x} {} {} {role}", node.id, node.name, node.address).unwrap();
    }
    for token in fleet.join_tokens() {
        let (role, hours) = (token.role().as_str_name(), token.expires_ms / 3_600_000);
        let hash = letter(&token.hash);
        writeln!(out, "token {hash} for '{}' {role} until {hours} h", token.name).unwrap();
    }
    for token in fleet.auth_tokens() {
        let hash = letter(&token.hash);
        writeln!(out, "token {hash} of {} {}", token.username, token.groups.join(",")).unwrap();
    }
    out
}

fn letter(hash: &Bytes) -> String {
    hash.first().map_or_else(|| "none".to_owned(), |letter| char::from(*letter).to_string())
}

pub(super) fn may_renew(machine: &StateMachine, id: i64) -> String {
    match machine.check_lease_is_free(LeaseId(id)) {
        Ok(()) => "yes\n".to_owned(),
        Err(refusal) => print::refused(&refusal),
    }
}
