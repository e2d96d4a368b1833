//! The whole file system in memory: a tree of names over files, frozen at a cut and then thinned out by a seed.
//!
//! **Invariant:** after the freeze nothing changes and every call is refused; so no call that was answered well
//! lies behind the cut.
//! **Invariant:** the image that [`Image::cut`] gives has no unsynced state: it is what a disk holds.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;

use super::file::{FileData, PAGE, SyncPoint};
use super::names::{Change, Ino, Names, ROOT, Slot};
use super::odds::{Losses, Odds};
use super::trap::{Armed, Trap};

/// What a file's sync does for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NameSync {
    /// Nothing: a name is durable only after a sync of its directory. All that POSIX promises.
    Strict,
    /// A sync that must log metadata commits every directory operation before it, as ext4 and xfs do.
    Journalled,
}

/// Syncs that answer well and make nothing durable: what a server that forgets them looks like. For proving that
/// cuts find it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lies {
    /// Parts of paths of files; an empty part is every file.
    pub(crate) files: Vec<String>,
    /// All directories.
    pub(crate) directories: bool,
}

/// Why a call was not carried out; `mount` maps it to an error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("the power is off")]
    PowerIsOff,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) ino: Ino,
    pub(crate) directory: bool,
    pub(crate) permissions: u16,
    pub(crate) size: u64,
    pub(crate) pages: u64,
}

/// A sync between its call and its answer.
#[derive(Debug)]
pub(crate) enum Sync {
    File {
        ino: Ino,
        seq: u64,
        point: SyncPoint,
        names: bool,
    },
    Directory {
        ino: Ino,
        seq: u64,
    },
    /// See [`Lies`].
    Ignored,
}

#[derive(Debug, Clone)]
struct Node {
    permissions: u16,
    /// Where the node was last put; the root has no other place than itself.
    place: Slot,
    /// None for a directory.
    data: Option<FileData>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    nodes: HashMap<Ino, Node>,
    names: Names,
    name_sync: NameSync,
    lies: Lies,
    trap: Trap,
    frozen: bool,
    seq: u64,
    next_ino: Ino,
}

type Answer<T> = Result<T, Refused>;

// === impl Image: calls ===

impl Image {
    /// An empty disk.
    pub(crate) fn new(name_sync: NameSync, lies: Lies) -> Self {
        let place = Slot::new(ROOT, OsStr::new(""));
        let root = Node { permissions: 0o755, place, data: None };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            names: Names::default(),
            name_sync,
            lies,
            trap: Trap::default(),
            frozen: false,
            seq: 0,
            next_ino: ROOT + 1,
        }
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &OsStr) -> Answer<Stat> {
        self.powered()?;
        self.stat(self.names.lookup(dir, name).ok_or(Refused::NotFound)?)
    }

    pub(crate) fn stat(&self, ino: Ino) -> Answer<Stat> {
        self.powered()?;
        let node = self.node(ino)?;
        let size = node.data.as_ref().map_or(PAGE as u64, FileData::size);
        let pages = node.data.as_ref().map_or(1, FileData::allocated_pages);
        let directory = node.data.is_none();
        Ok(Stat { ino, directory, permissions: node.permissions, size, pages })
    }

    /// Names and nodes of a directory, in the order of the names.
    pub(crate) fn list(&self, dir: Ino) -> Answer<Vec<(OsString, Stat)>> {
        self.powered()?;
        if self.node(dir)?.data.is_some() {
            return Err(Refused::NotADirectory);
        }
        self.names.entries(dir).map(|(name, ino)| Ok((name.clone(), self.stat(ino)?))).collect()
    }

    pub(crate) fn read(&self, ino: Ino, offset: u64, len: usize) -> Answer<Vec<u8>> {
        self.powered()?;
        Ok(self.file(ino)?.read(offset, len))
    }

    pub(crate) fn create(
        &mut self,
        dir: Ino,
        name: &OsStr,
        directory: bool,
        permissions: u16,
    ) -> Answer<Stat> {
        if self.node(dir)?.data.is_some() {
            return Err(Refused::NotADirectory);
        }
        if self.names.lookup(dir, name).is_some() {
            return Err(Refused::Exists);
        }
        let at = Slot::new(dir, name);
        let seq = self.changing(&[&at])?;
        let ino = self.next_ino;
        self.next_ino += 1;
        let data = (!directory).then(FileData::default);
        self.nodes.insert(ino, Node { permissions, place: at.clone(), data });
        self.names.change(seq, Change::Create { at, ino });
        self.stat(ino)
    }

    /// Removes a file's name, or with `directory` that of an empty directory.
    pub(crate) fn remove(&mut self, dir: Ino, name: &OsStr, directory: bool) -> Answer<()> {
        let ino = self.names.lookup(dir, name).ok_or(Refused::NotFound)?;
        match (self.node(ino)?.data.is_none(), directory) {
            (true, false) => return Err(Refused::IsADirectory),
            (false, true) => return Err(Refused::NotADirectory),
            (true, true) if self.names.entries(ino).next().is_some() => {
                return Err(Refused::NotEmpty);
            }
            (true, true) | (false, false) => {}
        }
        let at = Slot::new(dir, name);
        let seq = self.changing(&[&at])?;
        self.names.change(seq, Change::Remove { at, ino, directory });
        Ok(())
    }

    /// Moves a name over whatever has the new one, unless `exclusive`.
    pub(crate) fn rename(&mut self, from: &Slot, to: &Slot, exclusive: bool) -> Answer<()> {
        let ino = self.names.lookup(from.dir, &from.name).ok_or(Refused::NotFound)?;
        if let Some(replaced) = self.names.lookup(to.dir, &to.name) {
            self.replaceable(ino, replaced, exclusive)?;
            if replaced == ino {
                return self.powered();
            }
        }
        if self.node(to.dir)?.data.is_some() {
            return Err(Refused::NotADirectory);
        }
        let seq = self.changing(&[from, to])?;
        self.node_mut(ino)?.place = to.clone();
        self.names.change(seq, Change::Rename { from: from.clone(), to: to.clone(), ino });
        Ok(())
    }

    fn replaceable(&self, ino: Ino, replaced: Ino, exclusive: bool) -> Answer<()> {
        let moves_directory = self.node(ino)?.data.is_none();
        match self.node(replaced)?.data.is_none() {
            _ if exclusive => Err(Refused::Exists),
            true if !moves_directory => Err(Refused::IsADirectory),
            false if moves_directory => Err(Refused::NotADirectory),
            true if self.names.entries(replaced).next().is_some() => Err(Refused::NotEmpty),
            true | false => Ok(()),
        }
    }

    pub(crate) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Answer<()> {
        let seq = self.changing_file(ino)?;
        self.file_mut(ino)?.write(seq, offset, data);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, ino: Ino, size: u64) -> Answer<()> {
        let seq = self.changing_file(ino)?;
        self.file_mut(ino)?.truncate(seq, size);
        Ok(())
    }

    /// Zeroes a range; the size stays.
    pub(crate) fn zero(&mut self, ino: Ino, offset: u64, len: u64) -> Answer<()> {
        let seq = self.changing_file(ino)?;
        self.file_mut(ino)?.zero(seq, offset, len);
        Ok(())
    }

    /// Access rights are durable at once: no program here leans on them.
    pub(crate) fn set_permissions(&mut self, ino: Ino, permissions: u16) -> Answer<()> {
        self.powered()?;
        self.node_mut(ino)?.permissions = permissions;
        Ok(())
    }

    /// A sync is called. It covers what was written until now, once it has ended.
    pub(crate) fn begin_sync(&mut self, ino: Ino, data_only: bool) -> Answer<Sync> {
        let seq = self.changing_file(ino)?;
        if self.lies_about(ino)? {
            return Ok(Sync::Ignored);
        }
        let Some(file) = &self.node(ino)?.data else {
            return Ok(Sync::Directory { ino, seq });
        };
        // An fdatasync logs no metadata that reading the data back does not need.
        let logs = !data_only || file.size_changed() || self.names.name_is_pending(ino);
        let names = logs && self.name_sync == NameSync::Journalled;
        Ok(Sync::File { ino, seq, point: file.begin_sync(seq), names })
    }

    /// A sync answers; refused when the cut came first.
    pub(crate) fn finish_sync(&mut self, sync: Sync) -> Answer<()> {
        self.powered()?;
        match sync {
            Sync::File { ino, seq, point, names } => {
                self.file_mut(ino)?.finish_sync(point);
                if names {
                    self.names.sync_all(seq);
                }
            }
            Sync::Directory { seq, .. } if self.name_sync == NameSync::Journalled => {
                self.names.sync_all(seq);
            }
            Sync::Directory { ino, seq } => self.names.sync_dir(ino, seq),
            Sync::Ignored => {}
        }
        Ok(())
    }

    fn lies_about(&self, ino: Ino) -> Answer<bool> {
        let node = self.node(ino)?;
        if node.data.is_none() || self.lies.files.is_empty() {
            return Ok(node.data.is_none() && self.lies.directories);
        }
        let path = self.path(&node.place);
        let path = path.to_string_lossy();
        Ok(self.lies.files.iter().any(|part| path.contains(part)))
    }

    /// Pages in use, for `statfs`.
    pub(crate) fn allocated_pages(&self) -> u64 {
        self.nodes
            .values()
            .filter_map(|node| node.data.as_ref())
            .map(FileData::allocated_pages)
            .sum()
    }

    fn powered(&self) -> Answer<()> {
        if self.frozen { Err(Refused::PowerIsOff) } else { Ok(()) }
    }

    fn node(&self, ino: Ino) -> Answer<&Node> {
        self.nodes.get(&ino).ok_or(Refused::NotFound)
    }

    fn node_mut(&mut self, ino: Ino) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Refused::NotFound)
    }

    fn file(&self, ino: Ino) -> Answer<&FileData> {
        self.node(ino)?.data.as_ref().ok_or(Refused::IsADirectory)
    }

    fn file_mut(&mut self, ino: Ino) -> Answer<&mut FileData> {
        self.node_mut(ino)?.data.as_mut().ok_or(Refused::IsADirectory)
    }

    fn changing_file(&mut self, ino: Ino) -> Answer<u64> {
        let place = self.node(ino)?.place.clone();
        self.changing(&[&place])
    }

    /// Every call that changes or syncs passes here: it gets its sequence number, or springs the trap.
    fn changing(&mut self, slots: &[&Slot]) -> Answer<u64> {
        self.powered()?;
        let paths: Vec<String> = if self.trap.wants_paths() {
            slots.iter().map(|slot| self.path(slot).to_string_lossy().into_owned()).collect()
        } else {
            Vec::new()
        };
        self.frozen = self.trap.step(&paths);
        self.powered()?;
        self.seq += 1;
        Ok(self.seq)
    }

    fn path(&self, slot: &Slot) -> PathBuf {
        let mut parts = vec![slot.name.clone()];
        let mut dir = slot.dir;
        // A directory lies below the root in fewer steps than there are nodes.
        for _ in 0..self.nodes.len() {
            match self.nodes.get(&dir) {
                Some(node) if dir != ROOT => {
                    parts.push(node.place.name.clone());
                    dir = node.place.dir;
                }
                Some(_) | None => break,
            }
        }
        parts.iter().rev().collect()
    }
}

// === impl Image: cuts ===

impl Image {
    /// Cuts the power: from now on every call is refused.
    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
        self.trap.disarm();
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Cuts the power by itself when this comes about.
    pub(crate) fn arm(&mut self, armed: Armed) {
        self.trap.arm(armed);
    }

    /// The disk after the cut, powered again: what was durable and a random part of the rest.
    pub(crate) fn cut(&self, rng: &mut StdRng, odds: &Odds) -> (Self, Losses) {
        let mut losses = Losses::default();
        let names = self.names.survive(rng, odds, &mut losses);
        let mut inodes: Vec<Ino> = self.nodes.keys().copied().collect();
        inodes.sort_unstable();
        let mut nodes = HashMap::new();
        for ino in inodes {
            let own = odds.for_file(rng);
            let mut node = self.nodes[&ino].clone();
            node.data = node.data.map(|data| data.survive(rng, &own, &mut losses));
            nodes.insert(ino, node);
        }
        (self.restarted(names, nodes), losses)
    }

    /// The disk after an orderly stop and a full sync, or a kill without a power cut.
    pub(crate) fn settled(&self) -> Self {
        let settle = |(ino, node): (&Ino, &Node)| {
            let mut node = node.clone();
            node.data = node.data.map(|data| data.settled());
            (*ino, node)
        };
        let nodes = self.nodes.iter().map(settle).collect();
        self.restarted(self.names.settled(), nodes)
    }

    /// Drops what nothing leads to and puts every node where the surviving names say.
    fn restarted(&self, mut names: Names, mut nodes: HashMap<Ino, Node>) -> Self {
        let reachable = names.reachable();
        names.retain(&reachable);
        nodes.retain(|ino, _| reachable.contains(ino));
        for &dir in &reachable {
            for (name, ino) in names.entries(dir) {
                if let Some(node) = nodes.get_mut(&ino) {
                    node.place = Slot::new(dir, name);
                }
            }
        }
        Self {
            nodes,
            names,
            name_sync: self.name_sync,
            lies: self.lies.clone(),
            trap: Trap::default(),
            frozen: false,
            seq: 0,
            next_ino: self.next_ino,
        }
    }

    /// Writes the tree below a real directory, to look into it or to start a server on it.
    ///
    /// # Errors
    /// Those of the real file system.
    pub(crate) fn export(&self, to: &Path) -> std::io::Result<()> {
        self.export_dir(ROOT, to)
    }

    fn export_dir(&self, dir: Ino, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for (name, ino) in self.names.entries(dir) {
            let path = to.join(name);
            match self.nodes.get(&ino).map(|node| &node.data) {
                Some(Some(data)) => {
                    let len = usize::try_from(data.size()).unwrap_or(usize::MAX);
                    std::fs::write(&path, data.read(0, len))?;
                }
                Some(None) => self.export_dir(ino, &path)?,
                None => {}
            }
        }
        Ok(())
    }
}
