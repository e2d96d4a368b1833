//! The newest base, open to be read by whoever sends it to another member.
//!
//! ```text
//!   marked ──▶ BaseSource: label + open file ──▶ read(offset) … read(offset)
//!   a newer base ──▶ another source; the older one's name goes, its file stays until the last handle on it
//! ```
//!
//! **Invariant:** a source reads the bytes that the journal named, however long it lives.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::api::batch::Space;
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::StoredMembership;

use super::base::{BaseError, BaseReader, Part};
use super::device::LogFile;
use super::journal::BaseMark;
use super::options::StoreOptions;

/// Which base: the same words on the member that sends it and on the one that takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseLabel {
    /// The last entry whose effects are in it.
    pub at: LogId,
    /// The membership in force there.
    pub membership: StoredMembership,
    /// Bytes of the file.
    pub len: u64,
    /// The XXH3 that the file ends with.
    pub hash: u64,
}

/// A base that can be read as long as this lives.
#[derive(Debug)]
pub struct BaseSource {
    label: BaseLabel,
    file: Arc<dyn LogFile>,
}

impl BaseSource {
    /// Opens the base that `mark` names, whose membership is known.
    pub(crate) fn of(
        options: &StoreOptions,
        mark: &BaseMark,
        membership: StoredMembership,
    ) -> Result<Self, BaseError> {
        let file = options.device.open(&mark.file_name)?;
        Ok(BaseSource { label: label(mark, membership), file })
    }

    /// Opens the base that `mark` names, and reads of it what its label needs: its records come first.
    pub(crate) fn open(options: &StoreOptions, mark: &BaseMark) -> Result<Self, BaseError> {
        let file = options.device.open(&mark.file_name)?;
        let mut reader = BaseReader::begin(Arc::clone(&file), mark.len)?;
        if reader.preamble().at != mark.at || reader.preamble().group != options.group {
            return Err(BaseError::Damaged("it is another base than the journal names".to_owned()));
        }
        let mut membership = None;
        while let (None, Some(Part::Records(records))) = (&membership, reader.next()?) {
            membership = membership_in(&records)?;
        }
        Ok(BaseSource { label: label(mark, membership.unwrap_or_default()), file })
    }

    /// What it is.
    pub fn label(&self) -> &BaseLabel {
        &self.label
    }

    /// Up to `bytes_max` bytes from `offset` on; fewer only at its end. Reads a disk.
    pub fn read(&self, offset: u64, bytes_max: usize) -> io::Result<Bytes> {
        let left = self.label.len.saturating_sub(offset);
        let len = usize::try_from(left).map_or(bytes_max, |left| left.min(bytes_max));
        let mut bytes = vec![0; len];
        self.file.read_at(offset, &mut bytes)?;
        Ok(bytes.into())
    }
}

fn label(mark: &BaseMark, membership: StoredMembership) -> BaseLabel {
    BaseLabel { at: mark.at, membership, len: mark.len, hash: mark.content_hash }
}

/// The membership among `records`, if it is there.
pub(crate) fn membership_in(
    records: &[(Space, Bytes, Bytes)],
) -> Result<Option<StoredMembership>, BaseError> {
    let found = records.iter().find(|(space, _, _)| *space == Space::Membership);
    let decoded = found.map(|(_, _, value)| StoredMembership::decode(value.clone())).transpose();
    decoded.map_err(|error| BaseError::Damaged(format!("membership: {error}")))
}
