//! Reading what was committed: the tail first, then the state store.
//!
//! ```text
//!   key_value(r) ── in the tail? ──yes──▶ its record
//!                       └─no──▶ block cache ──miss──▶ engine: headers + values ──▶ hash checked ──▶ KeyValue
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::Revision;
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::refusal::Corrupt;
use quorate_core::api::view::View;

use super::engine_sled::guarded_engine;
use super::error::StoreError;
use super::history::Block;
use super::key_space::{headers_key, headers_key_revision};
use super::shared::{Shared, read_values};
use super::tail::Budget;

/// Committed history of one keyspace: sees everything [`super::Store::commit`] took. Cheap to clone, and any number
/// may read at once.
#[derive(Clone, Debug)]
pub struct StoreView {
    pub(crate) shared: Arc<Shared>,
}

impl View for StoreView {
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        {
            let tail = self.shared.tail.read();
            if revision.main > tail.stored() {
                return match tail.record(revision) {
                    Some(record) => Ok(KeyValue::clone(&record.kv)),
                    None => Err(bad_revision(revision, "it is not in the tail")),
                };
            }
        }
        match self.shared.find(revision) {
            Ok(Some((block, position))) => {
                let kv = block.key_value(position);
                kv.map_err(|malformed| self.damaged(revision, &malformed.into()))
            }
            // Every header was there at the start: this one was dropped by a compaction, or never written.
            Ok(None) => Err(bad_revision(revision, "it is not in the state store")),
            Err(error) => Err(self.damaged(revision, &error)),
        }
    }

    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        let mut out = Vec::new();
        let mut budget = Budget::new(max_bytes);
        // Keys of revisions sort as revisions do from 0 on.
        let mut from = from.max(Revision::default());
        loop {
            let stored = {
                let tail = self.shared.tail.read();
                if from.main > tail.stored() {
                    tail.scan(from, &mut budget, &mut out);
                    return Ok(out);
                }
                tail.stored()
            };
            // Everything up to `stored` is in the state store; the tail may meanwhile move on behind it.
            self.scan_store(from, stored, &mut budget, &mut out)
                .map_err(|error| self.damaged(from, &error))?;
            if budget.is_full() {
                return Ok(out);
            }
            from = Revision::new(stored + 1, 0);
        }
    }
}

impl StoreView {
    /// Hands out stored records from `from` up to main revision `to`.
    fn scan_store(
        &self,
        from: Revision,
        to: i64,
        budget: &mut Budget,
        out: &mut Vec<RevisionRecord>,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let _layout = shared.layout.read();
        let engine = shared.engine();
        let low = headers_key(Revision::default());
        let start = match engine.last_within(&low, &headers_key(from))? {
            Some((key, _)) => key,
            None => Bytes::from(headers_key(from)),
        };
        let end = headers_key(Revision::new(to + 1, 0));
        let mut result = Ok(());
        let mut visit = |key: Bytes, headers: Bytes| {
            let visited =
                guarded_engine(|| Ok(visit_block(&*engine, &key, &headers, from, to, budget, out)));
            match visited.map_err(StoreError::from).and_then(|inner| inner) {
                Ok(flow) => flow,
                Err(error) => {
                    result = Err(error);
                    ControlFlow::Break(())
                }
            }
        };
        engine.scan(&start, &end, &mut visit)?;
        result
    }

    /// Notes damage and stops the store: the next start rebuilds it.
    fn damaged(&self, revision: Revision, error: &StoreError) -> Corrupt {
        self.shared.stop(error);
        bad_revision(revision, &error.to_string())
    }
}

fn visit_block(
    engine: &dyn super::engine::Engine,
    key: &[u8],
    headers: &Bytes,
    from: Revision,
    to: i64,
    budget: &mut Budget,
    out: &mut Vec<RevisionRecord>,
) -> Result<ControlFlow<()>, StoreError> {
    let first = headers_key_revision(key)?;
    let decoded = Block::decode_headers(first, headers)?;
    if decoded.last().is_some_and(|last| last.revision < from) {
        return Ok(ControlFlow::Continue(()));
    }
    let block = read_values(engine, first, decoded, headers.len())?;
    for (position, header) in block.headers().iter().enumerate() {
        if header.revision < from {
            continue;
        }
        if header.revision.main > to
            || !budget.admit(header.revision.main, header.key.len() + header.value_len)
        {
            return Ok(ControlFlow::Break(()));
        }
        out.push(block.record(position)?);
    }
    Ok(ControlFlow::Continue(()))
}

fn bad_revision(revision: Revision, reason: &str) -> Corrupt {
    Corrupt::BadRevision { revision: revision.to_string(), reason: reason.to_owned() }
}
