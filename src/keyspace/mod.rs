//! Floor 4, serve a keyspace: the calls of etcd's API, over one raft group and one store.
//!
//! ```text
//!   put, txn, ..  --> write: packs what waits --> consensus --> journal
//!                                                     |
//!                                                  sink: apply, commit, publish --> answers the waiters
//!   range, ..     --> read: read index, wait until applied, select, fetch
//!   watch, lease      fed by the sink
//!   auth              who asks, and what they may: every client's handle carries it
//!   upkeep            compaction, hashes, alarms            members   who they are
//!   fleet             the records of the floor above
//!   install           the state of another member in the place of this one's
//!   open              starts all of this in order, and stops it in order
//! ```
//!
//! **Invariant:** only what has been committed and applied here answers a client or feeds a watcher.
//! **Invariant:** tonic and TLS are unknown on this floor; headers carry `revision`, the service adds the rest
//! from [`Keyspace::header`].

mod apply_figures;
pub mod auth;
mod calls;
pub mod config;
mod error;
mod figures;
mod fleet;
mod install;
mod leadership;
pub mod lease;
pub mod members;
mod open;
mod peers;
mod read;
mod seat;
mod sink;
mod state;
mod status;
mod upkeep;
pub mod watch;
mod write;

#[cfg(test)]
pub(crate) mod cluster_test;
#[cfg(test)]
pub(crate) mod fleet_test;
#[cfg(test)]
mod install_test;
#[cfg(test)]
pub(crate) mod keyspace_test;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb as pb;
use rand::rngs::StdRng;
use tokio::sync::watch as channel;

use self::auth::{Asker, Authority};
use self::install::Builder;
use self::lease::Lessor;
use self::members::Roll;
use self::open::Tasks;
use self::read::Reader;
use self::state::State;
use self::upkeep::{HashDesk, Sweeper};
use self::watch::WatchHub;
use self::write::Writer;
use crate::consensus::Consensus;
use crate::support::clock::Clock;

pub use apply_figures::ApplyFigures;
pub use config::{AutoCompaction, InitialMember, KeyspaceConfig, Seams, SweepPace};
pub use error::{KeyspaceError, MemberRefusal, TimeoutKind};
pub use figures::KeyspaceFigures;
pub use open::OpenError;
pub use status::StatusFacts;
pub use write::{ProposalCounts, request_bytes_max};

/// The answers of one `RangeStream`: `kvs` in every chunk, header, `more` and `count` in the last alone.
pub type RangeChunks =
    Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, KeyspaceError>> + Send>>;

/// One running keyspace, in the hands of this member or of one of its clients ([`auth::Gate`]). Cheap to clone;
/// [`Keyspace::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Keyspace(Arc<Inner>, Asker);

struct Inner {
    config: KeyspaceConfig,
    state: Arc<State>,
    consensus: Consensus,
    writer: Arc<Writer>,
    reader: Arc<Reader>,
    hub: WatchHub,
    lessor: Lessor,
    authority: Arc<Authority>,
    sweeper: Arc<Sweeper>,
    apply_figures: Arc<ApplyFigures>,
    figures: Arc<KeyspaceFigures>,
    hash_desk: Arc<HashDesk>,
    builder: Arc<Builder>,
    roll: Arc<Roll>,
    clock: Arc<dyn Clock>,
    /// For lease ids that the client leaves to the server.
    random: Mutex<StdRng>,
    /// Why the keyspace works no more, once it does not.
    failed: channel::Sender<Option<String>>,
    tasks: Tasks,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyspace({})", self.0.config.group)
    }
}
