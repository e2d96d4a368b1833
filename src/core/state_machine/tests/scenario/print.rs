//! Answers as scenario lines.

use std::fmt::Write as _;

use crate::api::batch::{LeaseChange, RevisionRecord};
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::response_op::Response;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::Refusal;
use crate::api::reply::{Applied, AuthReply, Reply, TokenChange};

use super::fleet;

pub(super) fn applied(applied: &Applied) -> String {
    let mut out = String::new();
    if applied.duplicate {
        out.push_str("duplicate\n");
    }
    for reply in &applied.replies {
        out.push_str(&self::reply(reply));
    }
    for record in &applied.batch.revisions {
        writeln!(out, "  event {}", event(record)).unwrap();
    }
    for change in &applied.leases {
        let change = match change {
            LeaseChange::Granted { id, ttl } => format!("{id} granted, {ttl} s"),
            LeaseChange::Ended { id } => format!("{id} ended"),
            LeaseChange::Checkpointed { id, remaining_ttl } => {
                format!("{id} checkpointed, {remaining_ttl} s left")
            }
        };
        writeln!(out, "  lease {change}").unwrap();
    }
    for change in &applied.tokens {
        let change = match change {
            TokenChange::Given { user, token_id } => format!("{token_id} given to {user}"),
            TokenChange::UserDropped { user } => format!("all of {user} dropped"),
            TokenChange::AllDropped => "all dropped".to_owned(),
        };
        writeln!(out, "  token {change}").unwrap();
    }
    out
}

fn reply(reply: &Result<Reply, Refusal>) -> String {
    match reply {
        Err(refusal) => refused(refusal),
        Ok(Reply::Put(put)) => put_reply(put, ""),
        Ok(Reply::DeleteRange(delete)) => delete_reply(delete, ""),
        Ok(Reply::Txn(txn)) => txn_reply(txn, ""),
        Ok(Reply::Compaction(compaction)) => {
            format!("compacted, revision {}\n", revision(&compaction.header))
        }
        Ok(Reply::LeaseGrant(grant)) => {
            format!(
                "granted {:x} for {} s, revision {}\n",
                grant.id,
                grant.ttl,
                revision(&grant.header)
            )
        }
        Ok(Reply::LeaseRevoke(revoke)) => {
            format!("revoked, revision {}\n", revision(&revoke.header))
        }
        Ok(Reply::LeaseCheckpoint(done)) => {
            format!("checkpointed, revision {}\n", revision(&done.header))
        }
        Ok(Reply::Alarm(alarms)) => {
            let listed = alarms.alarms.iter();
            let listed: Vec<String> = listed
                .map(|alarm| format!(" {} of {:x}", alarm.alarm().as_str_name(), alarm.member_id))
                .collect();
            format!("alarms:{}\n", listed.join(","))
        }
        Ok(Reply::Auth(auth)) => auth_reply(auth),
        Ok(Reply::Fleet(reply)) => fleet::reply(reply),
        Ok(Reply::Done) => "done\n".to_owned(),
    }
}

fn auth_reply(auth: &AuthReply) -> String {
    let (what, header) = match auth {
        AuthReply::Enable(enable) => ("enabled", &enable.header),
        AuthReply::Disable(disable) => ("disabled", &disable.header),
        AuthReply::UserAdd(add) => ("user added", &add.header),
        AuthReply::UserDelete(delete) => ("user deleted", &delete.header),
        AuthReply::UserChangePassword(change) => ("password changed", &change.header),
        AuthReply::UserGrantRole(grant) => ("role granted", &grant.header),
        AuthReply::UserRevokeRole(revoke) => ("role revoked", &revoke.header),
        AuthReply::RoleAdd(add) => ("role added", &add.header),
        AuthReply::RoleDelete(delete) => ("role deleted", &delete.header),
        AuthReply::RoleGrantPermission(grant) => ("permission granted", &grant.header),
        AuthReply::RoleRevokePermission(revoke) => ("permission revoked", &revoke.header),
        AuthReply::Login(login) => ("logged in", &login.header),
    };
    format!("{what}, revision {}\n", revision(header))
}

pub(super) fn refused(refusal: &Refusal) -> String {
    format!("refused: {refusal:?}\n")
}

fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("every answer has a header").revision
}

fn put_reply(put: &pb::PutResponse, indent: &str) -> String {
    let mut out = format!("{indent}put, revision {}\n", revision(&put.header));
    if let Some(prev) = &put.prev_kv {
        writeln!(out, "{indent}  prev {}", key_value(prev)).unwrap();
    }
    out
}

fn delete_reply(delete: &pb::DeleteRangeResponse, indent: &str) -> String {
    let mut out =
        format!("{indent}deleted {}, revision {}\n", delete.deleted, revision(&delete.header));
    for prev in &delete.prev_kvs {
        writeln!(out, "{indent}  prev {}", key_value(prev)).unwrap();
    }
    out
}

pub(super) fn range_reply(range: &pb::RangeResponse, indent: &str) -> String {
    let more = if range.more { ", more" } else { "" };
    let mut out =
        format!("{indent}count {}{more}, revision {}\n", range.count, revision(&range.header));
    for kv in &range.kvs {
        writeln!(out, "{indent}  {}", key_value(kv)).unwrap();
    }
    out
}

pub(super) fn txn_reply(txn: &pb::TxnResponse, indent: &str) -> String {
    let branch = if txn.succeeded { "then" } else { "else" };
    let mut out = format!("{indent}{branch}, revision {}\n", revision(&txn.header));
    let deeper = format!("{indent}  ");
    for response in &txn.responses {
        out.push_str(&match response.response.as_ref().expect("no empty answers") {
            Response::ResponseRange(range) => range_reply(range, &deeper),
            Response::ResponsePut(put) => put_reply(put, &deeper),
            Response::ResponseDeleteRange(delete) => delete_reply(delete, &deeper),
            Response::ResponseTxn(txn) => txn_reply(txn, &deeper),
        });
    }
    out
}

pub(super) fn key_value(kv: &KeyValue) -> String {
    let mut out = format!(
        "{}={} create {} mod {} version {}",
        kv.key.escape_ascii(),
        kv.value.escape_ascii(),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    );
    if kv.lease != 0 {
        write!(out, " lease {:x}", kv.lease).unwrap();
    }
    out
}

fn event(record: &RevisionRecord) -> String {
    let prev = record.prev.map_or_else(String::new, |prev| format!(", was {prev}"));
    if record.tombstone {
        format!("{} delete {}{prev}", record.revision, record.kv.key.escape_ascii())
    } else {
        format!("{} put {}{prev}", record.revision, key_value(&record.kv))
    }
}
