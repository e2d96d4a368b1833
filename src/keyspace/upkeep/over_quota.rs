//! The quota as it is found when an entry is applied: other members may have let in what is too much for this one.
//!
//! The entry takes effect on every member all the same, because a member's size is its own; whoever asked here is told
//! that there is no space, and the alarm is raised (etcd `server/etcdserver/apply/quota.go`, `server.go`).

use std::sync::Arc;

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::alarm_request::AlarmAction;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{Command, Entry, LogPayload};
use quorate_core::api::refusal::Refusal;
use quorate_core::api::reply::Reply;
use quorate_core::state_machine::quota;
use tokio::sync::Notify;

use crate::keyspace::state::State;
use crate::keyspace::write::Writer;

/// Watches what is applied.
#[derive(Debug)]
pub(crate) struct QuotaWatch {
    quota: Option<u64>,
    exceeded: Notify,
}

impl QuotaWatch {
    /// A watch over `quota` bytes; over nothing without one.
    pub(crate) fn new(quota: Option<u64>) -> Self {
        QuotaWatch { quota, exceeded: Notify::new() }
    }

    /// An entry was applied to a database of `size` bytes: replies of what had no room any more become refusals.
    pub(crate) fn applied(
        &self,
        size: u64,
        payload: &LogPayload,
        replies: &mut [Result<Reply, Refusal>],
    ) {
        let (Some(quota), Some(Payload::Entry(Entry { commands, .. }))) =
            (self.quota, &payload.payload)
        else {
            return;
        };
        let mut exceeded = false;
        for (command, reply) in commands.iter().zip(replies) {
            let cost = command.request.as_ref().map_or(0, quota::cost);
            if reply.is_ok() && !quota::fits(size, cost, quota) {
                *reply = Err(Refusal::NoSpace);
                exceeded = true;
            }
        }
        if exceeded {
            self.exceeded.notify_one();
        }
    }

    /// Raises the alarm whenever it is due and none stands; the keyspace's owner drops it.
    pub(crate) async fn run(self: Arc<Self>, state: Arc<State>, writer: Arc<Writer>) {
        loop {
            self.exceeded.notified().await;
            if !state.machine.read().alarms(pb::AlarmType::Nospace).is_empty() {
                continue;
            }
            raise_nospace(&writer).await;
        }
    }
}

/// Raises the NOSPACE alarm for this member, which makes every member refuse what grows.
pub(crate) async fn raise_nospace(writer: &Writer) {
    let alarm = pb::AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: writer.member.0,
        alarm: pb::AlarmType::Nospace as i32,
    };
    let command = Command { request: Some(Request::Alarm(alarm)), ..Command::default() };
    if let Err(error) = writer.write_unbounded(&command).await {
        tracing::warn!(%error, "the NOSPACE alarm could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry() -> LogPayload {
        let put = |bytes| {
            let value = Bytes::from(vec![0; bytes]);
            Request::Put(pb::PutRequest { value, ..pb::PutRequest::default() })
        };
        let delete = Request::DeleteRange(pb::DeleteRangeRequest::default());
        let commands = [put(10), put(5000), delete, put(20)]
            .map(|request| Command { request: Some(request), ..Command::default() });
        let entry = Entry { commands: commands.into(), ..Entry::default() };
        LogPayload { payload: Some(Payload::Entry(entry)) }
    }

    #[test]
    fn whoever_grew_beyond_the_quota_is_told_and_nobody_else() {
        let replies =
            || vec![Ok(Reply::Done), Ok(Reply::Done), Ok(Reply::Done), Err(Refusal::EmptyKey)];
        let told = |quota, size| {
            let mut replies = replies();
            QuotaWatch::new(quota).applied(size, &entry(), &mut replies);
            replies
        };
        assert_eq!(told(None, u64::MAX), replies());
        assert_eq!(told(Some(10_000), 1000), replies());
        let mut large = replies();
        large[1] = Err(Refusal::NoSpace);
        assert_eq!(told(Some(10_000), 6000), large);
        large[0] = Err(Refusal::NoSpace);
        assert_eq!(told(Some(10_000), 10_000), large, "a delete always fits");
    }
}
