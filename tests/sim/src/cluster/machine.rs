//! One member's process: a runtime of its own, driven by hand, with its own clock and its own disk.
//!
//! ```text
//!   engine -- a step of the world's time --> disk: a sync that is due returns, or fails
//!                                        --> runtime: as much local time as the drift makes of it
//!   SIGSTOP: neither, and when it goes on all the time that passed at once: what came meanwhile is in its
//!            sockets, its timers are old, its clock has gone on
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate::storage::device::double::DoubleDevice;
use quorate::storage::journal::{Journal, JournalOptions, Runner};
use quorate::support::clock::Clock;
use quorate_core::api::ids::GroupId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::bug::Bug;
use super::fleet::{Down, End, Fleet, Hardware};
use super::member::{self, LocalClock};
use super::net::Net;
use crate::life::{self, Disks};

const NANOS_A_MILLI: u64 = 1_000_000;

/// A process and the machine it runs on.
pub struct Machine {
    pub life: u64,
    runtime: Runtime,
    journal: Journal,
    disks: Disks,
    disk: Disk,
    /// Local time that is due and less than a millisecond, in nanoseconds.
    owed: u64,
    /// Standing still, and for how long already, in nanoseconds of local time.
    still: Option<u64>,
}

/// Why a process ended by itself.
pub enum Ended {
    /// The power went at a sync.
    Power,
}

impl Machine {
    /// Starts the process; it attaches itself to the fleet when its keyspace is open.
    pub fn start(
        fleet: &Arc<Fleet>,
        net: &Arc<Net>,
        id: u64,
        life: u64,
        disks: Disks,
    ) -> Result<Machine, (String, Disks)> {
        let runtime = life::runtime(life);
        let hardware = fleet.hardware(id);
        let clock: Arc<dyn Clock> = {
            let _inside = runtime.enter();
            Arc::new(LocalClock::new(Arc::clone(&hardware.wall_offset_ms)))
        };
        let options = JournalOptions {
            segment_bytes: 256 << 10,
            seed: Some(life),
            clock: Arc::clone(&clock),
            ..JournalOptions::default()
        };
        let device = Arc::new(disks.journal.clone());
        let journal = match Journal::open(device, options, Runner::Stepped) {
            Ok(journal) => journal,
            Err(error) => return Err((error.to_string(), disks)),
        };
        let (tell_still, still) = watch::channel(false);
        let start = member::Start {
            fleet: Arc::clone(fleet),
            net: Arc::clone(net),
            id,
            life,
            log: journal.group(GroupId(0)),
            disks: disks.clone(),
            clock,
            handle: runtime.handle().clone(),
            still: (tell_still, still),
        };
        runtime.spawn(quorate::consensus::seeded(life, start.run()));
        let early = net.bug == Some(Bug::EarlyAck);
        let disk = Disk::new(life.rotate_left(5), early);
        Ok(Machine { life, runtime, journal, disks, disk, owed: 0, still: None })
    }

    /// `step` passes in the world, at whose end it is `now`.
    pub fn step(
        &mut self,
        hardware: &Hardware,
        now: Duration,
        step: Duration,
    ) -> Result<(), Ended> {
        let nanos = u64::try_from(step.as_nanos()).expect("a step is short");
        let rate = u64::try_from(1_000_000 + hardware.drift()).expect("a clock runs forward");
        let local = nanos * rate / 1_000_000;
        if let Some(passed) = &mut self.still {
            *passed += local;
            return Ok(());
        }
        if let Some(mood) = hardware.take_mood() {
            self.disk.frozen_until = now + Duration::from_millis(mood.freeze_ms);
            self.disk.slow_ms = mood.slow_ms;
            arm(&self.disks.journal, mood.fail_in, mood.power_in);
            arm(&self.disks.bases, mood.base_fails_in, mood.base_power_in);
        }
        {
            let _inside = self.runtime.enter();
            self.disk.step(&self.journal, &self.disks, now);
        }
        self.owed += local;
        let whole = self.owed / NANOS_A_MILLI;
        self.owed %= NANOS_A_MILLI;
        match whole {
            0 => self.runtime.block_on(async { tokio::task::yield_now().await }),
            millis => self.runtime.block_on(async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }),
        }
        match self.disks.journal.is_frozen() || self.disks.bases.is_frozen() {
            true => Err(Ended::Power),
            false => Ok(()),
        }
    }

    /// Stands still from now on.
    pub fn stand_still(&mut self) {
        self.still.get_or_insert(0);
    }

    /// Goes on: all at once it is later.
    pub fn go_on(&mut self) {
        let Some(passed) = self.still.take() else { return };
        self.owed += passed % NANOS_A_MILLI;
        let millis = passed / NANOS_A_MILLI;
        self.runtime.block_on(async move {
            tokio::time::advance(Duration::from_millis(millis)).await;
        });
    }

    /// The journal has failed for good.
    pub fn poisoned(&self) -> bool {
        self.journal.poisoned().is_some()
    }

    /// Ends the process and returns what is left of it.
    pub fn end(self, end: End, chance: &mut StdRng, forgets: Option<Disks>) -> Down {
        let Machine { life: _, runtime, journal, disks, disk, .. } = self;
        let durable = journal.group(GroupId(0)).durable();
        // Everything that runs stops where it stands, and can say nothing any more.
        drop(runtime);
        if disk.under_way.is_some() && chance.random_bool(0.5) {
            // What is being written reached the disk in part; its sync did not return.
            disks.journal.freeze_at(disks.journal.syncs());
            journal.step(usize::MAX);
        }
        drop(journal);
        let left = forgets.or(disk.behind.map(|(_, before)| before)).unwrap_or(disks);
        let disks = match end {
            End::Power => left.after_power_cut(chance.random()),
            End::Kill => left.as_of_now(),
        };
        Down { disks, durable }
    }
}

/// Has the sync so many from now fail, or the power go at it; or nothing of the kind any more.
fn arm(device: &DoubleDevice, fail_in: Option<u64>, power_in: Option<u64>) {
    let syncs = device.syncs();
    device.fail_sync_at(fail_in.map_or(u64::MAX, |more| syncs + more));
    device.freeze_at(power_in.map_or(u64::MAX, |more| syncs + more));
}

/// The journal's disk: one write with one sync at a time, which takes its time.
struct Disk {
    rng: StdRng,
    /// When the sync that is under way returns, and how many changes it covers.
    under_way: Option<(Duration, usize)>,
    frozen_until: Duration,
    slow_ms: u64,
    /// A bug put back in: what is to be written is acknowledged first.
    early: bool,
    /// With that bug: the disks as they are until the time given.
    behind: Option<(Duration, Disks)>,
}

impl Disk {
    fn new(seed: u64, early: bool) -> Disk {
        Disk {
            rng: StdRng::seed_from_u64(seed),
            under_way: None,
            frozen_until: Duration::ZERO,
            slow_ms: 0,
            early,
            behind: None,
        }
    }

    fn step(&mut self, journal: &Journal, disks: &Disks, now: Duration) {
        if self.behind.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.behind = None;
        }
        if let Some((due, changes)) = self.under_way {
            if now < due.max(self.frozen_until) {
                return;
            }
            self.under_way = None;
            journal.step(changes);
        }
        let waiting = journal.waiting();
        if waiting == 0 {
            return;
        }
        let due = now + self.latency();
        if self.early {
            let until = due.max(self.frozen_until);
            let before = self.behind.take().map_or_else(|| disks.as_of_now(), |(_, before)| before);
            self.behind = Some((until, before));
            journal.step(waiting);
            return;
        }
        if now >= due.max(self.frozen_until) {
            return journal.step(waiting);
        }
        self.under_way = Some((due, waiting));
    }

    fn latency(&mut self) -> Duration {
        let millis = match self.rng.random_range(0..100) {
            _ if self.slow_ms > 0 => self.rng.random_range(self.slow_ms / 4..=self.slow_ms),
            0..60 => 0,
            60..90 => 1,
            90..99 => self.rng.random_range(2..6),
            _ => self.rng.random_range(6..40),
        };
        Duration::from_millis(millis)
    }
}
