//! Where a value is found: in memory, among the changes of the entry being applied, or in the view.

use std::sync::Arc;

use crate::api::batch::RevisionRecord;
use crate::api::ids::Revision;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::Corrupt;
use crate::api::view::View;

/// Reads values that are not hot.
pub(crate) struct Values<'a, V> {
    view: &'a V,
    /// Changes that the view does not have yet, ascending.
    pending: &'a [RevisionRecord],
}

impl<'a, V: View> Values<'a, V> {
    /// Values of a committed state.
    pub(crate) fn committed(view: &'a V) -> Self {
        Values { view, pending: &[] }
    }

    /// Values while an entry is being applied.
    pub(crate) fn applying(view: &'a V, pending: &'a [RevisionRecord]) -> Self {
        Values { view, pending }
    }

    /// The key-value written at `revision`, which must be of `key`.
    pub(crate) fn read(
        &self,
        key: &[u8],
        revision: Revision,
        hot: Option<&Arc<KeyValue>>,
    ) -> Result<Arc<KeyValue>, Corrupt> {
        if let Some(kv) = hot {
            return Ok(Arc::clone(kv));
        }
        if let Ok(place) = self.pending.binary_search_by_key(&revision, |record| record.revision) {
            return Ok(Arc::clone(&self.pending[place].kv));
        }
        let kv = self.view.key_value(revision)?;
        if kv.mod_revision != revision.main || kv.key.as_ref() != key {
            return Err(Corrupt::BadRevision {
                revision: revision.to_string(),
                reason: format!(
                    "the index has it as another key, the store as mod revision {}",
                    kv.mod_revision
                ),
            });
        }
        Ok(Arc::new(kv))
    }
}
