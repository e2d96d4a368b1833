//! The node's folder of certificates: one works in it at a time, beside the runtime, for the disk may take its time.
//!
//! **Invariant:** nobody works in it while the node's directories are being emptied, or after that.

use std::path::Path;
use std::sync::Arc;

use super::certificates::of_pki;
use super::life::Node;
use super::stage::Stage;
use crate::fleet::error::FleetError;
use crate::fleet::pki::{Folder, PkiError};

/// The folder at `path`.
pub(super) fn folder(path: &Path) -> Result<Folder, FleetError> {
    Folder::open(path).map_err(of_pki)
}

impl Node {
    /// Refuses a node that is part of no fleet: it has no certificates.
    fn check_has_files(&self) -> Result<(), FleetError> {
        match self.stage() {
            Stage::Member(_) | Stage::Worker(_) => Ok(()),
            Stage::Stopping => Err(FleetError::ShuttingDown),
            Stage::Uninitialised { .. }
            | Stage::Bootstrapping { .. }
            | Stage::Joining { .. }
            | Stage::Resetting { .. } => Err(FleetError::NotInitialized),
        }
    }

    /// The folder, to read from.
    pub(super) fn folder(&self) -> Result<Folder, FleetError> {
        self.check_has_files()?;
        folder(&self.0.directory.pki())
    }

    /// Does `work` in the folder. It is finished if whoever asked goes away.
    pub(super) async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, PkiError> + Send + 'static,
    ) -> Result<T, FleetError> {
        let held = Arc::clone(&self.0.files).lock_owned().await;
        self.check_has_files()?;
        let path = self.0.directory.pki();
        let done = self.0.disk.run(move || {
            let _held = held;
            work(&Folder::open(&path)?)
        });
        done.await.map_err(of_pki)
    }
}
