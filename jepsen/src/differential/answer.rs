//! What a server answered, made comparable: identities, terms and sizes masked, everything else as it came.

use std::time::Duration;

use tonic::Status;

use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
    MemberListResponse, PutResponse, RangeResponse, RangeStreamResponse, ResponseHeader,
    StatusResponse, TxnResponse,
};

/// Seconds by which two servers may have counted a lease differently that were asked the same without delay.
const TTL_SLACK: i64 = 2;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Range(RangeResponse),
    RangeStream(Vec<RangeStreamResponse>),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    KeepAlive(LeaseKeepAliveResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    HashKv(HashKvResponse),
    MemberList(MemberListResponse),
    Status(Box<StatusResponse>),
    Alarm(AlarmResponse),
    /// What is compared as text, masked already.
    Text {
        name: &'static str,
        revision: i64,
        text: String,
    },
    /// Several calls as one step.
    Several(Vec<Answer>),
    Refused {
        code: String,
        text: String,
    },
    /// The harness saw no answer in time; never equal to another server's silence.
    Silent(String),
    Done,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self::Refused { code: format!("{:?}", status.code()), text: status.message().to_owned() }
    }
}

impl Answer {
    /// What kind of answer it is.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Range(_) => "Range",
            Self::RangeStream(_) => "RangeStream",
            Self::Put(_) => "Put",
            Self::DeleteRange(_) => "DeleteRange",
            Self::Txn(_) => "Txn",
            Self::Compact(_) => "Compact",
            Self::Grant(_) => "Grant",
            Self::Revoke(_) => "Revoke",
            Self::KeepAlive(_) => "KeepAlive",
            Self::TimeToLive(_) => "TimeToLive",
            Self::Leases(_) => "Leases",
            Self::HashKv(_) => "HashKv",
            Self::MemberList(_) => "MemberList",
            Self::Status(_) => "Status",
            Self::Alarm(_) => "Alarm",
            Self::Text { name, .. } => name,
            Self::Several(_) => "Several",
            Self::Refused { .. } => "Refused",
            Self::Silent(_) => "Silent",
            Self::Done => "Done",
        }
    }

    /// The store's revision as told by the answer's header.
    pub(super) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(r) => r.header,
            Self::RangeStream(r) => {
                r.iter().find_map(|m| m.range_response.as_ref().and_then(|r| r.header))
            }
            Self::Put(r) => r.header,
            Self::DeleteRange(r) => r.header,
            Self::Txn(r) => r.header,
            Self::Compact(r) => r.header,
            Self::Grant(r) => r.header,
            Self::Revoke(r) => r.header,
            Self::KeepAlive(r) => r.header,
            Self::TimeToLive(r) => r.header,
            Self::Leases(r) => r.header,
            Self::HashKv(r) => r.header,
            Self::Status(r) => r.header,
            Self::Alarm(r) => r.header,
            Self::Text { revision, .. } => return Some(*revision).filter(|revision| *revision > 0),
            Self::Several(answers) => {
                return answers.iter().filter_map(Self::revision).max();
            }
            Self::MemberList(_) | Self::Refused { .. } | Self::Silent(_) | Self::Done => None,
        };
        header.map(|h| h.revision).filter(|revision| *revision > 0)
    }

    /// Masks what two servers cannot have in common, and what nobody promises.
    pub(super) fn masked(mut self) -> Self {
        match &mut self {
            Self::Range(r) => mask(&mut r.header),
            Self::RangeStream(messages) => {
                for message in messages.iter_mut().filter_map(|m| m.range_response.as_mut()) {
                    mask(&mut message.header);
                }
            }
            Self::Put(r) => mask(&mut r.header),
            Self::DeleteRange(r) => mask(&mut r.header),
            Self::Txn(r) => mask_txn(r),
            Self::Compact(r) => mask(&mut r.header),
            Self::Grant(r) => mask(&mut r.header),
            Self::Revoke(r) => mask(&mut r.header),
            Self::KeepAlive(r) => mask(&mut r.header),
            Self::TimeToLive(r) => {
                mask(&mut r.header);
                r.keys.sort();
            }
            Self::Leases(r) => mask(&mut r.header),
            Self::HashKv(r) => mask(&mut r.header),
            Self::MemberList(r) => mask(&mut r.header),
            Self::Status(r) => mask_status(r),
            Self::Alarm(r) => mask_alarms(r),
            Self::Several(answers) => {
                for answer in answers {
                    *answer = std::mem::replace(answer, Self::Done).masked();
                }
            }
            Self::Text { .. } | Self::Refused { .. } | Self::Silent(_) | Self::Done => {}
        }
        self
    }

    /// Leases by id: etcd lists them by when they end, and after a start many end together.
    pub(super) fn with_leases_sorted(mut self) -> Self {
        match &mut self {
            Self::Leases(response) => response.leases.sort_by_key(|lease| lease.id),
            Self::Several(answers) => {
                for answer in answers {
                    *answer = std::mem::replace(answer, Self::Done).with_leases_sorted();
                }
            }
            _ => {}
        }
        self
    }

    /// The same, whatever revision its headers tell.
    pub(super) fn without_revision(mut self) -> Self {
        let header = match &mut self {
            Self::Range(r) => &mut r.header,
            Self::Put(r) => &mut r.header,
            Self::DeleteRange(r) => &mut r.header,
            Self::Txn(r) => {
                forget_revisions(r);
                &mut r.header
            }
            Self::Compact(r) => &mut r.header,
            Self::Grant(r) => &mut r.header,
            Self::Revoke(r) => &mut r.header,
            Self::KeepAlive(r) => &mut r.header,
            Self::TimeToLive(r) => &mut r.header,
            Self::Leases(r) => &mut r.header,
            Self::Status(r) => &mut r.header,
            Self::Alarm(r) => &mut r.header,
            Self::RangeStream(_)
            | Self::HashKv(_)
            | Self::MemberList(_)
            | Self::Text { .. }
            | Self::Several(_)
            | Self::Refused { .. }
            | Self::Silent(_)
            | Self::Done => return self,
        };
        if let Some(header) = header {
            header.revision = header.revision.signum();
        }
        self
    }

    /// A stream's messages put together, also those among several answers.
    pub(super) fn into_range(self) -> Self {
        match self {
            Self::RangeStream(messages) => {
                let mut whole = RangeResponse::default();
                for range in messages.into_iter().filter_map(|m| m.range_response) {
                    whole.kvs.extend(range.kvs);
                    whole.header = whole.header.or(range.header);
                    whole.more |= range.more;
                    whole.count += range.count;
                }
                Self::Range(whole)
            }
            Self::Several(answers) => {
                Self::Several(answers.into_iter().map(Self::into_range).collect())
            }
            other => other,
        }
    }

    /// Every range in the answer, those of a txn too, as `reshape` leaves it.
    pub(super) fn reshaped(mut self, reshape: fn(&mut RangeResponse)) -> Self {
        fn inside(txn: &mut TxnResponse, reshape: fn(&mut RangeResponse)) {
            for op in &mut txn.responses {
                match &mut op.response {
                    Some(Response::ResponseRange(range)) => reshape(range),
                    Some(Response::ResponseTxn(txn)) => inside(txn, reshape),
                    Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => {}
                }
            }
        }
        match &mut self {
            Self::Range(range) => reshape(range),
            Self::RangeStream(messages) => {
                messages.iter_mut().filter_map(|m| m.range_response.as_mut()).for_each(reshape);
            }
            Self::Txn(txn) => inside(txn, reshape),
            Self::Several(answers) => {
                for answer in answers {
                    *answer = std::mem::replace(answer, Self::Done).reshaped(reshape);
                }
            }
            _ => {}
        }
        self
    }

    /// Equal in every field; the seconds left of a lease may differ by a little and by how long one server was `behind`.
    pub(super) fn agrees_with(&self, other: &Self, behind: Duration) -> bool {
        match (self, other) {
            (Self::Silent(_), _) | (_, Self::Silent(_)) => false,
            (Self::TimeToLive(ours), Self::TimeToLive(theirs)) => {
                let mut theirs = theirs.clone();
                let both_live = ours.ttl >= 0 && theirs.ttl >= 0;
                let slack = TTL_SLACK + behind.as_secs_f64().ceil() as i64;
                if both_live && (ours.ttl - theirs.ttl).abs() <= slack {
                    theirs.ttl = ours.ttl;
                }
                *ours == theirs
            }
            (Self::Several(ours), Self::Several(theirs)) => {
                let pairs = ours.iter().zip(theirs);
                ours.len() == theirs.len()
                    && pairs.into_iter().all(|(a, b)| a.agrees_with(b, behind))
            }
            (ours, theirs) => ours == theirs,
        }
    }
}

/// Identities and terms become 1 when set: that they are there is compared, what they are is not.
pub(super) fn mask(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = u64::from(header.member_id != 0);
        header.raft_term = u64::from(header.raft_term != 0);
    }
}

fn forget_revisions(txn: &mut TxnResponse) {
    for op in &mut txn.responses {
        let header = match &mut op.response {
            Some(Response::ResponseRange(r)) => &mut r.header,
            Some(Response::ResponsePut(r)) => &mut r.header,
            Some(Response::ResponseDeleteRange(r)) => &mut r.header,
            Some(Response::ResponseTxn(r)) => {
                forget_revisions(r);
                &mut r.header
            }
            None => continue,
        };
        if let Some(header) = header {
            header.revision = header.revision.signum();
        }
    }
}

fn mask_txn(txn: &mut TxnResponse) {
    mask(&mut txn.header);
    for op in &mut txn.responses {
        match &mut op.response {
            Some(Response::ResponseRange(r)) => mask(&mut r.header),
            Some(Response::ResponsePut(r)) => mask(&mut r.header),
            Some(Response::ResponseDeleteRange(r)) => mask(&mut r.header),
            Some(Response::ResponseTxn(r)) => mask_txn(r),
            None => {}
        }
    }
}

/// The member's own id becomes 1; etcd lists alarms in the order of a Go map.
fn mask_alarms(response: &mut AlarmResponse) {
    let own = response.header.map_or(0, |h| h.member_id);
    mask(&mut response.header);
    for alarm in &mut response.alarms {
        if alarm.member_id == own {
            alarm.member_id = 1;
        }
    }
    response.alarms.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
}

fn mask_status(status: &mut StatusResponse) {
    let own = status.header.map_or(0, |h| h.member_id);
    mask(&mut status.header);
    status.leader = u64::from(status.leader == own);
    // Go's prototext puts one space or two between fields, by the build; before 3.7 one at the end.
    for error in &mut status.errors {
        *error = error.replace(&own.to_string(), "OWN").replace("  ", " ").trim_end().to_owned();
    }
    status.errors.sort();
    status.db_size = i64::from(status.db_size > 0);
    status.db_size_in_use = i64::from(status.db_size_in_use > 0);
    status.raft_term = u64::from(status.raft_term > 0);
    status.raft_index = u64::from(status.raft_index > 0);
    status.raft_applied_index = u64::from(status.raft_applied_index > 0);
}
