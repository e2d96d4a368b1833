//! Looks at all members while they run: what must hold at every moment (peers.md 4.4).
//!
//! | | |
//! |---|---|
//! | election safety | one leader a term; a member votes once a term (net.rs sees each vote) |
//! | one leader believed | two members do not both believe themselves leader for longer than an election timeout |
//! | log matching, immutability | what one member commits at an index, every member commits there |
//! | leader completeness | a leader holds every entry that was committed before it was seen to lead |
//! | committed on a quorum | what is committed is on the disks of two members |
//! | one state machine | equal hashes at an equal applied index |
//! | monotonic | term, commit index, applied index, revision and compact revision of a life never fall |
//! | failed disks | a member whose sync failed stops |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::{LogId, MemberId};
use tokio::time::Instant;

use super::fleet::{End, Failure, MEMBERS, Running};
use super::world::World;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Two may believe themselves leader for as long as the older one may believe: an election timeout, by a clock that
/// may be slow, and a look.
const BELIEF: Duration = Duration::from_millis(1100);
/// A member whose sync failed has stopped after this.
const STOPPED_AFTER: Duration = Duration::from_secs(10);

/// What never falls, of one life.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    term: u64,
    committed: u64,
    applied: u64,
    revision: i64,
    compacted: i64,
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    leaders: BTreeMap<u64, u64>,
    hashes: BTreeMap<u64, (u32, u64)>,
    marks: BTreeMap<(u64, u64), Marks>,
    /// What is committed, by index: id, payload, who showed it first.
    log: BTreeMap<u64, (LogId, Bytes, u64)>,
    /// Up to where each life's committed entries were compared.
    compared: BTreeMap<(u64, u64), u64>,
    /// Up to where the committed entries were found on a quorum of disks.
    on_quorum: u64,
    /// States of others that each life has installed.
    installed: BTreeMap<(u64, u64), u64>,
    two_leaders: Option<Instant>,
    doomed: BTreeMap<(u64, u64), Instant>,
    looks: BTreeMap<&'static str, u64>,
}

/// Runs until the world is over and everything was looked at once more.
pub async fn watch(world: Arc<World>) {
    let mut seen = Seen::default();
    while !world.is_over() {
        tokio::time::sleep(LOOK).await;
        for words in world.net.take_violations() {
            world.violation(words);
        }
        seen.fail_or_stop(&world);
        let running: Vec<_> =
            MEMBERS.into_iter().filter_map(|id| Some((id, world.fleet.member(id)?))).collect();
        seen.believers(&world, &running);
        for (id, member) in &running {
            seen.marks(&world, *id, member);
            seen.leader(&world, *id, member);
            seen.committed(&world, *id, member);
            seen.hash(&world, *id, member).await;
            seen.installs(*id, member);
        }
        seen.quorum(&world);
    }
    for (what, times) in seen.looks {
        world.looked(what, times);
    }
}

impl Seen {
    fn looked(&mut self, at: &'static str, times: u64) {
        *self.looks.entry(at).or_default() += times;
    }

    /// Members that could not start or failed, and members that ought to have.
    fn fail_or_stop(&mut self, world: &World) {
        for Failure { id, life, what } in world.fleet.take_failures() {
            match world.fleet.is_doomed(id, life) {
                true => {
                    world.line(|| format!("member {id} stops, as it must: {what}"));
                    world.net.count("stopped by a failed sync");
                }
                false => world.violation(format!("member {id} {what}")),
            }
            world.fleet.end(id, End::Kill);
        }
        for id in MEMBERS {
            let Some(life) = world.fleet.life(id) else { continue };
            if !world.fleet.is_doomed(id, life) {
                continue;
            }
            let since = *self.doomed.entry((id, life)).or_insert_with(Instant::now);
            let still = world.fleet.member(id).is_some_and(|member| member.stands_still());
            if !still && since.elapsed() > STOPPED_AFTER {
                world.violation(format!("member {id} goes on after a failed sync"));
                world.fleet.end(id, End::Kill);
            }
        }
    }

    fn believers(&mut self, world: &World, running: &[(u64, Running)]) {
        let believe = running.iter().filter(|(id, member)| {
            !member.stands_still() && member.keyspace.leader_view().leader() == Some(MemberId(*id))
        });
        if believe.count() < 2 {
            self.two_leaders = None;
            return;
        }
        let since = *self.two_leaders.get_or_insert_with(Instant::now);
        self.looked("looks at two who believe to lead", 1);
        if since.elapsed() > BELIEF {
            world.violation(format!("two members believe to lead for {:?}", since.elapsed()));
            self.two_leaders = None;
        }
    }

    fn marks(&mut self, world: &World, id: u64, member: &Running) {
        let state = member.log.state();
        let now = Marks {
            term: state.vote.map_or(0, |vote| vote.term),
            committed: state.committed.map_or(0, |at| at.index),
            applied: member.keyspace.status().applied_index,
            revision: member.keyspace.revision(),
            compacted: member.keyspace.compact_revision(),
        };
        let before = self.marks.insert((id, member.life), now).unwrap_or(now);
        let falls = now.term < before.term
            || now.committed < before.committed
            || now.applied < before.applied
            || now.revision < before.revision
            || now.compacted < before.compacted;
        if falls {
            world.violation(format!("member {id} went back: {before:?}, {now:?}"));
        }
    }

    fn leader(&mut self, world: &World, id: u64, member: &Running) {
        let view = member.keyspace.leader_view();
        let term = view.term.0;
        if view.leader != Some(MemberId(id)) {
            return;
        }
        if let Some(first) = self.leaders.get(&term) {
            if *first != id {
                world.violation(format!("term {term} has two leaders: {first}, {id}"));
                self.leaders.insert(term, id);
            }
            return;
        }
        self.leaders.insert(term, id);
        world.line(|| format!("member {id} leads term {term}"));
        self.looked("leaders", 1);
        let before = self.log.values().rev().find(|(at, ..)| at.term.0 < term);
        let Some((at, ..)) = before else { return };
        let state = member.log.state();
        let purged = state.purged.is_some_and(|purged| purged.index >= at.index);
        if !purged && member.log.term_at(at.index) != Some(at.term.0) {
            world.violation(format!("member {id} leads term {term} without {at}"));
        }
    }

    /// Compares what a life has committed since the last look with what others have.
    fn committed(&mut self, world: &World, id: u64, member: &Running) {
        let state = member.log.state();
        let Some(committed) = state.committed else { return };
        let purged = state.purged.map_or(0, |purged| purged.index + 1);
        let from = self.compared.get(&(id, member.life)).map_or(0, |to| to + 1).max(purged);
        if from > committed.index {
            return;
        }
        let Ok(entries) = member.log.entries(from, committed.index + 1, usize::MAX) else { return };
        self.looked("committed entries compared", entries.len() as u64);
        for entry in entries {
            let first = self
                .log
                .entry(entry.id.index)
                .or_insert_with(|| (entry.id, entry.payload.clone(), id));
            if (first.0, &first.1) != (entry.id, &entry.payload) {
                let (at, _, other) = first;
                let words = format!("members {other} and {id} committed {at} and {}", entry.id);
                world.violation(words);
            }
            self.compared.insert((id, member.life), entry.id.index);
        }
    }

    /// What is committed anywhere is on two disks.
    fn quorum(&mut self, world: &World) {
        let Some((newest, (at, ..))) = self.log.last_key_value() else { return };
        if *newest <= self.on_quorum {
            return;
        }
        let durable = MEMBERS.into_iter().filter_map(|id| world.fleet.durable(id));
        // Of another branch when it is of an older term, however long.
        let holds = durable.filter(|durable| (durable.term, durable.index) >= (at.term, at.index));
        if holds.count() < 2 {
            world.violation(format!("{at} is committed and not on two disks"));
        }
        self.on_quorum = *newest;
    }

    fn installs(&mut self, id: u64, member: &Running) {
        let installs = member.keyspace.store_figures().installs;
        let before = self.installed.insert((id, member.life), installs).unwrap_or(0);
        if installs > before {
            self.looked("snapshot installed", installs - before);
        }
    }

    async fn hash(&mut self, world: &World, id: u64, member: &Running) {
        // Nothing is awaited between the two: they are of one moment.
        let at = member.keyspace.status().applied_index;
        let Ok(hash) = member.keyspace.hash().await else { return };
        let first = *self.hashes.entry(at).or_insert((hash.hash, id));
        if first.0 != hash.hash {
            let other = first.1;
            world.violation(format!("members {other} and {id} differ at index {at}"));
        }
        if first.1 != id {
            self.looked("hashes compared", 1);
        }
    }
}
