//! An agent: it sees who leads its cluster, stands for it, and leads when its turn comes.
//!
//! ```text
//!   observe: who is first in the line? ── another than before ──> "observing leader <id>"
//!   campaign ── won ──> "Became leader: <node>" ── lost ──> said why ──> campaign
//!       └── not answered, place lost: rest, again
//!   asked to stop ──> the lead, or the place in the line, is given up ──> Ended
//! ```
//!
//! **Invariant:** a store that is away ends nothing: the agent says so once, and tries until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::config::ClusterConfiguration;
use super::ledger::Ledger;
use crate::fleet::store::{Guard, Lost, StateStore, StoreError, WatchEvents, Watched};

/// The rest after something that failed.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(1);

/// Who leads is looked at so often at least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// An agent of one cluster.
#[derive(Debug)]
pub struct Agent {
    store: Arc<dyn StateStore>,
    election: String,
    node: String,
    ttl: Duration,
    ledger: Option<Ledger>,
}

/// Why an agent has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It may not campaign or look there, or the store was closed.
    #[error("the store refuses this agent: {0}")]
    Refused(StoreError),
}

impl Agent {
    /// `node` stands for the lead of the cluster that `config` describes, in `store`.
    pub fn new(store: Arc<dyn StateStore>, config: &ClusterConfiguration, node: &str) -> Agent {
        let (election, ttl) = (config.election(), config.lease_ttl);
        Agent { store, election, node: node.to_owned(), ttl, ledger: None }
    }

    /// The same, which writes down from when to when it leads.
    pub fn with_ledger(self, ledger: Ledger) -> Agent {
        Agent { ledger: Some(ledger), ..self }
    }

    /// Observes and campaigns until it is refused; does not return otherwise. Dropped, it leads and observes no more:
    /// closing the store then waits until the others know.
    pub async fn run(&self) -> Ended {
        tokio::select! {
            refused = self.campaign() => refused,
            refused = self.observe() => refused,
        }
    }

    async fn campaign(&self) -> Ended {
        let mut trouble = Trouble::default();
        loop {
            match self.store.campaign(&self.election, &self.node, self.ttl).await {
                Ok(guard) => {
                    trouble = Trouble::default();
                    self.lead(&guard).await;
                }
                // Another place is asked for at once: the time that was lost has been waited already.
                Err(StoreError::Lost(why)) => {
                    tracing::warn!(%why, "lost the place in the election")
                }
                Err(why) if may_pass(&why) => trouble.rest("campaigning", &why).await,
                Err(why) => return Ended::Refused(why),
            }
        }
    }

    async fn lead(&self, guard: &Guard) {
        let (node, revision) = (&self.node, guard.revision());
        tracing::info!(election = self.election, revision, "Became leader: {node}");
        let why = match &self.ledger {
            Some(ledger) => ledger.keep(&*self.store, guard).await,
            None => guard.until_lost().await,
        };
        if why != Lost::Closed {
            tracing::warn!(election = self.election, %why, "Lost leadership: {node}");
        }
    }

    async fn observe(&self) -> Ended {
        let (mut trouble, mut known) = (Trouble::default(), None);
        loop {
            match self.look(&mut known).await {
                Ok(()) => trouble = Trouble::default(),
                Err(why) if may_pass(&why) => trouble.rest("observing", &why).await,
                Err(why) => return Ended::Refused(why),
            }
        }
    }

    /// Says who leads, as often as it is another one; returns when the watch may have to be made anew.
    async fn look(&self, known: &mut Option<String>) -> Result<(), StoreError> {
        let line = format!("{}/", self.election);
        let mut events = self.store.watch(Watched::Prefix(line.as_bytes()), 0).await?;
        loop {
            let leader = self.store.get_leader(&self.election).await?;
            if leader != *known {
                self.tell(leader.as_deref());
                *known = leader;
            }
            if !changed(&mut events).await? {
                return Ok(());
            }
        }
    }

    fn tell(&self, leader: Option<&str>) {
        let election = &self.election;
        match leader {
            Some(leader) if leader == self.node => {}
            Some(leader) => tracing::info!(election, "observing leader {leader}"),
            None => tracing::info!(election, "observing no leader"),
        }
    }
}

/// Whether something happened in the line, or it is only time to look again.
async fn changed(events: &mut WatchEvents) -> Result<bool, StoreError> {
    match timeout(LOOK_AGAIN, events.next()).await {
        Ok(Some(event)) => event.map(|_| true),
        Ok(None) => Ok(false),
        Err(_elapsed) => Ok(true),
    }
}

/// Whether it is worth another try: a store that is full may have room again, a watch that fell too far behind is made
/// anew like one that broke. Who may not campaign here will not be told otherwise.
fn may_pass(why: &StoreError) -> bool {
    match why {
        StoreError::Denied(_) | StoreError::Closed => false,
        StoreError::NotFound
        | StoreError::LeaseGone
        | StoreError::Compacted { .. }
        | StoreError::Refused(_)
        | StoreError::Unavailable(_)
        | StoreError::Lost(_) => true,
    }
}

/// What fails again and again is said once, and rested from longer and longer.
#[derive(Default)]
struct Trouble {
    rested: Option<Duration>,
}

impl Trouble {
    async fn rest(&mut self, doing: &str, error: &StoreError) {
        match self.rested {
            None => tracing::warn!(%error, "{doing} failed; trying again"),
            Some(_) => tracing::debug!(%error, "{doing} failed; trying again"),
        }
        let rest = self.rested.map_or(REST_MIN, |rested| (rested * 2).min(REST_MAX));
        self.rested = Some(rest);
        sleep(rest).await;
    }
}
