//! The `/1.0/` API of a managed node: bootstrap, join, tokens, config, certificates, and what goes on.
//!
//! ```text
//!   unix socket ─┐                      ┌─ rows: cluster, config, certificates, auth, capi ──> dyn Management
//!   TLS port    ─┴─ serve ── router ────┼─ own: server, operations, events, audit, health
//!                     │ 404, 405 in the └─ internal: join, leave, trust, renew (between nodes)
//!                     │ envelope
//!                     └ rule: phase, who asks, body, audit ──> handler ──> envelope
//! ```
//!
//! Paths, codes and bodies are k8sd's (canonical/k8s-snap, `pkg/k8sd/api`), in LXD's envelope.
//!
//! **Invariant:** handlers decode and encode; every rule of the fleet is behind `Management`.
//! **Invariant:** a secret never goes into a log line, an event or the audit log.

mod ask;
mod body;
mod caller;
mod codes;
mod envelope;
mod openapi;
mod operations;
mod repeats;
mod rows;
mod rule;
mod unread;

#[cfg(test)]
mod double;
#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod wire_test;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tower_service::Service as _;

use self::caller::Door;
use self::operations::Operations;
use self::repeats::Repeats;
use self::unread::Taken;
use super::gateway::Afterwards;
use super::serve::{ConnectionLimits, Counter, Entrance, Tasks, Traffic, serve};
use crate::fleet::management::Management;
use crate::support::listen::{ListenError, Listener, SocketOptions, bind};
use crate::support::shutdown::Draining;
use crate::support::urls::parse_list;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// The rows, which are the same for every node, and the document of them.
struct Table {
    router: Router<Api>,
    document: String,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let (router, document) = rows::all();
    let document = document.to_pretty_json().expect("the document is plain JSON");
    Table { router, document: document + "\n" }
});

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    node: Arc<dyn Management>,
    operations: Operations,
    repeats: Repeats,
    draining: Draining,
}

impl Api {
    fn node(&self) -> &dyn Management {
        &*self.0.node
    }

    fn operations(&self) -> &Operations {
        &self.0.operations
    }

    fn repeats(&self) -> &Repeats {
        &self.0.repeats
    }

    fn draining(&self) -> Draining {
        self.0.draining.clone()
    }
}

/// Everything that answers for one node. Cheap to clone.
#[derive(Clone)]
pub struct ManagementDesk {
    router: Router,
}

impl ManagementDesk {
    /// Sets up the API of `node`. Streams of events end when `draining` begins.
    ///
    /// The desk and every call under way hold `draining`, also those whose clients have left: with the desk dropped,
    /// `Drain::finished` waits for the last of them.
    pub fn new(node: Arc<dyn Management>, draining: Draining) -> Self {
        let api = Api(Arc::new(Inner {
            operations: Operations::new(node.events().clone()),
            repeats: Repeats::default(),
            node,
            draining,
        }));
        ManagementDesk { router: TABLE.router.clone().with_state(api) }
    }
}

/// The OpenAPI document of `/1.0/`, as JSON.
pub fn openapi() -> &'static str {
    &TABLE.document
}

/// Binds the API's unix socket, 0600. A socket file that nobody answers on is replaced, a live one is refused.
///
/// The folder should be closed to others, as a state directory is: the file has its rights only after it is there.
pub fn bind_socket(path: &Path) -> Result<Listener, ManagementBindError> {
    let url = format!("unix://{}", path.display());
    let mut urls = parse_list(&url).map_err(|why| ManagementBindError::Path(why.to_string()))?;
    let listener = bind(&urls.remove(0), SocketOptions::default())?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|why| ManagementBindError::Path(format!("{}: {why}", path.display())))?;
    Ok(listener)
}

/// The unix socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ManagementBindError {
    /// Its path is none, or its rights cannot be set.
    #[error("{0}")]
    Path(String),
    /// It is in use, or cannot be made.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Serves the API on one listener until draining begins; calls that are open may then go on for `drain`.
///
/// Who comes by a unix socket is trusted. Elsewhere trust comes from certificates alone, so that without TLS nobody has
/// it. Give `entrance` [`Traffic::Management`].
pub async fn serve_management(
    entrance: Entrance,
    desk: &ManagementDesk,
    drain: Duration,
    tasks: Tasks,
    draining: Draining,
) {
    debug_assert_eq!(entrance.traffic, Traffic::Management);
    let door = match entrance.listener {
        Listener::Unix(..) => Door::Socket,
        Listener::Tcp(_) => Door::Port,
    };
    let limits = ConnectionLimits {
        streams_max: STREAMS_MAX,
        ping_interval: None,
        ping_timeout: Duration::ZERO,
        drain,
    };
    let counter = At { router: desk.router.clone(), door };
    serve(entrance, counter, limits, tasks, draining).await;
}

/// The desk, as one listener sees it.
#[derive(Clone)]
struct At {
    router: Router,
    door: Door,
}

impl Counter for At {
    async fn answer(
        &self,
        _: Traffic,
        request: Request<Incoming>,
        _: &Afterwards,
    ) -> Response<Body> {
        let mut request = Taken::of(request).map(axum::body::Body::new);
        request.extensions_mut().insert(self.door);
        let Ok(answer) = self.router.clone().call(request).await;
        answer.map(Body::new)
    }
}
