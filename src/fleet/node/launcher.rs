//! What starts and stops a member or a worker's proxy for a node: floor 8 does it, for listeners and wires are not ours.
//!
//! ```text
//!   node ── MemberPlan ──> Launcher ──> RunningMember { keyspace, state }
//!                                            state: Starting ─> Ready ─> Ended
//!                                                       └─────────┴──> Failed, Removed (still to be stopped)
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::keyspace::Keyspace;

/// One of those with whom a member begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialNode {
    /// The node's name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// What a member is started with. Its data and its certificates are where the state directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// The fleet's UUID: etcd's `--initial-cluster-token`.
    pub uid: String,
    /// The node's name.
    pub name: String,
    /// `host:port` of its API; client and peer URLs have its host.
    pub address: String,
    /// With whom it begins, itself included; empty if alone, or if it has begun before.
    pub members: Vec<InitialNode>,
    /// It joins members that run already.
    pub joins: bool,
}

/// What a worker's proxy is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerPlan {
    /// The node's name.
    pub name: String,
    /// `host:port` of its API; its client URL has its host.
    pub address: String,
    /// Client URLs of members, as far as they are known.
    pub endpoints: Vec<String>,
}

/// Starts what a node runs.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Starts a member. It may have no leader yet: [`RunningMember::state`] tells.
    async fn member(&self, plan: MemberPlan) -> Result<RunningMember, LaunchError>;

    /// Starts a worker's proxy, which serves at once.
    async fn worker(&self, plan: WorkerPlan) -> Result<RunningWorker, LaunchError>;
}

/// Nothing was started; what had been begun is undone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(pub String);

/// How a member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// There is no leader yet.
    Starting,
    /// Clients are served.
    Ready,
    /// It was removed from its cluster: it is to be stopped, and its data are of no use.
    Removed,
    /// It cannot go on, for this cause: it is to be stopped.
    Failed(String),
    /// It runs no more; the cause, if stopping did not go well.
    Ended(Option<String>),
}

/// How a member is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Leadership goes, clients are drained.
    InOrder,
    /// It was removed: nobody is waited for.
    Removed,
}

/// A member that was started. Dropping the last one stops it in order, without waiting.
#[derive(Clone)]
pub struct RunningMember {
    keyspace: Keyspace,
    state: watch::Receiver<MemberState>,
    stop: mpsc::Sender<Ending>,
}

/// A worker's proxy that was started. Dropping the last one stops it.
#[derive(Clone)]
pub struct RunningWorker {
    endpoints: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    ended: watch::Receiver<bool>,
    stop: mpsc::Sender<Ending>,
}

impl RunningMember {
    /// Put together by a [`Launcher`]: whatever runs the member publishes `state` and listens to `stop`.
    pub fn new(
        keyspace: Keyspace,
        state: watch::Receiver<MemberState>,
        stop: mpsc::Sender<Ending>,
    ) -> Self {
        RunningMember { keyspace, state, stop }
    }

    /// The member's own handle of its keyspace.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// How it does now.
    pub fn state(&self) -> MemberState {
        self.state.borrow().clone()
    }

    /// Waits until it does no longer what `still` describes, and says what it does then.
    pub async fn leaves(&self, still: impl Fn(&MemberState) -> bool) -> MemberState {
        let mut state = self.state.clone();
        match state.wait_for(|state| !still(state)).await {
            Ok(state) => state.clone(),
            Err(_gone) => MemberState::Ended(Some("its task is gone".to_owned())),
        }
    }

    /// Stops it and waits for that; the cause, if it did not go well.
    pub async fn stop(&self, how: Ending) -> Result<(), LaunchError> {
        // Full: somebody has asked before. Closed: it has ended.
        let _ = self.stop.try_send(how);
        match self.leaves(|state| !matches!(state, MemberState::Ended(_))).await {
            MemberState::Ended(Some(why)) => Err(LaunchError(why)),
            MemberState::Ended(None)
            | MemberState::Starting
            | MemberState::Ready
            | MemberState::Removed
            | MemberState::Failed(_) => Ok(()),
        }
    }
}

impl RunningWorker {
    /// Put together by a [`Launcher`]: whatever runs the proxy knows the `endpoints`, listens to `stop`, and tells once
    /// it has ended.
    pub fn new(
        endpoints: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
        ended: watch::Receiver<bool>,
        stop: mpsc::Sender<Ending>,
    ) -> Self {
        RunningWorker { endpoints, ended, stop }
    }

    /// Client URLs of the members, as far as they are known now.
    pub fn endpoints(&self) -> Vec<String> {
        (self.endpoints)()
    }

    /// Stops it and waits for that.
    pub async fn stop(&self) {
        let _ = self.stop.try_send(Ending::InOrder);
        // An error means that its task is gone, which is as good.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}
