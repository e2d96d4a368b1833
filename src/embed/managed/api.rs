//! The listeners of a node's API: its unix socket all the time, its TLS port by the certificates of the moment.
//!
//! ```text
//!   <state-dir>/api.sock (0600) ────────────────────────────────────────────┐
//!   port, TLS:  part of no fleet: a certificate of its own, for a while ────┼──> desk ──> node
//!               part of one: the fleet's `member-api`, clients known by theirs ─┘
//! ```
//!
//! When the node comes into a fleet or leaves it the port is bound anew: who connects in between is refused for a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::instrument::WithSubscriber as _;

use super::listen_url;
use crate::fleet::management::{Management as _, Phase};
use crate::fleet::node::{Node, NodeSettings};
use crate::fleet::pki::{CertificateName, Folder};
use crate::service::management::{ManagementDesk, bind_socket, serve_management};
use crate::service::serve::{Entrance, Security, Tasks, Traffic};
use crate::support::aside::Aside;
use crate::support::listen::{Listener, SocketOptions, bind, words};
use crate::support::shutdown::{Drain, Draining};
use crate::support::tls::{Endpoint, Protocol, Side, self_signed};

/// How long calls that are open may go on when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long those of the port may when its certificates change.
const CHANGE: Duration = Duration::from_millis(500);

/// Between two tries to bind the port anew.
const AGAIN: Duration = Duration::from_millis(100);

/// How long the certificate of a node that is part of no fleet is valid, in years.
const TEMPORARY_YEARS: u64 = 1;

/// Serves the API until it is drained.
pub(super) struct Doors {
    desk: ManagementDesk,
    drain: Drain,
    loops: JoinSet<()>,
}

impl Doors {
    /// Binds both; then everything is served.
    pub(super) fn open(node: &Node) -> Result<Doors, String> {
        let drain = Drain::default();
        let draining = || drain.join().expect("the drain has just been made");
        let desk = ManagementDesk::new(Arc::new(node.clone()), draining());
        let socket = node.settings().state_dir.join("api.sock");
        let socket = bind_socket(&socket).map_err(|why| why.to_string())?;
        tracing::info!(address = %socket, "serving the API on this machine");
        let tasks = Tasks::new(Some(tracing::dispatcher::get_default(Clone::clone)));
        let port = Port {
            node: node.clone(),
            desk: desk.clone(),
            tasks: tasks.clone(),
            aside: Arc::new(Aside::start("api-tls").map_err(|why| words(&why))?),
        };
        let first = port.bind()?;
        let mut loops = JoinSet::new();
        let entrance =
            Entrance { listener: socket, traffic: Traffic::Management, security: Security::Plain };
        let (local, ended) = (desk.clone(), draining());
        let serve = async move { serve_management(entrance, &local, DRAIN, tasks, ended).await };
        loops.spawn(serve.with_current_subscriber());
        loops.spawn(port.serve(first, draining()).with_current_subscriber());
        Ok(Doors { desk, drain, loops })
    }

    /// Takes nobody more, and waits for the calls that are under way, also those whose clients have left.
    pub(super) async fn close(self) {
        let Doors { desk, mut drain, mut loops } = self;
        drain.start();
        while let Some(ended) = loops.join_next().await {
            if let Err(why) = ended {
                tracing::error!(error = %why, "a listener's task failed");
            }
        }
        // Calls hold the desk's handle of the drain as long as they are under way.
        drop(desk);
        if !drain.finished(DRAIN).await {
            tracing::warn!("calls of the API that change something are cut off");
        }
    }
}

/// The TLS port.
struct Port {
    node: Node,
    desk: ManagementDesk,
    tasks: Tasks,
    aside: Arc<Aside>,
}

/// Whose certificate the port shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Temporary,
    Fleet,
}

fn shown(phase: Phase) -> Shown {
    match phase {
        Phase::ControlPlane | Phase::Worker => Shown::Fleet,
        Phase::Uninitialized
        | Phase::Bootstrapping
        | Phase::Joining
        | Phase::Resetting
        | Phase::Removed
        | Phase::Stopping => Shown::Temporary,
    }
}

/// The port as it is bound now.
struct Bound {
    shown: Shown,
    listener: Listener,
    security: Security,
}

impl Port {
    fn bind(&self) -> Result<Bound, String> {
        let settings = self.node.settings();
        let shown = shown(self.node.phase());
        let security = Security::Tls(self.acceptor(settings, shown)?);
        let url = listen_url(settings, settings.api_port).map_err(|why| why.to_string())?;
        let listener = bind(&url, SocketOptions::default()).map_err(|why| why.to_string())?;
        tracing::info!(address = %listener, certificate = ?shown, "serving the API over TLS");
        Ok(Bound { shown, listener, security })
    }

    fn acceptor(
        &self,
        settings: &NodeSettings,
        shown: Shown,
    ) -> Result<crate::support::tls::Acceptor, String> {
        let tls = match shown {
            Shown::Fleet => {
                let folder = Folder::open(&settings.state_dir.join("pki"));
                let folder = folder.map_err(|why| why.to_string())?;
                let mut tls = folder.tls(CertificateName::MemberApi, CertificateName::Client);
                // A node that joins has no certificate yet; what it may ask for, its token decides.
                tls.admits_anonymous = true;
                tls
            }
            Shown::Temporary => {
                let url = listen_url(settings, settings.api_port).map_err(|why| why.to_string())?;
                self_signed(&settings.state_dir.join("temporary"), &[url], TEMPORARY_YEARS)?
            }
        };
        let side = Side::open(&tls, Protocol::default(), Some(Arc::clone(&self.aside)))?;
        side.acceptor(Endpoint::Client).ok_or_else(|| "there is no certificate to show".to_owned())
    }

    async fn serve(self, first: Bound, mut draining: Draining) {
        let mut bound = Some(first);
        while !draining.has_started() {
            let Some(Bound { shown: now, listener, security }) = bound.take() else {
                match self.bind() {
                    Ok(again) => bound = Some(again),
                    Err(why) => {
                        tracing::warn!(error = why, "the API's port is not bound yet");
                        tokio::select! {
                            () = sleep(AGAIN) => {}
                            () = draining.started() => {}
                        }
                    }
                }
                continue;
            };
            let mut drain = Drain::default();
            let until = drain.join().expect("the drain has just been made");
            let entrance = Entrance { listener, traffic: Traffic::Management, security };
            let limit = if self.node.phase() == Phase::Stopping { DRAIN } else { CHANGE };
            let serving = serve_management(entrance, &self.desk, limit, self.tasks.clone(), until);
            tokio::pin!(serving);
            tokio::select! {
                () = &mut serving => {}
                () = self.other_than(now) => {}
                () = draining.started() => {}
            }
            drain.start();
            serving.await;
        }
    }

    /// Returns once another certificate is to be shown.
    async fn other_than(&self, now: Shown) {
        loop {
            // Asked for before it is compared, so that no change is missed.
            let changed = self.node.phases();
            let phase = self.node.phase();
            // A node that is being reset is to be seen as such by the others, until it is nothing of theirs.
            let stays = matches!(phase, Phase::Stopping | Phase::Resetting);
            if shown(phase) != now && !stays {
                return;
            }
            changed.await;
        }
    }
}
