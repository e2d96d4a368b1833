//! Watches: those of all clients on as few at the members as can be (etcd `server/proxy/grpcproxy/watch*.go`).
//!
//! ```text
//!   client's stream ── session ── watch ──> board of its subject ── feed ──> member
//!                         ^                  (same range, same options,        │
//!                         └── outbox <────── same token) <─────────────────────┘
//! ```
//!
//! **Invariant:** a watch tells every event once, in order, from the revision that its client was told; however often
//! connections to members break, and whatever it shares with others.

mod board;
mod feed;
mod outbox;
mod session;
mod subject;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};
use tracing::instrument::WithSubscriber as _;

use self::board::{Begun, Board};
use self::feed::Feeding;
use self::outbox::Outbox;
use self::subject::Subject;
use super::caller::Caller;
use super::figures::Figures;
use super::namespace::Namespace;
use crate::service::pb::etcdserverpb::watch_server::Watch;
use crate::service::upstream::Upstream;

/// Every watch that goes through the proxy. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hub(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    names: Namespace,
    figures: Figures,
    boards: Mutex<HashMap<Subject, Arc<Board>>>,
    feeds: Mutex<JoinSet<()>>,
}

/// The id that a client wanted for a watch is that of another one.
struct Taken;

impl Hub {
    pub(super) fn new(upstream: Upstream, names: Namespace, figures: Figures) -> Hub {
        let (boards, feeds) = (Mutex::default(), Mutex::default());
        Hub(Arc::new(Inner { upstream, names, figures, boards, feeds }))
    }

    fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    fn names(&self) -> &Namespace {
        &self.0.names
    }

    /// Makes a watch of the client behind `outbox`.
    fn open(
        &self,
        create: &WatchCreateRequest,
        caller: Caller,
        outbox: &Arc<Outbox>,
    ) -> Result<(), Taken> {
        let subject = Subject::new(&self.0.names, create, caller);
        let mut boards = self.0.boards.lock();
        let fresh = || Board::new(subject.clone(), self.0.figures.clone());
        let board = Arc::clone(boards.entry(subject.clone()).or_insert_with(fresh));
        let Some(id) = outbox.claim(create.watch_id, &board) else {
            drop(boards);
            self.sweep(&board);
            return Err(Taken);
        };
        let begun = board.open(outbox, id, create.start_revision, create.progress_notify);
        drop(boards);
        self.feed(&board, begun);
        Ok(())
    }

    /// Runs a feed.
    fn feed(&self, board: &Arc<Board>, begun: Begun) {
        let feeding = Feeding { hub: self.clone(), board: Arc::clone(board), begun };
        let feeds = &mut *self.0.feeds.lock();
        while feeds.try_join_next().is_some() {}
        feeds.spawn(feeding.run().with_current_subscriber());
    }

    /// Takes a board away that has no feeds.
    fn sweep(&self, board: &Arc<Board>) {
        let mut boards = self.0.boards.lock();
        if board.is_empty() && boards.get(&board.subject).is_some_and(|b| Arc::ptr_eq(b, board)) {
            boards.remove(&board.subject);
        }
    }

    /// Ends every feed.
    pub(super) async fn close(&self) {
        let mut feeds = std::mem::take(&mut *self.0.feeds.lock());
        feeds.shutdown().await;
    }
}

/// Responses of one stream.
pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Hub {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = Caller::of(request.metadata());
        let session = session::Session::new(self.clone(), caller, request.into_inner());
        Ok(Response::new(session.responses()))
    }
}
