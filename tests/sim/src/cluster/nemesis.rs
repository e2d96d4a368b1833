//! Faults, drawn from the seed: one at a time or overlapping, and healed again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate::storage::journal::GroupLog;
use quorate_core::api::ids::MemberId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::World;
use super::member::{self, MEMBERS};
use crate::life::Disks;

/// Starts members, and does them harm.
pub struct Nemesis {
    world: Arc<World>,
    rng: StdRng,
    /// Of members that are down.
    disks: BTreeMap<u64, Disks>,
    clocks: BTreeMap<u64, Arc<AtomicI64>>,
    pub logs: BTreeMap<u64, GroupLog>,
    pub faults: usize,
}

impl Nemesis {
    pub fn new(world: &Arc<World>, seed: u64) -> Nemesis {
        Nemesis {
            world: Arc::clone(world),
            rng: StdRng::seed_from_u64(seed),
            disks: MEMBERS.map(|id| (id, Disks::default())).into(),
            clocks: MEMBERS.map(|id| (id, Arc::default())).into(),
            logs: BTreeMap::new(),
            faults: 0,
        }
    }

    /// Starts every member that is down.
    pub async fn start_all(&mut self) {
        while let Some((id, disks)) = self.disks.pop_first() {
            self.start(id, disks).await;
        }
    }

    async fn start(&mut self, id: u64, disks: Disks) {
        let life = self.rng.random();
        let started = member::start(&self.world.net, id, life, &disks, &self.clocks[&id]).await;
        match started {
            Ok((keyspace, log)) => {
                self.world.line(&format!("member {id} starts"));
                self.logs.insert(id, log);
                let world = Arc::clone(&self.world);
                tokio::spawn(async move {
                    let cause = keyspace.failed().await;
                    if world.net.lives(id, life) && !disks.journal.is_frozen() {
                        world.violation(format!("member {id} failed: {cause}"));
                    }
                });
            }
            Err(_) if disks.journal.is_frozen() => {
                self.disks.insert(id, disks.after_power_cut(self.rng.random()));
            }
            Err(error) => self.world.violation(format!("member {id} does not start: {error}")),
        }
    }

    /// The power of `id` goes.
    fn cut_power(&mut self, id: u64) {
        if let Some((keyspace, disks)) = self.world.net.detach(id) {
            self.world.line(&format!("member {id} loses power"));
            self.disks.insert(id, disks.after_power_cut(self.rng.random()));
            // Its tasks end; nobody hears what they still say, and what they write is on no disk.
            tokio::spawn(async move { keyspace.shutdown().await });
        }
    }

    fn pick(&mut self) -> u64 {
        MEMBERS[self.rng.random_range(0..MEMBERS.len())]
    }

    /// Whom somebody believes to lead, as a rule the leader; anybody, if nobody is believed.
    fn leader(&mut self) -> u64 {
        let views = MEMBERS.into_iter().filter_map(|id| self.world.net.member(id));
        let led = views.filter_map(|(_, keyspace)| keyspace.leader_view().leader()).next();
        led.map_or_else(|| self.pick(), |leader| leader.0)
    }

    fn victim(&mut self) -> u64 {
        if self.rng.random_bool(0.6) { self.leader() } else { self.pick() }
    }

    async fn wait(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }

    /// Does harm for `length`, or until something is found.
    pub async fn run(&mut self, length: Duration) {
        let until = tokio::time::Instant::now() + length;
        while tokio::time::Instant::now() < until && self.world.told().violations.is_empty() {
            self.wait(300..1500).await;
            self.harm().await;
            self.faults += 1;
            self.wait(300..4000).await;
            if self.rng.random_bool(0.7) {
                self.world.line("heal");
                self.world.net.heal();
            }
            self.start_all().await;
        }
    }

    fn fault(&self, what: &'static str, id: u64) {
        self.world.net.count(what);
        self.world.line(&format!("{what}: {id}"));
    }

    async fn harm(&mut self) {
        let net = Arc::clone(&self.world.net);
        let id = self.victim();
        let others = move || MEMBERS.into_iter().filter(move |other| *other != id);
        match self.rng.random_range(0..10) {
            0 => {
                self.fault("cut off both ways", id);
                net.cut(others().flat_map(|other| [(id, other), (other, id)]));
            }
            1 => {
                self.fault("inbound cut", id);
                net.cut(others().map(|other| (other, id)));
            }
            2 => {
                self.fault("outbound cut", id);
                net.cut(others().map(|other| (id, other)));
            }
            3 => {
                self.fault("pair cut", id);
                let other = 1 + id % 3;
                net.cut([(id, other), (other, id)]);
            }
            4 => {
                self.fault("lossy", id);
                net.lossy(self.rng.random_range(10..150));
            }
            5 => {
                self.fault("slow", id);
                net.slow(others().flat_map(|other| [(id, other), (other, id)]));
            }
            6 => {
                self.fault("power cut", id);
                self.cut_power(id);
                self.wait(50..1500).await;
                self.start_all().await;
            }
            7 => self.cut_power_at_a_sync(id).await,
            8 => {
                self.fault("clock jump", id);
                let jump = self.rng.random_range(-3_600_000..3_600_000);
                self.clocks[&id].fetch_add(jump, Ordering::Relaxed);
                self.transfer(id);
            }
            _ => self.ambush().await,
        }
    }

    fn transfer(&mut self, to: u64) {
        let leader = self.leader();
        if let Some((_, keyspace)) = self.world.net.member(leader) {
            self.fault("transfer asked", to);
            tokio::spawn(async move { drop(keyspace.move_leader(MemberId(to)).await) });
        }
    }

    /// The power goes in the middle of a write, at one of the next syncs.
    async fn cut_power_at_a_sync(&mut self, id: u64) {
        let Some(disks) = self.world.net.disks(id) else { return };
        disks.journal.freeze_at(disks.journal.syncs() + self.rng.random_range(0..20));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if disks.journal.is_frozen() {
                self.fault("power cut at a sync", id);
                break;
            }
        }
        self.cut_power(id);
        self.wait(10..1000).await;
        self.start_all().await;
    }

    /// Whoever grants the next vote loses power at once; who got it is cut off; the old leader comes back.
    async fn ambush(&mut self) {
        let leader = self.leader();
        let net = Arc::clone(&self.world.net);
        let others: Vec<_> = MEMBERS.into_iter().filter(|other| *other != leader).collect();
        net.cut(others.iter().flat_map(|other| [(leader, *other), (*other, leader)]));
        let sprung = tokio::time::timeout(Duration::from_secs(6), net.ambush()).await;
        let Ok(Ok(ambushed)) = sprung else { return };
        self.fault("power cut after a vote", ambushed.voter);
        self.world.line(&format!("member {} is cut off with its vote", ambushed.candidate));
        self.disks.insert(ambushed.voter, ambushed.image.after_power_cut(self.rng.random()));
        let keyspace = ambushed.keyspace;
        tokio::spawn(async move { keyspace.shutdown().await });
        self.wait(5..50).await;
        self.start_all().await;
        self.wait(500..2500).await;
    }
}
