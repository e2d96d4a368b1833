//! The state directory of a node: what lies where, written whole or not at all, emptied so that a crash cannot leave
//! half of it.
//!
//! ```text
//!   <state-dir>/ 0700   node.json  fleet.key  node-token  api.sock  audit.log  lock
//!                       pki/  0700  ca.crt, server.crt, server.key, ...
//!                       member/     the member's data directory
//! ```
//!
//! **Invariant:** at most one process works in it: whoever holds `lock`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::record::{LocalRecord, Phase, RecordFault};
use crate::support::durable;
use crate::support::listen::words;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryFault {
    /// The system refused.
    #[error("{path}: {why}")]
    Io {
        /// Of what.
        path: String,
        /// The system's words.
        why: String,
    },
    /// Another process works in it.
    #[error("{0} is in use by another process")]
    Held(String),
    /// What it says of itself cannot be used.
    #[error(transparent)]
    Record(#[from] RecordFault),
}

/// The state directory, held by this process.
#[derive(Debug)]
pub struct StateDirectory {
    root: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is missing, and holds it until this is dropped.
    pub fn claim(root: &Path) -> Result<StateDirectory, DirectoryFault> {
        make(root)?;
        let path = root.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&path).map_err(|why| fault(&path, &why))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateDirectory { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(DirectoryFault::Held(root.display().to_string()))
            }
            Err(why) => Err(fault(&path, &why.into())),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Certificates and their keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The member's data directory.
    pub fn member(&self) -> PathBuf {
        self.root.join("member")
    }

    /// The fleet's key.
    pub fn fleet_key(&self) -> PathBuf {
        self.root.join("fleet.key")
    }

    /// What callers of this node alone show.
    pub fn node_token(&self) -> PathBuf {
        self.root.join("node-token")
    }

    /// Where the API is served to this machine.
    pub fn socket(&self) -> PathBuf {
        self.root.join("api.sock")
    }

    /// Who changed what.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit.log")
    }

    /// Where the node stands; one that never wrote anything is uninitialised.
    pub fn load(&self) -> Result<Phase, DirectoryFault> {
        let path = self.root.join("node.json");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(LocalRecord::decode(&text)?.phase),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                Ok(Phase::Uninitialised { since: None })
            }
            Err(why) => Err(fault(&path, &why)),
        }
    }

    /// Notes where the node stands; on the disk when it returns.
    pub fn store(&self, phase: &Phase) -> Result<(), DirectoryFault> {
        let text = LocalRecord::new(phase.clone()).encode();
        let path = self.root.join("node.json");
        durable::replace(&path, durable::SECRET, text.as_bytes()).map_err(|why| fault(&path, &why))
    }

    /// Removes everything that belongs to a fleet. Whoever calls has noted [`Phase::Resetting`] before.
    pub fn empty(&self) -> Result<(), DirectoryFault> {
        for folder in [self.member(), self.pki()] {
            match fs::remove_dir_all(&folder) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(fault(&folder, &why));
                }
                Ok(()) | Err(_) => {}
            }
        }
        for file in [self.fleet_key(), self.node_token()] {
            match fs::remove_file(&file) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(fault(&file, &why));
                }
                Ok(()) | Err(_) => {}
            }
        }
        durable::sync_folder(&self.root).map_err(|why| fault(&self.root, &why))
    }
}

fn fault(path: &Path, why: &io::Error) -> DirectoryFault {
    DirectoryFault::Io { path: path.display().to_string(), why: words(why) }
}

fn make(path: &Path) -> Result<(), DirectoryFault> {
    durable::private_folder(path).map_err(|why| fault(path, &why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_held_by_one_alone_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/state");
        let held = StateDirectory::claim(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(StateDirectory::claim(&root), Err(DirectoryFault::Held(_))));
        drop(held);
        StateDirectory::claim(&root).unwrap();
    }

    #[test]
    fn where_a_node_stands_outlives_the_process_and_emptying_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateDirectory::claim(dir.path()).unwrap();
        assert_eq!(held.load().unwrap(), Phase::Uninitialised { since: None });
        let resetting = Phase::Resetting { reason: "removed".to_owned() };
        held.store(&resetting).unwrap();
        let mode = fs::metadata(dir.path().join("node.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::create_dir_all(held.pki()).unwrap();
        fs::create_dir_all(held.member().join("journal")).unwrap();
        fs::write(held.fleet_key(), "k").unwrap();
        held.empty().unwrap();
        assert!(!held.pki().exists() && !held.member().exists() && !held.fleet_key().exists());
        held.empty().unwrap();
        drop(held);
        assert_eq!(StateDirectory::claim(dir.path()).unwrap().load().unwrap(), resetting);
    }

    #[test]
    fn a_record_of_a_later_version_refuses_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateDirectory::claim(dir.path()).unwrap();
        fs::write(dir.path().join("node.json"), r#"{"format":9}"#).unwrap();
        assert!(matches!(held.load(), Err(DirectoryFault::Record(RecordFault::Newer(9)))));
    }
}
