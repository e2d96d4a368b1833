//! The hand that drives all runtimes: the world's (clients, network, nemesis) and one a member, a step at a time.
//!
//! ```text
//!   loop  world: a step of time passes       clients call, frames arrive, harm is ordered
//!         orders: processes start, end, stand still, go on
//!         members, in an order drawn from the seed: as much by their own clocks
//! ```
//!
//! A step is one millisecond, as fine as tokio's timers, or a few, by the seed. What one member sends is with another
//! one step later at the earliest; within a step a member's tasks take no time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::bug::Bug;
use super::fleet::{Down, End, Fleet, Order};
use super::machine::{Ended, Machine};
use super::net::Net;
use crate::life;

/// How finely time passes, in milliseconds.
const STEPS: [u64; 4] = [1, 2, 2, 4];

struct Engine {
    fleet: Arc<Fleet>,
    net: Arc<Net>,
    machines: BTreeMap<u64, Machine>,
    rng: StdRng,
    step: Duration,
    now: Duration,
}

/// Runs `world` to its end, and beside it whatever members the fleet is told to start.
pub fn run<T, F>(seed: u64, bug: Option<Bug>, world: impl FnOnce(Arc<Fleet>, Arc<Net>) -> F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    life::number_tasks_anew();
    let runtime = life::runtime(seed);
    let fleet = Fleet::new();
    let net = Net::new(seed.rotate_left(8), bug, &fleet, runtime.handle());
    let main = runtime.spawn(world(Arc::clone(&fleet), Arc::clone(&net)));
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(40));
    let step = Duration::from_millis(STEPS[rng.random_range(0..STEPS.len())]);
    let mut engine =
        Engine { fleet, net, machines: BTreeMap::new(), rng, step, now: Duration::ZERO };
    while !main.is_finished() {
        runtime.block_on(async { tokio::time::sleep(step).await });
        engine.now += step;
        engine.obey();
        engine.step();
    }
    // A member holds the network and the network holds the member: nothing of this run may outlive it.
    for id in engine.fleet.everyone() {
        engine.fleet.gone(id);
    }
    engine.machines.clear();
    match runtime.block_on(main) {
        Ok(outcome) => outcome,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}

impl Engine {
    fn obey(&mut self) {
        for order in self.fleet.take_orders() {
            match order {
                Order::Start { id, life, disks } => {
                    match Machine::start(&self.fleet, &self.net, id, life, disks) {
                        Ok(machine) => drop(self.machines.insert(id, machine)),
                        Err((error, disks)) => {
                            self.fleet.report(id, 0, format!("does not start: {error}"));
                            self.fleet.lay_down(id, Down { disks, durable: None });
                        }
                    }
                }
                Order::End { id, end } => self.end(id, end),
                Order::Still { id, still } => {
                    let Some(machine) = self.machines.get_mut(&id) else { continue };
                    match still {
                        true => machine.stand_still(),
                        false => machine.go_on(),
                    }
                    self.fleet.stands_still(id, still);
                }
            }
        }
    }

    fn end(&mut self, id: u64, end: End) {
        let Some(machine) = self.machines.remove(&id) else { return };
        let life = machine.life;
        let forgets = self.net.before_vote(id, life);
        let down = machine.end(end, &mut self.rng, forgets);
        self.net.ended(id, life, end);
        self.fleet.lay_down(id, down);
    }

    fn step(&mut self) {
        let everyone = self.fleet.everyone();
        let first = self.rng.random_range(0..everyone.len());
        for turn in 0..everyone.len() {
            let id = everyone[(first + turn) % everyone.len()];
            let Some(machine) = self.machines.get_mut(&id) else { continue };
            match machine.step(&self.fleet.hardware(id), self.now, self.step) {
                Ok(()) if machine.poisoned() => self.fleet.doom(id, machine.life),
                Ok(()) => {}
                Err(Ended::Power) => {
                    self.net.count("power cut at a sync");
                    self.fleet.gone(id);
                    self.end(id, End::Power);
                }
            }
        }
    }
}
