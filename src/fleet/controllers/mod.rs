//! Deciders: what has to be done about the fleet is done by one node at a time, whoever was elected.
//!
//! ```text
//!   raft's leader ── campaigns at once ────────────────┐
//!   the others    ── when nobody leads for TTL/3 ──────┴─> Guard ─> look ─> plan ─> act ─> wait ─┐
//!                                                            │        ^                            │
//!                         lost, or raft's leader waits ──────┘        └── members changed, a while ┘
//! ```
//!
//! Raft's leader is preferred because it alone knows how the others do. Each round looks at everything anew
//! (level-triggered): nothing depends on having seen a change.
//!
//! **Invariant:** every write of the registry carries the fence of the lead that it was decided under.
//! **Invariant:** a step that fails is not tried again at once; the others go on.

mod act;
mod authority;
mod lead;
mod observe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::instrument::WithSubscriber as _;

pub use self::act::Outcome;
pub(in crate::fleet) use self::authority::asked;
pub use self::lead::Lead;
use super::plan::{Decision, Planner, Step};
use super::seal::FleetKey;
use super::store::{Guard, StateStore, StoreError};
use crate::keyspace::{Keyspace, KeyspaceError};

/// What deciders campaign for; the key of whoever leads stands below it.
pub const ELECTION: &str = "/k8sd/leader";

/// How patient deciders are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long a decider that is not heard of keeps the others waiting, in whole seconds.
    pub ttl: Duration,
    /// Between two looks while something is under way.
    pub busy: Duration,
    /// Between two looks otherwise.
    pub idle: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            ttl: Duration::from_secs(10),
            busy: Duration::from_secs(1),
            idle: Duration::from_secs(5),
        }
    }
}

/// The rest after a step that failed, the first time; it doubles up to the longest.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// How long giving the lead up may take when stopping.
const RESIGN_WITHIN: Duration = Duration::from_millis(500);

/// The deciders of one node: they stand for the election, and decide while they lead.
#[derive(Debug)]
pub struct Controllers {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Controllers {
    /// Starts them. `keyspace` is the member's own handle, `store` one that writes as the fleet does
    /// ([`Store::of_the_fleet`](super::store::Store::of_the_fleet)), `name` the node's, `key` the fleet's. As long as there is no fleet they
    /// do nothing.
    pub fn start(
        keyspace: Keyspace,
        store: Arc<dyn StateStore>,
        name: &str,
        key: Option<Arc<FleetKey>>,
        timers: Timers,
    ) -> Controllers {
        let (stop, stopped) = watch::channel(false);
        let mut decider = Decider { keyspace, store, name: name.to_owned(), key, timers, stopped };
        let run = async move { decider.run().await };
        Controllers { stop, task: tokio::spawn(run.with_current_subscriber()) }
    }

    /// Ends them, the lead given up so that another one has it at once.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(why) = self.task.await {
            tracing::error!(%why, "the deciders did not end in order");
        }
    }
}

struct Decider {
    keyspace: Keyspace,
    store: Arc<dyn StateStore>,
    name: String,
    key: Option<Arc<FleetKey>>,
    timers: Timers,
    stopped: watch::Receiver<bool>,
}

/// Why a round was the last one.
#[derive(Debug)]
enum Over {
    Lost(String),
    /// Raft's leader stands in the line.
    Yields,
}

impl Decider {
    async fn run(&mut self) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.lead_again_and_again() => {}
        }
        // A campaign that is dropped gives its place up by itself; a lead is given up here, and waited for.
        match timeout(RESIGN_WITHIN, self.store.resign(ELECTION)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(error = %why, "the lead was not given up"),
            Err(_elapsed) => tracing::debug!("the lead was not given up in time"),
        }
    }

    /// Never returns unless the keyspace has ended.
    async fn lead_again_and_again(&self) {
        loop {
            match self.win().await {
                Ok(guard) => {
                    tracing::info!(
                        node = self.name,
                        fence = guard.revision(),
                        "deciding for the fleet"
                    );
                    match self.decide(&guard).await {
                        Over::Lost(why) => tracing::info!(why, "deciding for the fleet no more"),
                        Over::Yields => {
                            tracing::info!("deciding is left to the leader");
                            if let Err(why) = guard.resign().await {
                                tracing::debug!(error = %why, "the lead was not given up");
                            }
                        }
                    }
                }
                Err(StoreError::Closed) => return,
                Err(why) => {
                    tracing::debug!(error = %why, "no place among the deciders");
                    sleep(self.timers.busy).await;
                }
            }
        }
    }

    /// Waits until it is this node's turn to campaign, and until it has won. One that loses raft's lead while it stands
    /// in the line leaves it.
    async fn win(&self) -> Result<Guard, StoreError> {
        loop {
            self.turn().await?;
            let led = self.keyspace.leads();
            let campaign = self.store.campaign(ELECTION, &self.name, self.timers.ttl);
            tokio::select! {
                won = campaign => return won,
                () = self.leads_no_more(), if led => {}
            }
        }
    }

    /// Returns when there is a fleet, and this member leads, or nobody has decided for a while.
    async fn turn(&self) -> Result<(), StoreError> {
        let mut leader = self.keyspace.leader_changes();
        loop {
            leader.mark_unchanged();
            let is_fleet = self.keyspace.fleet_now(|fleet| fleet.record().is_some());
            if is_fleet && self.keyspace.leads() {
                return Ok(());
            }
            let waited = timeout(self.timers.ttl / 3, leader.changed()).await;
            match waited {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => return Err(StoreError::Closed),
                Err(_elapsed) if is_fleet => {
                    if self.store.get_leader(ELECTION).await?.is_none() {
                        return Ok(());
                    }
                }
                Err(_elapsed) => {}
            }
        }
    }

    async fn leads_no_more(&self) {
        let mut leader = self.keyspace.leader_changes();
        loop {
            leader.mark_unchanged();
            if !self.keyspace.leads() || leader.changed().await.is_err() {
                return;
            }
        }
    }

    fn view(&self) -> View<'_> {
        View { keyspace: &self.keyspace, key: self.key.as_deref() }
    }

    /// Round after round, for as long as the lead is held.
    async fn decide(&self, guard: &Guard) -> Over {
        let began = Instant::now();
        let mut planner = Planner::default();
        let mut rests = Rests::default();
        let mut roster = self.keyspace.roster();
        loop {
            roster.mark_unchanged();
            if let Some(why) = guard.lost() {
                return Over::Lost(why.to_string());
            }
            let round = round(self.view(), guard, &mut planner, &mut rests, began.elapsed());
            let is_busy = tokio::select! {
                why = guard.until_lost() => return Over::Lost(why.to_string()),
                worked = round => match worked {
                    Ok(Round::Deposed) => return Over::Lost("another one was elected".to_owned()),
                    Ok(Round::Quiet) => planner.is_waiting(),
                    Ok(Round::Worked) => true,
                    Err(why) => {
                        tracing::debug!(error = %why, "the fleet could not be looked at");
                        true
                    }
                },
            };
            if !self.keyspace.leads() && self.is_wanted_by_another().await {
                return Over::Yields;
            }
            let pause = if is_busy { self.timers.busy } else { self.timers.idle };
            tokio::select! {
                why = guard.until_lost() => return Over::Lost(why.to_string()),
                _ = timeout(pause, roster.changed()) => {}
            }
        }
    }

    /// Raft's leader stands in the line: nobody else would while somebody leads.
    async fn is_wanted_by_another(&self) -> bool {
        let line = format!("{ELECTION}/");
        self.store.list(line.as_bytes()).await.is_ok_and(|line| line.len() > 1)
    }
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// There was nothing to do.
    Quiet,
    /// There was something.
    Worked,
    /// Whoever decides is not elected any more.
    Deposed,
}

/// What a decider looks at and acts on.
#[derive(Clone, Copy)]
struct View<'a> {
    keyspace: &'a Keyspace,
    /// The fleet's; without it authorities are left alone.
    key: Option<&'a FleetKey>,
}

/// One look, one plan, and its steps one after the other. `now` is any clock that only goes forward.
async fn round(
    view: View<'_>,
    lead: &dyn Lead,
    planner: &mut Planner,
    rests: &mut Rests,
    now: Duration,
) -> Result<Round, KeyspaceError> {
    let Some(look) = observe::look(view).await? else {
        return Ok(Round::Quiet);
    };
    let planned = planner.plan(&look.seen, now);
    rests.keep(&planned);
    let round = if planned.is_empty() { Round::Quiet } else { Round::Worked };
    for Decision { step, reason } in planned {
        if rests.rests(&step, now) {
            continue;
        }
        let id = step.id().map_or_else(String::new, |id| id.to_string());
        let fence = lead.fence().create_revision;
        match act::act(view, lead, &look, &step).await {
            Outcome::Done => {
                tracing::info!(?step, node = id, %reason, fence, "the fleet was put in order");
                rests.done(&step);
            }
            Outcome::Moot(why) => {
                tracing::debug!(?step, node = id, %reason, why, "a step was not to be done");
                rests.failed(step, now);
            }
            Outcome::Failed(why) => {
                tracing::warn!(?step, node = id, %reason, why, "a step failed; it is tried again");
                rests.failed(step, now);
            }
            Outcome::Deposed => return Ok(Round::Deposed),
        }
    }
    Ok(round)
}

/// Steps that are not to be tried again before a while, and how long the next while is.
#[derive(Debug, Default)]
struct Rests(BTreeMap<Step, (Duration, Duration)>);

impl Rests {
    fn rests(&self, step: &Step, now: Duration) -> bool {
        self.0.get(step).is_some_and(|(until, _)| now < *until)
    }

    fn failed(&mut self, step: Step, now: Duration) {
        let rest = self.0.get(&step).map_or(REST, |(_, rest)| (*rest * 2).min(REST_MAX));
        self.0.insert(step, (now + rest, rest));
    }

    fn done(&mut self, step: &Step) {
        self.0.remove(step);
    }

    /// Forgets those that are not planned any more.
    fn keep(&mut self, planned: &[Decision]) {
        self.0.retain(|step, _| planned.iter().any(|decision| decision.step == *step));
    }
}

#[cfg(test)]
#[path = "controllers_test.rs"]
mod tests;
