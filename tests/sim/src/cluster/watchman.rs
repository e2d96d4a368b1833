//! Looks at all members while they run: what must hold at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate::storage::journal::GroupLog;
use quorate_core::api::ids::MemberId;

use super::clients::World;
use super::member::MEMBERS;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What has been seen so far.
#[derive(Debug, Default)]
struct Seen {
    leaders: BTreeMap<u64, MemberId>,
    hashes: BTreeMap<u64, (u32, u64)>,
}

/// Runs until dropped.
pub async fn watch(world: Arc<World>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(LOOK).await;
        for id in MEMBERS {
            let Some((_, keyspace)) = world.net.member(id) else { continue };
            let view = keyspace.leader_view();
            if view.leader == Some(MemberId(id)) {
                let first = *seen.leaders.entry(view.term.0).or_insert(MemberId(id));
                if first != MemberId(id) {
                    world.violation(format!("term {} has two leaders: {first}, {id}", view.term.0));
                    seen.leaders.insert(view.term.0, MemberId(id));
                }
            }
            // Nothing is awaited between the two: they are of one moment.
            let at = keyspace.status().applied_index;
            let Ok(hash) = keyspace.hash().await else { continue };
            let first = *seen.hashes.entry(at).or_insert((hash.hash, id));
            if first.0 != hash.hash {
                let other = first.1;
                world.violation(format!("members {other} and {id} differ at index {at}"));
            }
        }
    }
}

/// Compares what two logs hold of committed entries.
pub fn compare_logs(logs: &BTreeMap<u64, GroupLog>) -> Vec<String> {
    let mut first: BTreeMap<u64, (u64, quorate_core::api::ids::LogId, bytes::Bytes)> =
        BTreeMap::new();
    let mut differ = Vec::new();
    for (id, log) in logs {
        let Some(committed) = log.state().committed else { continue };
        let from = log.state().purged.map_or(0, |purged| purged.index + 1);
        let entries = log.entries(from, committed.index + 1, usize::MAX);
        for entry in entries.unwrap_or_default() {
            let (other, at, payload) = first
                .entry(entry.id.index)
                .or_insert_with(|| (*id, entry.id, entry.payload.clone()));
            if (*at, &*payload) != (entry.id, &entry.payload) {
                differ.push(format!("members {other} and {id} committed {at} and {}", entry.id));
            }
        }
    }
    differ
}
