//! Leaders one after another, elected by members that are late, stand still, are cut off, die, come and go: whoever
//! promised last, and whoever ends a lease, nobody has less than it was promised.
//!
//! Replay one seed: `QUORATE_SEED=<n> cargo test -p quorate --lib keyspace::lease::tests::reigns`; more of them:
//! `QUORATE_SEEDS=1..10001`

mod seat;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::ids::{LeaseId, MemberId};
use tokio::time::{Instant, timeout};

use self::world::{Entry, Seen, What, World};

impl World {
    /// Some member, and the number of its process.
    fn any(&self) -> (MemberId, u64) {
        let id = MemberId(u64::from(self.draw(1..6)));
        (id, self.state.lock().nodes[&id].life)
    }

    fn propose(self: &Arc<World>, leader: (MemberId, u64), what: What) {
        self.at(leader, |node| {
            if let Some(term) = node.reign().map(|reign| reign.term) {
                node.log.push(Arc::new(Entry { term, what }));
            }
        });
        self.append_to_all(leader);
    }

    fn grant(self: &Arc<World>, number: i64) {
        let ttl = i64::from(self.draw(2..10)) * self.election.as_secs() as i64;
        if let Some(leader) = self.leader() {
            self.propose(leader, What::Grant { id: LeaseId(number), ttl, sent: Instant::now() });
        }
    }

    /// A keep-alive reaches whoever it may.
    async fn renew(self: Arc<World>, id: LeaseId) {
        let who = self.leader().filter(|_| self.draw(0..3) > 0).unwrap_or_else(|| self.any());
        let lessor = self.at(who, |node| node.run.as_ref().map(|run| run.lessor.clone()));
        let Some(lessor) = lessor.flatten() else { return };
        let Ok(Ok(ttl)) = timeout(5 * self.election, lessor.renew(id)).await else { return };
        // By a process that has died since, it is told to nobody.
        if let Some(term) = self.at(who, |_| lessor.term()) {
            self.state.lock().seen.renewals += 1;
            self.promise(id, Instant::now(), ttl, term.map_or(0, |term| term.0));
        }
    }

    fn alive(&self) -> Vec<LeaseId> {
        let state = self.state.lock();
        let alive = state.promised.keys().filter(|id| !state.ended.contains_key(id));
        alive.copied().collect()
    }

    fn renew_some(self: &Arc<World>) {
        let leases = self.alive();
        if !leases.is_empty() {
            let lease = leases[self.draw(0..leases.len() as u32) as usize];
            tokio::spawn(Arc::clone(self).renew(lease));
        }
    }

    /// One voter more or less, once the change before is committed in this term.
    fn change_voters(self: &Arc<World>) {
        let (Some(leader), (id, _)) = (self.leader(), self.any()) else { return };
        let next = self.at(leader, |node| {
            let mut voters: BTreeSet<MemberId> = node.voters().1.clone();
            if !voters.remove(&id) {
                voters.insert(id);
            }
            let settled = node.applied == node.log.len() && id != leader.0 && voters.len() > 1;
            settled.then_some(voters)
        });
        if let Some(voters) = next.flatten() {
            self.state.lock().seen.changes += 1;
            self.propose(leader, What::Voters(voters));
        }
    }

    /// The leader goes on promising by those who hear it, until one that does not hear it leads.
    async fn strike(self: Arc<World>) {
        let Some((leader, _)) = self.leader() else { return };
        let deaf = (1..=5).map(MemberId).filter(|id| *id != leader && self.draw(0..2) == 0);
        let deaf: Vec<MemberId> = deaf.collect();
        let ways = deaf.iter().flat_map(|id| [(leader, *id), (*id, leader)]);
        let ways: Vec<(MemberId, MemberId)> = ways.collect();
        self.state.lock().cuts.extend(&ways);
        for _ in 0..8 {
            self.renew_some();
            self.pass(10..200).await;
        }
        if self.draw(0..2) == 0 {
            tokio::spawn(Arc::clone(&self).trouble(leader));
        }
        if self.draw(0..3) == 0 {
            let (id, _) = self.any();
            tokio::spawn(Arc::clone(&self).trouble(id));
        }
        for id in deaf.iter().cycle().take(12) {
            if self.leader().is_some_and(|(id, _)| id != leader) {
                break;
            }
            self.campaign(*id);
            self.renew_some();
            self.pass(0..200).await;
        }
        self.pass(0..1000).await;
        self.state.lock().cuts.retain(|way| !ways.contains(way));
    }

    async fn trouble(self: Arc<World>, id: MemberId) {
        let set = |change: &dyn Fn(&mut world::Node)| {
            change(self.state.lock().nodes.get_mut(&id).expect("it is one of them"));
        };
        match self.draw(0..4) {
            0 => {
                self.kill(id);
                self.pass(100..3000).await;
                if self.state.lock().nodes[&id].run.is_none() {
                    self.start(id);
                }
            }
            1 => {
                set(&|node| node.still = true);
                self.pass(100..8000).await;
                set(&|node| node.still = false);
            }
            2 => {
                set(&|node| node.cut = true);
                self.pass(100..8000).await;
                set(&|node| node.cut = false);
            }
            _ => self.campaign(id),
        }
    }

    fn heal(self: &Arc<World>) {
        {
            let mut state = self.state.lock();
            state.healed = true;
            state.cuts.clear();
        }
        for id in (1..=5).map(MemberId) {
            let is_down = self.state.lock().nodes[&id].run.is_none();
            if is_down {
                self.start(id);
            }
            let mut state = self.state.lock();
            let node = state.nodes.get_mut(&id).expect("it is one of them");
            (node.still, node.cut) = (false, false);
        }
    }
}

async fn run(seed: u64) -> Seen {
    // Long ones have leases that are checkpointed.
    let election = Duration::from_secs(if seed % 10 == 4 { 40 } else { 1 });
    let world = World::new(seed, election);
    world.campaign(MemberId(1));
    for number in 1..250 {
        world.pass(10..600).await;
        // Holders go, and what they held ends under another leader.
        let are_there = number % 50 < 25;
        if number % 50 == 24 {
            tokio::spawn(Arc::clone(&world).strike());
        }
        match world.draw(0..100) {
            0..15 if are_there => world.grant(number),
            15..65 if are_there => world.renew_some(),
            65..70 if are_there => drop(tokio::spawn(Arc::clone(&world).strike())),
            70..74 if are_there => world.change_voters(),
            74..80 if are_there => {
                let (id, _) = world.any();
                tokio::spawn(Arc::clone(&world).trouble(id));
            }
            80..100 if world.leader().is_none() => world.campaign(world.any().0),
            _ => {}
        }
    }
    world.pass(8000..8001).await;
    world.heal();
    for _ in 0..40 {
        if world.alive().is_empty() {
            break;
        }
        world.pass(1000..1500).await;
        if world.leader().is_none() {
            world.campaign(world.any().0);
        }
    }
    let left = world.alive();
    let state = world.state.lock();
    let replay =
        format!("QUORATE_SEED={seed} cargo test -p quorate --lib keyspace::lease::tests::reigns");
    assert!(state.faults.is_empty(), "{:#?}\n{replay}", state.faults);
    assert!(left.is_empty(), "{left:?}: with nobody to keep them, leases end\n{replay}");
    state.seen
}

fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse().expect("it is a number");
    if let Ok(seed) = std::env::var("QUORATE_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("QUORATE_SEEDS") {
        Ok(seeds) => {
            let (from, to) = seeds.split_once("..").expect("QUORATE_SEEDS is <from>..<to>");
            number(from)..number(to)
        }
        Err(_) => 1..31,
    }
}

#[test]
fn nobody_has_less_than_any_leader_promised_whoever_leads_next() {
    let mut all = Seen::default();
    for seed in seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().expect("it starts");
        let seen = runtime.block_on(run(seed));
        all.reigns += seen.reigns;
        all.renewals += seen.renewals;
        all.told += seen.told;
        all.rests += seen.rests;
        all.changes += seen.changes;
        all.ended += seen.ended;
        all.soon += seen.soon;
    }
    println!("{all:?}");
    if seeds().count() >= 30 {
        let least = [all.reigns, all.renewals, all.told, all.rests, all.changes, all.soon];
        assert!(least.iter().all(|count| *count >= 4), "{all:?}");
    }
}
