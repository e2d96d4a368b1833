//! Faults, drawn from the seed: one at a time or overlapping, and healed again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout};

use super::fleet::{DiskMood, End};
use super::world::World;

/// No clock runs faster or slower than this beside the world's, in millionths: far worse than any real one.
pub const DRIFT_MAX_PPM: i64 = 10_000;

/// Starts members, and does them harm.
pub struct Nemesis {
    world: Arc<World>,
    rng: StdRng,
    pub faults: usize,
}

impl Nemesis {
    pub fn new(world: &Arc<World>, seed: u64) -> Nemesis {
        Nemesis { world: Arc::clone(world), rng: StdRng::seed_from_u64(seed), faults: 0 }
    }

    /// Starts every member that is down.
    pub fn start_all(&mut self) {
        for id in self.world.fleet.cast() {
            if self.world.fleet.is_down(id) {
                // 0 is nobody's life.
                let life = self.rng.random::<u64>() | 1;
                self.world.line(|| format!("member {id} starts"));
                self.world.fleet.start(id, life);
            }
        }
    }

    /// Ends everything that is wrong, but for processes that have ended.
    pub fn heal(&mut self) {
        self.world.line(|| "heal".to_owned());
        self.world.net.heal();
        for id in self.world.fleet.everyone() {
            self.world.fleet.hardware(id).set_mood(DiskMood::default());
            self.world.fleet.set_still(id, false);
        }
    }

    fn pick(&mut self) -> u64 {
        let cast = self.world.fleet.cast();
        cast[self.rng.random_range(0..cast.len())]
    }

    /// Whom somebody believes to lead.
    fn known_leader(&self) -> Option<u64> {
        let cast = self.world.fleet.cast();
        let views = cast.into_iter().filter_map(|id| self.world.fleet.member(id));
        let mut led = views
            .filter(|member| !member.stands_still())
            .filter_map(|member| member.keyspace.leader_view().leader());
        led.next().map(|leader| leader.0)
    }

    /// The same; anybody, if nobody is believed.
    fn leader(&mut self) -> u64 {
        self.known_leader().unwrap_or_else(|| self.pick())
    }

    fn both_ways(&self, id: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let others = self.world.fleet.cast().into_iter().filter(move |other| *other != id);
        others.flat_map(move |other| [(id, other), (other, id)])
    }

    fn victim(&mut self) -> u64 {
        if self.rng.random_bool(0.6) { self.leader() } else { self.pick() }
    }

    async fn wait(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }

    /// Does harm for `length`, and `faults_min` times, or until something is found.
    pub async fn run(&mut self, length: Duration, faults_min: usize) {
        let until = Instant::now() + length;
        while (Instant::now() < until || self.faults < faults_min)
            && self.world.told().violations.is_empty()
        {
            self.wait(300..1500).await;
            self.harm().await;
            self.faults += 1;
            self.wait(300..4000).await;
            if self.rng.random_bool(0.7) {
                self.heal();
            }
            self.start_all();
        }
    }

    fn fault(&self, what: &'static str, id: u64) {
        self.world.net.count(what);
        self.world.line(|| format!("{what}: {id}"));
    }

    async fn harm(&mut self) {
        let id = self.victim();
        match self.rng.random_range(0..23) {
            0..4 => self.break_ways(id),
            4 => {
                self.fault("lossy", id);
                self.world.net.lossy(self.rng.random_range(10..150));
            }
            5 => {
                self.fault("slow network", id);
                self.world.net.slow(self.both_ways(id));
            }
            6 => self.end_and_restart(id, End::Power, "power cut").await,
            7 => self.end_and_restart(id, End::Kill, "killed").await,
            8 => self.cut_power_at_a_sync(id).await,
            9 => {
                self.fault("clock jump", id);
                let jump = self.rng.random_range(-3_600_000..3_600_000);
                self.world.fleet.hardware(id).wall_offset_ms.fetch_add(jump, Ordering::Relaxed);
                self.transfer(id);
            }
            10 => {
                self.fault("clock drift", id);
                let drift = self.rng.random_range(-DRIFT_MAX_PPM..DRIFT_MAX_PPM);
                self.world.fleet.hardware(id).drift_ppm.store(drift, Ordering::Relaxed);
            }
            11 | 12 => self.stand_still(id).await,
            13 => self.freeze_disk(id).await,
            14 => self.slow_disk(),
            15 => self.fail_sync(id).await,
            16 => self.restart_all().await,
            17 => self.cascade().await,
            18 => self.stop_in_order(id).await,
            19 => {
                self.fault("sync of a base fails", id);
                let more = self.rng.random_range(0..4);
                self.set_mood(id, DiskMood { base_fails_in: Some(more), ..DiskMood::default() });
            }
            20 | 21 => self.leave_behind(id).await,
            _ => self.ambush().await,
        }
    }

    fn break_ways(&mut self, id: u64) {
        let net = Arc::clone(&self.world.net);
        let cast = self.world.fleet.cast();
        let others = cast.clone().into_iter().filter(move |other| *other != id);
        match self.rng.random_range(0..4) {
            0 => {
                self.fault("cut off both ways", id);
                net.cut(self.both_ways(id));
            }
            1 => {
                self.fault("inbound cut", id);
                net.cut(others.map(|other| (other, id)));
            }
            2 => {
                self.fault("outbound cut", id);
                net.cut(others.map(|other| (id, other)));
            }
            _ => {
                self.fault("pair cut", id);
                let at = cast.iter().position(|other| *other == id).unwrap_or(0);
                let other = cast[(at + 1) % cast.len()];
                net.cut([(id, other), (other, id)]);
            }
        }
    }

    async fn end_and_restart(&mut self, id: u64, end: End, what: &'static str) {
        if self.world.fleet.end(id, end) {
            self.fault(what, id);
        }
        self.wait(10..1500).await;
        self.start_all();
    }

    fn transfer(&mut self, to: u64) {
        let leader = self.leader();
        if let Some(member) = self.world.fleet.member(leader) {
            self.fault("transfer asked", to);
            let keyspace = member.keyspace.clone();
            drop(member.spawn(async move { drop(keyspace.move_leader(MemberId(to)).await) }));
        }
    }

    /// The power goes in the middle of a write, at one of the next syncs; the engine sees and counts it.
    async fn cut_power_at_a_sync(&mut self, id: u64) {
        let mood = match self.rng.random_bool(0.6) {
            true => {
                DiskMood { power_in: Some(self.rng.random_range(0..20)), ..DiskMood::default() }
            }
            // Of a base that is made here or has come from another member.
            false => {
                DiskMood { base_power_in: Some(self.rng.random_range(0..4)), ..DiskMood::default() }
            }
        };
        self.set_mood(id, mood);
        self.until_down(id, Duration::from_secs(4)).await;
        self.wait(10..1000).await;
        self.start_all();
    }

    fn set_mood(&self, id: u64, mood: DiskMood) {
        self.world.line(|| format!("disk of {id}: {mood:?}"));
        self.world.fleet.hardware(id).set_mood(mood);
    }

    async fn until_down(&self, id: u64, limit: Duration) {
        let end = Instant::now() + limit;
        while Instant::now() < end && !self.world.fleet.is_down(id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGSTOP, and SIGCONT later: with its old timers, and what came meanwhile in its sockets.
    async fn stand_still(&mut self, id: u64) {
        self.fault("stands still", id);
        self.world.fleet.set_still(id, true);
        self.wait(500..10_000).await;
        self.world.line(|| format!("member {id} goes on"));
        self.world.fleet.set_still(id, false);
    }

    /// Writes and syncs of one member do not return for a while.
    async fn freeze_disk(&mut self, id: u64) {
        self.fault("disk frozen", id);
        let freeze_ms = self.rng.random_range(300..10_000);
        self.set_mood(id, DiskMood { freeze_ms, ..DiskMood::default() });
        if self.rng.random_bool(0.3) {
            self.wait(0..freeze_ms).await;
            if self.world.fleet.end(id, End::Power) {
                self.fault("power cut while its disk is frozen", id);
            }
        }
    }

    /// The leader's disk alone is slow.
    fn slow_disk(&mut self) {
        let leader = self.leader();
        self.fault("disk of the leader slow", leader);
        let slow_ms = self.rng.random_range(20..600);
        self.set_mood(leader, DiskMood { slow_ms, ..DiskMood::default() });
    }

    /// A sync fails: the member must stop by itself. Then it starts again, on what the failed disk shows.
    async fn fail_sync(&mut self, id: u64) {
        self.fault("sync fails", id);
        let more = self.rng.random_range(0..20);
        self.set_mood(id, DiskMood { fail_in: Some(more), ..DiskMood::default() });
        self.until_down(id, Duration::from_secs(3)).await;
        self.wait(10..1000).await;
        self.start_all();
    }

    /// All three lose power, or are killed, within a moment.
    async fn restart_all(&mut self) {
        self.fault("all restarted", 0);
        let end = if self.rng.random_bool(0.5) { End::Power } else { End::Kill };
        let apart = self.rng.random_bool(0.5);
        for id in self.world.fleet.cast() {
            self.world.fleet.end(id, end);
            if apart {
                self.wait(0..30).await;
            }
        }
        self.wait(10..1500).await;
        self.start_all();
    }

    /// The leader dies, and the next one within an election timeout of being elected.
    async fn cascade(&mut self) {
        self.fault("cascade", 0);
        let mut last = None;
        for _ in 0..2 {
            let next = async {
                loop {
                    match self.known_leader().filter(|leader| Some(*leader) != last) {
                        Some(leader) => return leader,
                        None => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            };
            let Ok(leader) = timeout(Duration::from_secs(4), next).await else { break };
            let end = if self.rng.random_bool(0.5) { End::Power } else { End::Kill };
            self.wait(0..800).await;
            self.world.fleet.end(leader, end);
            if last.replace(leader).is_some() {
                self.fault("second leader ended", leader);
            }
            self.wait(1..300).await;
            // With one member left nobody would be elected.
            if self.rng.random_bool(0.5) {
                self.start_all();
            }
        }
        self.wait(10..1000).await;
        self.start_all();
    }

    /// A member is away while the log that it lacks goes.
    async fn leave_behind(&mut self, id: u64) {
        self.fault("left behind", id);
        let away = match self.rng.random_range(0..3) {
            0 => {
                self.world.net.cut(self.both_ways(id));
                None
            }
            1 => {
                self.world.fleet.set_still(id, true);
                None
            }
            _ => Some(self.world.fleet.end(id, End::Kill)),
        };
        // A leader holds the log for a member that answered it lately.
        self.wait(11_000..16_000).await;
        if away.is_none() {
            self.heal();
        }
        self.start_all();
        self.wait(100..1500).await;
    }

    /// SIGTERM.
    async fn stop_in_order(&mut self, id: u64) {
        let Some(member) = self.world.fleet.member(id) else { return };
        self.fault("stopped in order", id);
        let keyspace = member.keyspace.clone();
        let stopping = member.spawn(async move { keyspace.shutdown().await });
        let stopped = self.limited(stopping, Duration::from_secs(30)).await;
        if !stopped && self.world.fleet.lives(id, member.life) {
            self.world.violation(format!("member {id} does not stop"));
        }
        self.world.fleet.end(id, End::Kill);
        self.wait(10..1000).await;
        self.start_all();
    }

    async fn limited<T>(&self, call: impl Future<Output = T>, limit: Duration) -> bool {
        timeout(limit, call).await.is_ok()
    }

    /// Whoever grants the next vote loses power at once; who got it is cut off; the old leader comes back.
    async fn ambush(&mut self) {
        let leader = self.leader();
        let net = Arc::clone(&self.world.net);
        net.cut(self.both_ways(leader));
        let sprung = timeout(Duration::from_secs(6), net.ambush()).await;
        let Ok(Ok(ambushed)) = sprung else { return };
        self.fault("power cut after a vote", ambushed.voter);
        self.world.line(|| format!("member {} is cut off with its vote", ambushed.candidate));
        self.wait(5..50).await;
        self.start_all();
        self.wait(500..2500).await;
    }
}
