//! One client that tries every member until its write is there: for how long could nobody write?
//!
//! Each write creates a key that nobody else writes, unless it is there already, so that sending it again does no harm.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Arena;
use super::puts::Sent;
use crate::client::Client;
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};

/// A member that has not answered by then is left for the next; once all have been left, each is given twice as long,
/// or a busy cluster would never be waited for.
const PATIENCE: Duration = Duration::from_millis(400);
const PATIENCE_MAX: Duration = Duration::from_millis(1600);
/// A write that took longer has failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(10);
/// Before a member is asked again that refused at once.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// What the prober found.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// Acknowledged, by the time of the answer.
    pub(crate) written: Vec<Sent>,
    /// Writes that were given up, from when to when.
    pub(crate) failed: Vec<(Duration, Duration)>,
    pub(crate) retries: u64,
}

impl Probes {
    /// The longest time without an acknowledged write that reaches into the window, and when it began. What lies behind
    /// `until` is not counted: something else is the matter there.
    pub(crate) fn longest_gap(
        &self,
        from: Duration,
        to: Duration,
        until: Duration,
    ) -> (Duration, Duration) {
        let mut longest = (Duration::ZERO, from);
        let mut before = Duration::ZERO;
        let ends = self.written.iter().map(|sent| sent.returned).chain([to.max(from)]);
        for returned in ends {
            let gap = returned.min(until).saturating_sub(before);
            if returned >= from && before <= to && gap > longest.0 {
                longest = (gap, before);
            }
            before = returned;
        }
        longest
    }
}

/// Writes until the load is over.
pub(crate) async fn probe(arena: Arena) -> Probes {
    let mut probes = Probes::default();
    let mut clients: Vec<Option<Client>> = vec![None; arena.members()];
    let mut nth = 0;
    while !arena.over() {
        let key = format!("probe/{:07}", probes.written.len() + probes.failed.len());
        let invoked = arena.now();
        let mut left = 0;
        loop {
            let doubled = PATIENCE * (1 << (left / arena.members()).min(2));
            let patience = doubled.min(PATIENCE_MAX);
            if let Some(revision) = create(&arena, &mut clients, nth, &key, patience).await {
                let (acknowledged, returned) = (Some(revision), arena.now());
                let value = Vec::new();
                probes.written.push(Sent { key, value, acknowledged, invoked, returned });
                break;
            }
            if arena.over() {
                return probes;
            }
            if arena.now() > invoked + WRITE_DEADLINE {
                probes.failed.push((invoked, arena.now()));
                break;
            }
            probes.retries += 1;
            left += 1;
            nth = (nth + 1) % arena.members();
        }
        sleep(BREATH).await;
    }
    probes
}

/// The revision of an answer that tells that the key is there.
async fn create(
    arena: &Arena,
    clients: &mut [Option<Client>],
    nth: usize,
    key: &str,
    patience: Duration,
) -> Option<i64> {
    let attempt = async {
        if clients[nth].is_none() {
            clients[nth] = arena.client_at(nth).await;
        }
        let put = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
        let txn = TxnRequest {
            compare: vec![Compare {
                target: 0,
                key: put.key.clone(),
                target_union: Some(TargetUnion::Version(0)),
                ..Compare::default()
            }],
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![],
        };
        let answer = clients[nth].as_mut()?.kv.txn(txn).await.ok()?.into_inner();
        answer.header.map(|header| header.revision)
    };
    let Ok(answer) = timeout(patience, attempt).await else {
        clients[nth] = None;
        return None;
    };
    if answer.is_none() {
        clients[nth] = None;
        sleep(AFTER_REFUSAL).await;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_where_any_part_of_it_lies_in_the_window() {
        let at = Duration::from_millis;
        let sent = |millis| Sent { returned: at(millis), ..Sent::default() };
        let written = [10, 20, 500, 510, 900].map(sent).to_vec();
        let probes = Probes { written, ..Probes::default() };
        for (from, to, until, expected) in [
            (100, 400, 5000, (480, 20)),
            (100, 400, 450, (430, 20)),
            (505, 600, 5000, (390, 510)),
            (880, 1400, 5000, (500, 900)),
            (880, 1400, 950, (390, 510)),
        ] {
            let gap = probes.longest_gap(at(from), at(to), at(until));
            assert_eq!(gap, (at(expected.0), at(expected.1)), "{from} {to} {until}");
        }
    }
}
