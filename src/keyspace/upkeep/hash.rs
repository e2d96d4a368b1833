//! HashKV: which revisions count is found in the index, in slices; then history is read and hashed elsewhere.

use std::sync::Arc;

use quorate_core::api::ids::Revision;
use quorate_core::api::refusal::Corrupt;
use quorate_core::api::view::View;
use quorate_core::state_machine::{HashKv, HashScope, KvHash};
use tokio::time::Instant;

use super::Sweeper;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::figures::KeyspaceFigures;
use crate::keyspace::state::State;

/// Keys looked at under the machine's lock at once.
const SLICE_KEYS: usize = 4096;
/// History read at once, in bytes.
const SLICE_BYTES: usize = 1 << 20;

/// Where hashes come from: finished compactions left theirs, others are computed.
#[derive(Clone)]
pub(crate) struct Hashes {
    pub(crate) state: Arc<State>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) figures: Arc<KeyspaceFigures>,
}

impl Hashes {
    /// The hash at `revision`, 0 for the newest, and the revision that was the newest then.
    pub(crate) async fn at(&self, revision: i64) -> Result<(KvHash, i64), KeyspaceError> {
        let current = self.state.machine.read().revision();
        if let Some(hash) = self.sweeper.cached_hash(revision) {
            return Ok((hash, current));
        }
        let began = Instant::now();
        let hash = hash_kv(&self.state, revision).await?;
        self.figures.hash_at_revision.observe(began.elapsed().as_secs_f64());
        Ok((hash, current.max(hash.revision)))
    }
}

/// The hash at `revision`, 0 or less for the newest.
pub(crate) async fn hash_kv(state: &Arc<State>, revision: i64) -> Result<KvHash, KeyspaceError> {
    loop {
        let (scope, generation) = {
            let now = state.machine.read();
            (now.hash_begin(revision)?, now.number())
        };
        if let Some(hash) = hash(state, scope, generation).await? {
            return Ok(hash);
        }
    }
}

/// Hashes what `scope` says, which was begun in `generation`. It pins what it reads. `None`: an install has replaced
/// the index before all of it was seen.
pub(crate) async fn hash(
    state: &Arc<State>,
    mut scope: HashScope,
    generation: u64,
) -> Result<Option<KvHash>, Corrupt> {
    let view = loop {
        {
            let now = state.machine.read();
            if now.number() != generation {
                return Ok(None);
            }
            if now.hash_step(&mut scope, SLICE_KEYS) {
                break now.view();
            }
        }
        tokio::task::yield_now().await;
    };
    let mut hash = scope.into_hash();
    let mut from = Revision::default();
    loop {
        let view = view.clone();
        let slice = move || feed(hash, from, &view);
        let (fed, next) = state.blocking.run(slice).await?;
        hash = fed;
        match next {
            Some(next) => from = next,
            None => return Ok(Some(hash.finish())),
        }
    }
}

/// Feeds one slice of history; where to go on, if there is more that counts.
fn feed(
    mut hash: HashKv,
    from: Revision,
    view: &impl View,
) -> Result<(HashKv, Option<Revision>), Corrupt> {
    let records = view.scan(from, SLICE_BYTES)?;
    for record in &records {
        if !hash.feed(record) {
            return Ok((hash, None));
        }
    }
    let next = records.last().map(|last| Revision::new(last.revision.main + 1, 0));
    Ok((hash, next))
}
