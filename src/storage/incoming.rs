//! A base of another member on its way in: a temporary file, written in pieces.
//!
//! ```text
//!   receive(label) ──▶ tmp-install-<term>-<index>-<hash> ◀── write, write … each pushed out, no sync
//!        └── the same label again: goes on where the last stopped; another label: the old file goes
//!   all here ──▶ prepare (install.rs)
//! ```
//!
//! A start removes what it finds of these: only a process that has written a piece knows that it is there.
//!
//! **Invariant:** of one temporary file at most one [`Receiving`] writes: each gets a turn, and an older turn's piece
//! that is still on its way is refused.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use quorate_core::api::ids::LogId;

use super::base::BaseError;
use super::device::{LogDevice, LogFile};
use super::engine::EngineError;
use super::error::StoreError;
use super::options::{EngineKind, Meter, STATE_STORE_ROOM, StoreOptions};
use super::renew::SLED_FACTOR;
use super::shared::Shared;
use super::source::BaseLabel;
use super::store::Store;

/// Bytes of one write: as small as a base's own, for the same reason.
const WRITE_BYTES: usize = 128 << 10;

/// Why a base of another member is not taken. Nothing of this member's state has changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// What is here is as new.
    #[error("this member has applied {applied} already, and the state is of {at}")]
    NotNewer {
        /// Here.
        applied: LogId,
        /// There.
        at: LogId,
    },
    /// The disk cannot hold it beside the present state.
    #[error("the disk has no room for a state of {len} bytes beside the present one")]
    NoRoom {
        /// Bytes of the base.
        len: u64,
    },
    /// More bytes than the label tells.
    #[error("more bytes came than the {len} that were announced")]
    TooLong {
        /// Bytes of the base.
        len: u64,
    },
    /// Some bytes have not come.
    #[error("only {received} of {len} bytes came")]
    Incomplete {
        /// Here.
        received: u64,
        /// Bytes of the base.
        len: u64,
    },
    /// Somebody else receives now.
    #[error("another transfer has taken the place of this one")]
    Superseded,
    /// The disk refused.
    #[error("the received state cannot be kept: {0}")]
    Io(#[from] io::Error),
    /// It is not what its label says, or the store is closing.
    #[error("the received state: {0}")]
    Base(#[from] BaseError),
    /// The state store for it cannot be written.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// This member's own store has failed.
    #[error(transparent)]
    Store(StoreError),
}

/// A base as far as it is here.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) label: BaseLabel,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn LogFile>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    written: u64,
    /// Who may write.
    turn: u64,
}

/// Writes what comes. Dropped, the file stays for the next one of the same label.
#[derive(Debug)]
pub struct Receiving {
    pub(crate) shared: Arc<Shared>,
    pub(crate) incoming: Arc<Incoming>,
    turn: u64,
}

impl Store {
    /// Begins to take a base of another member, or goes on with it. Makes a file.
    pub fn receive(&self, label: BaseLabel) -> Result<Receiving, InstallError> {
        let shared = &self.shared;
        shared.refuse_if_stopped().map_err(InstallError::Store)?;
        if let Some(applied) = self.applied().filter(|applied| applied.index >= label.at.index) {
            shared.forget_incoming()?;
            return Err(InstallError::NotNewer { applied, at: label.at });
        }
        let mut held = shared.incoming.lock();
        if held.as_ref().is_none_or(|incoming| incoming.label != label) {
            if let Some(old) = held.take() {
                old.remove(&shared.options)?;
            }
            *held = Some(Arc::new(begin(&shared.options, label)?));
        }
        let incoming = held.as_ref().map(Arc::clone).ok_or(InstallError::Superseded)?;
        drop(held);
        let (turn, received) = incoming.next_turn();
        shared.refuse_without_room(incoming.label.len, received)?;
        Ok(Receiving { shared: Arc::clone(shared), incoming, turn })
    }
}

fn begin(options: &StoreOptions, label: BaseLabel) -> Result<Incoming, InstallError> {
    let at = label.at;
    let name = format!("tmp-install-{}-{}-{:016x}", at.term, at.index, label.hash);
    // A file of its own: what still holds one that had this name writes elsewhere.
    remove_if_there(&*options.device, &name)?;
    let file = options.device.create(&name)?;
    Ok(Incoming { label, name, file, progress: Mutex::default() })
}

/// Removes a file that may be there.
pub(crate) fn remove_if_there(device: &dyn LogDevice, name: &str) -> io::Result<()> {
    match device.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Incoming {
    fn next_turn(&self) -> (u64, u64) {
        let mut progress = self.progress.lock();
        progress.turn += 1;
        (progress.turn, progress.written)
    }

    fn remove(&self, options: &StoreOptions) -> io::Result<()> {
        self.next_turn();
        remove_if_there(&*options.device, &self.name)
    }
}

impl Shared {
    /// Removes what was received of a base, if there is something.
    pub(crate) fn forget_incoming(&self) -> io::Result<()> {
        let incoming = self.incoming.lock().take();
        incoming.map_or(Ok(()), |incoming| incoming.remove(&self.options))
    }

    /// The same, if the state here is as new by now.
    pub(crate) fn forget_overtaken(&self, applied: LogId) -> io::Result<()> {
        let overtaken = |incoming: &Arc<Incoming>| incoming.label.at.index <= applied.index;
        if self.incoming.lock().as_ref().is_some_and(overtaken) {
            return self.forget_incoming();
        }
        Ok(())
    }

    /// A state of `len` bytes, of which `received` are here, must leave the room that growth leaves.
    pub(crate) fn refuse_without_room(&self, len: u64, received: u64) -> Result<(), InstallError> {
        let engine = match self.options.engine {
            EngineKind::Sled => SLED_FACTOR.saturating_mul(len).saturating_add(STATE_STORE_ROOM),
            EngineKind::Memory => 0,
        };
        let missing = len.saturating_sub(received).saturating_add(engine);
        if self.log.growth_refused(self.options.reserve_bytes.saturating_add(missing)) {
            self.forget_incoming()?;
            return Err(InstallError::NoRoom { len });
        }
        Ok(())
    }
}

impl Receiving {
    /// What is being received.
    pub fn label(&self) -> &BaseLabel {
        &self.incoming.label
    }

    /// Bytes that are here.
    pub fn received(&self) -> u64 {
        self.incoming.progress.lock().written
    }

    /// Takes the next piece. Writes a disk. After a failure of the disk what was received is gone.
    pub fn write(&self, piece: &[u8]) -> Result<(), InstallError> {
        let incoming = &self.incoming;
        let mut progress = incoming.progress.lock();
        if progress.turn != self.turn {
            return Err(InstallError::Superseded);
        }
        let len = incoming.label.len;
        if piece.len() as u64 > len - progress.written {
            return Err(InstallError::TooLong { len });
        }
        for part in piece.chunks(WRITE_BYTES) {
            if let Err(error) = self.write_part(progress.written, part) {
                drop(progress);
                self.give_up();
                return Err(error);
            }
            progress.written += part.len() as u64;
        }
        Ok(())
    }

    fn write_part(&self, offset: u64, part: &[u8]) -> Result<(), InstallError> {
        let shared = &self.shared;
        if shared.options.reserve_bytes > 0
            && !shared.options.has_room(shared.options.reserve_bytes)
        {
            return Err(InstallError::NoRoom { len: self.incoming.label.len });
        }
        self.incoming.file.write_at(offset, part)?;
        self.incoming.file.push_out(offset, part.len() as u64)?;
        Meter::add(&shared.meter.received, part.len() as u64);
        Ok(())
    }

    /// Nothing more is written: the file is whole, and is nobody else's any more.
    pub(crate) fn close(&self) -> Result<(), InstallError> {
        let len = self.incoming.label.len;
        let received = {
            let mut progress = self.incoming.progress.lock();
            if progress.turn != self.turn {
                return Err(InstallError::Superseded);
            }
            progress.turn += 1;
            progress.written
        };
        let mut held = self.shared.incoming.lock();
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, &self.incoming)) {
            *held = None;
        }
        if received < len {
            return Err(InstallError::Incomplete { received, len });
        }
        Ok(())
    }

    /// Whether the store is closing or has failed.
    pub(crate) fn store_ends(&self) -> bool {
        self.shared.orders.lock().closing || self.shared.stopped.load(Ordering::Acquire)
    }

    fn give_up(&self) {
        if let Err(error) = self.shared.forget_incoming() {
            tracing::warn!(%error, "what was received of a state stays until the next start");
        }
    }
}
