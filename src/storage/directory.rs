//! The data directory: its layout, its lock, its identity, and what it is refused for.
//!
//! ```text
//!   <data-dir>/member/            0700
//!     LOCK                        one process, named by pid
//!     IDENTITY                    journal uuid, cluster, member; durable before the first vote
//!     journal/*.seg               acknowledged bytes          (storage::journal)
//!     groups/<id>/base-*.qb       the state at one log id     (storage::base)
//!     groups/<id>/state-*/        sled, may be lost at any time
//!
//!   open ──▶ lock ──▶ foreign? ──▶ identity ──▶ journal there? ──▶ Directory
//!   Directory::settle(uuid, cluster, member): first start writes IDENTITY, later ones compare
//! ```
//!
//! **Invariant:** a directory that has, or had, acknowledged bytes is never taken for a first start.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use quorate_core::api::ids::{ClusterId, GroupId, MemberId};

use super::identity::{BadIdentity, FORMAT, Identity};
use super::lock::{LockFailure, ProcessLock};

/// Why a data directory is not opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another live process uses it.
    #[error(
        "data directory {dir} is in use by process {holder}: stop it, or choose another --data-dir"
    )]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// Its pid, or a guess in words.
        holder: String,
    },
    /// etcd's own files are in it.
    #[error(
        "data directory {dir} holds etcd's own files ({found}): Quorate does not read them; choose another \
         --data-dir, or take a snapshot with etcdctl and restore it"
    )]
    Foreign {
        /// Which directory.
        dir: PathBuf,
        /// The path that gave it away.
        found: String,
    },
    /// Written by a newer program.
    #[error(
        "data directory {dir} has format {found}, this program knows up to {FORMAT}: start the newer program again"
    )]
    Newer {
        /// Which directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity file is not what was written.
    #[error(
        "{file} is damaged: restore it from a copy, or remove this member from the cluster and add it again with \
         an empty data directory"
    )]
    DamagedIdentity {
        /// The identity file.
        file: PathBuf,
    },
    /// Something of the directory is missing, and with it acknowledged writes and votes.
    #[error(
        "data directory {dir} is not whole: {missing}. This is not a first start, and starting empty could lose \
         acknowledged writes: restore the directory, or remove this member from the cluster and add it again with \
         an empty data directory"
    )]
    Incomplete {
        /// Which directory.
        dir: PathBuf,
        /// What is there and what is not.
        missing: String,
    },
    /// The directory is someone else's.
    #[error(
        "data directory {dir} belongs to {owner}, but this server was started as {asked}: choose the right \
         --data-dir, or start it with the flags it was made with"
    )]
    OtherOwner {
        /// Which directory.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asks.
        asked: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// A locked data directory.
#[derive(Debug)]
pub struct Directory {
    data_dir: PathBuf,
    member: PathBuf,
    identity: Option<Identity>,
    _lock: ProcessLock,
}

/// Opens `data_dir`, making it if it is absent, and locks it for this process until the result is dropped.
pub fn open_directory(data_dir: &Path) -> Result<Directory, DirectoryError> {
    let member = data_dir.join("member");
    for folder in [data_dir, &member] {
        create_private(folder)?;
    }
    let lock = ProcessLock::take(&member.join("LOCK")).map_err(|failure| match failure {
        LockFailure::Held(pid) => DirectoryError::InUse {
            dir: data_dir.to_owned(),
            holder: pid.map_or_else(|| "(unknown pid)".to_owned(), |pid| pid.to_string()),
        },
        LockFailure::Io(source) => io_error("lock", &member.join("LOCK"), source),
    })?;
    refuse_foreign(data_dir, &member)?;
    let identity = read_identity(data_dir, &member)?;
    let directory = Directory { data_dir: data_dir.to_owned(), member, identity, _lock: lock };
    directory.refuse_incomplete()?;
    create_private(&directory.journal())?;
    create_private(&directory.member.join("groups"))?;
    sync_folder(&directory.member)?;
    sync_folder(data_dir)?;
    Ok(directory)
}

impl Directory {
    /// Who the directory belongs to; `None` before the first start has settled it.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.member.join("journal")
    }

    /// The folder of one group's bases and state store.
    pub fn group(&self, group: GroupId) -> PathBuf {
        self.member.join("groups").join(group.to_string())
    }

    /// On a first start writes the identity, durable at return; later compares it.
    ///
    /// `journal_is_new`: the journal holds neither a vote nor an entry. To be called before the first vote.
    pub fn settle(
        &mut self,
        journal: [u8; 16],
        journal_is_new: bool,
        cluster: ClusterId,
        member: MemberId,
    ) -> Result<Identity, DirectoryError> {
        let asked = Identity { journal, cluster, member };
        match self.identity {
            Some(owner) if owner.journal != journal => {
                Err(self.incomplete("IDENTITY names another journal than the one in journal/"))
            }
            Some(owner) if owner != asked => Err(DirectoryError::OtherOwner {
                dir: self.data_dir.clone(),
                owner: format!("member {} of cluster {}", owner.member, owner.cluster),
                asked: format!("member {member} of cluster {cluster}"),
            }),
            Some(owner) => Ok(owner),
            None if !journal_is_new => {
                Err(self.incomplete("journal/ has votes or entries, but IDENTITY is missing"))
            }
            None => {
                write_durably(&self.member, "IDENTITY", asked.encode().as_bytes())?;
                self.identity = Some(asked);
                Ok(asked)
            }
        }
    }

    fn refuse_incomplete(&self) -> Result<(), DirectoryError> {
        let has_segments = any_entry(&self.journal(), |name| name.ends_with(".seg"))?;
        if has_segments {
            return Ok(());
        }
        if self.identity.is_some() {
            return Err(self.incomplete("IDENTITY is there, but journal/ has no segments"));
        }
        if any_entry(&self.member.join("groups"), |_| true)? {
            return Err(self.incomplete("groups/ is there, but journal/ has no segments"));
        }
        Ok(())
    }

    fn incomplete(&self, missing: &str) -> DirectoryError {
        DirectoryError::Incomplete { dir: self.data_dir.clone(), missing: missing.to_owned() }
    }
}

fn refuse_foreign(data_dir: &Path, member: &Path) -> Result<(), DirectoryError> {
    for found in ["snap", "wal"] {
        if member.join(found).exists() {
            return Err(DirectoryError::Foreign {
                dir: data_dir.to_owned(),
                found: format!("member/{found}"),
            });
        }
    }
    Ok(())
}

fn read_identity(data_dir: &Path, member: &Path) -> Result<Option<Identity>, DirectoryError> {
    let file = member.join("IDENTITY");
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &file, source)),
    };
    let text = String::from_utf8_lossy(&bytes);
    match Identity::decode(&text) {
        Ok(identity) => Ok(Some(identity)),
        Err(BadIdentity::Newer(found)) => {
            Err(DirectoryError::Newer { dir: data_dir.to_owned(), found })
        }
        Err(BadIdentity::Damaged) => Err(DirectoryError::DamagedIdentity { file }),
    }
}

/// Makes a folder that only its owner may enter, and its name durable; one that exists keeps its rights.
///
/// The names above it are synced each time: an earlier start may have made them and ended before it synced them,
/// and what is synced below a name that a power cut takes away is gone with it.
pub(crate) fn create_private(folder: &Path) -> Result<(), DirectoryError> {
    if !folder.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| io_error("create", folder, source))?;
    }
    let whole = std::path::absolute(folder).map_err(|source| io_error("find", folder, source))?;
    for above in whole.ancestors().skip(1) {
        match File::open(above).and_then(|above| above.sync_all()) {
            Ok(()) => {}
            // Not ours to read, so nothing in it is ours to make durable, and nothing above it either.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => break,
            Err(source) => return Err(io_error("sync", above, source)),
        }
    }
    Ok(())
}

fn any_entry(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<bool, DirectoryError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(io_error("read", folder, source)),
    };
    for entry in entries {
        let entry = entry.map_err(|source| io_error("read", folder, source))?;
        if is_it(&entry.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a small file so that after a crash it is there whole or not at all; durable at return.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
    let temporary = folder.join(format!("tmp-{name}"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))
    };
    write().map_err(|source| io_error("write", &folder.join(name), source))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), DirectoryError> {
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(|source| io_error("sync", folder, source))
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "directory_test.rs"]
mod directory_test;
