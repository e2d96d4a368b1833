//! Looks at all members while they run: what must hold at every moment (peers.md 4.4).
//!
//! | | |
//! |---|---|
//! | election safety | one leader a term; a member votes once a term (net.rs sees each vote) |
//! | one leader believed | two members do not both believe themselves leader for longer than an election timeout |
//! | log matching, immutability | what one member commits at an index, every member commits there |
//! | leader completeness | a leader holds every entry that was committed before it was seen to lead |
//! | committed on a quorum | what is committed is on the disks of most of the voters |
//! | removal | who was removed leads no later term, and nobody else ends by itself |
//! | one state machine | equal hashes at an equal applied index |
//! | monotonic | term, commit index, applied index, revision and compact revision of a life never fall |
//! | failed disks | a member whose sync failed stops |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate::storage::journal::LogRecord;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::{LogPayload, Membership, log_payload};
use tokio::time::Instant;

use super::fleet::{End, Failure, Running};
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

/// A membership that is committed.
struct Noted {
    /// The term in which it was noticed: it was committed in this one or an earlier.
    term: u64,
    voters: Vec<BTreeSet<u64>>,
    members: BTreeSet<u64>,
}

impl Noted {
    fn of(membership: &Membership, term: u64) -> Noted {
        let set = |ids: &Vec<u64>| ids.iter().copied().collect();
        Noted {
            term,
            voters: membership.configs.iter().map(|voters| set(&voters.member_ids)).collect(),
            members: membership.nodes.iter().map(|node| node.member_id).collect(),
        }
    }
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    leaders: BTreeMap<u64, u64>,
    hashes: BTreeMap<u64, (u32, u64)>,
    marks: BTreeMap<(u64, u64), Marks>,
    /// What is committed, by index: id, payload, who showed it first.
    log: BTreeMap<u64, (LogId, Bytes, u64)>,
    /// Committed memberships, by index.
    memberships: BTreeMap<u64, Noted>,
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
        let leaving = world.fleet.take_leaving();
        let everyone = world.fleet.everyone();
        let running: Vec<_> =
            everyone.into_iter().filter_map(|id| Some((id, world.fleet.member(id)?))).collect();
        seen.believers(&world, &running);
        for (id, member) in &running {
            seen.marks(&world, *id, member);
            seen.leader(&world, *id, member);
            seen.committed(&world, *id, member);
            seen.hash(&world, *id, member).await;
            seen.installs(*id, member);
        }
        seen.quorum(&world, &running);
        seen.leave(&world, leaving);
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
        for id in world.fleet.everyone() {
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

    /// Members that have found that they are none any more, and end. What removed them was committed before: a look at
    /// all logs has seen it.
    fn leave(&mut self, world: &World, leaving: Vec<(u64, u64)>) {
        let live = leaving.into_iter().filter(|(id, life)| world.fleet.lives(*id, *life));
        for id in live.map(|(id, _)| id).collect::<Vec<_>>() {
            world.line(|| format!("member {id} was removed and ends"));
            if self.members().is_none_or(|members| members.contains(&id)) {
                world.violation(format!("member {id} ends and was not removed"));
            }
            self.looked("removed members that ended by themselves", 1);
            world.fleet.end(id, End::Kill);
            world.fleet.retire(id);
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
        let in_force = self.memberships.values().rev().find(|noted| noted.term < term);
        if in_force.is_some_and(|noted| !noted.members.contains(&id)) {
            world.violation(format!("member {id} leads term {term} and was removed before"));
        }
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
        let term = state.vote.map_or(0, |vote| vote.term);
        for entry in entries {
            self.note(&entry, term);
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

    /// Keeps a committed membership.
    fn note(&mut self, entry: &LogRecord, term: u64) {
        let payload = LogPayload::decode(entry.payload.clone()).ok();
        let payload = payload.and_then(|payload| payload.payload);
        if let Some(log_payload::Payload::Membership(membership)) = payload {
            let noted = || Noted::of(&membership, term);
            self.memberships.entry(entry.id.index).or_insert_with(noted);
        }
    }

    /// Who is a member by the last membership that is committed.
    fn members(&self) -> Option<&BTreeSet<u64>> {
        self.memberships.values().next_back().map(|noted| &noted.members)
    }

    /// What is committed anywhere is on the disks of most voters: by the membership before it or by one after it that
    /// its leader may have had in its log already.
    fn quorum(&mut self, world: &World, running: &[(u64, Running)]) {
        let Some((newest, (at, ..))) = self.log.last_key_value() else { return };
        if *newest <= self.on_quorum {
            return;
        }
        // Of another branch when it is of an older term, however long.
        let holds = |id: &&u64| {
            let durable = world.fleet.durable(**id);
            durable.is_some_and(|durable| (durable.term, durable.index) >= (at.term, at.index))
        };
        let most = |voters: &BTreeSet<u64>| voters.iter().filter(holds).count() * 2 > voters.len();
        let before = self.memberships.range(..=*newest).next_back();
        let by_it = before.is_some_and(|(_, noted)| noted.voters.iter().all(most));
        let by_next = || {
            running.iter().any(|(_, member)| {
                most(&member.keyspace.raft_facts().voters.iter().map(|id| id.0).collect())
            })
        };
        if before.is_some() && !by_it && !by_next() {
            world.violation(format!("{at} is committed and not on most voters' disks"));
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
