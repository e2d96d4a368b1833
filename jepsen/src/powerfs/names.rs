//! Directories: the names read now, the durable ones, and every operation between the two, in order.
//!
//! ```text
//!  durable:  {a: 2}
//!  pending:  create tmp=3 (4) · rename tmp→a (9) · create b=5 (11)
//!  live:     {a: 3, b: 5}
//!
//!  sync of the directory begun at 10: durable {a: 3}, pending: create b
//!  cut, subset: {a:2} {tmp:3,a:2} {a:3}, each with or without b
//!  cut, prefix: {a:2} {tmp:3,a:2} {a:3} {a:3,b:5}
//! ```
//!
//! What a subset may be. Two operations on the same (directory, name) slot touch one directory entry, so the later
//! can only be on disk if the earlier is under it; a rename touches two slots and is atomic; a directory is removed
//! only after what was in it went elsewhere. Everything else is independent: POSIX orders nothing more. Operations
//! below a directory whose own name is lost are lost with it, because nothing leads there.
//!
//! **Invariant:** applying any set of pending operations that is closed under these rules, in order, to the durable
//! names gives each inode at most one name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};

use rand::Rng;
use rand::rngs::StdRng;

use super::odds::{Losses, NameSurvival, Odds};

/// An inode number.
pub(crate) type Ino = u64;
/// The root directory's.
pub(crate) const ROOT: Ino = 1;

/// One directory's entries.
pub(crate) type Entries = BTreeMap<OsString, Ino>;

/// A directory entry's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) dir: Ino,
    pub(crate) name: OsString,
}

impl Slot {
    pub(crate) fn new(dir: Ino, name: &OsStr) -> Self {
        Self { dir, name: name.to_owned() }
    }
}

/// A directory operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file or directory gets its first name.
    Create { at: Slot, ino: Ino },
    /// A name goes; with `directory`, one of an empty directory.
    Remove { at: Slot, ino: Ino, directory: bool },
    /// A name moves and replaces what was there, in one step.
    Rename { from: Slot, to: Slot, ino: Ino },
}

impl Change {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let (first, second) = match self {
            Self::Create { at, .. } | Self::Remove { at, .. } => (at, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn ino(&self) -> Ino {
        match self {
            Self::Create { ino, .. } | Self::Remove { ino, .. } | Self::Rename { ino, .. } => *ino,
        }
    }

    fn touches(&self, dir: Ino) -> bool {
        self.slots().any(|slot| slot.dir == dir)
    }

    /// That `self` cannot be on disk unless the earlier operation is.
    fn needs(&self, earlier: &Self) -> bool {
        if let Self::Remove { ino, directory: true, .. } = self
            && earlier.touches(*ino)
        {
            return true;
        }
        self.slots().any(|slot| earlier.slots().any(|other| slot == other))
    }

    fn apply(&self, names: &mut HashMap<Ino, Entries>) {
        match self {
            Self::Create { at, ino } => {
                names.entry(at.dir).or_default().insert(at.name.clone(), *ino);
            }
            Self::Remove { at, .. } => {
                names.entry(at.dir).or_default().remove(&at.name);
            }
            Self::Rename { from, to, ino } => {
                names.entry(from.dir).or_default().remove(&from.name);
                names.entry(to.dir).or_default().insert(to.name.clone(), *ino);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Pending {
    seq: u64,
    change: Change,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    live: HashMap<Ino, Entries>,
    durable: HashMap<Ino, Entries>,
    pending: Vec<Pending>,
}

// === impl Names ===

impl Names {
    pub(crate) fn lookup(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.live.get(&dir)?.get(name).copied()
    }

    pub(crate) fn entries(&self, dir: Ino) -> impl Iterator<Item = (&OsString, Ino)> {
        self.live.get(&dir).into_iter().flatten().map(|(name, ino)| (name, *ino))
    }

    pub(crate) fn change(&mut self, seq: u64, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(Pending { seq, change });
    }

    /// That an operation which named this inode is not durable.
    pub(crate) fn name_is_pending(&self, ino: Ino) -> bool {
        self.pending.iter().any(|pending| pending.change.ino() == ino)
    }

    /// A sync of a directory that began at `seq`: its operations until then become durable, with what they need.
    pub(crate) fn sync_dir(&mut self, dir: Ino, seq: u64) {
        let covered: Vec<bool> =
            self.pending.iter().map(|p| p.seq <= seq && p.change.touches(dir)).collect();
        self.make_durable(covered);
    }

    /// A commit of the whole metadata log as it was at `seq`.
    pub(crate) fn sync_all(&mut self, seq: u64) {
        let covered = self.pending.iter().map(|pending| pending.seq <= seq).collect();
        self.make_durable(covered);
    }

    /// The names as a cut leaves them, all durable.
    pub(crate) fn survive(&self, rng: &mut StdRng, odds: &Odds, losses: &mut Losses) -> Self {
        let kept = match odds.names {
            NameSurvival::Prefix => self.prefix(rng, odds),
            NameSurvival::Subset | NameSurvival::Either => self.subset(rng, odds),
        };
        let mut names = self.durable.clone();
        for (pending, kept) in self.pending.iter().zip(kept) {
            if kept {
                pending.change.apply(&mut names);
                losses.names_kept += 1;
            } else {
                losses.names_lost += 1;
            }
        }
        Self::whole(names)
    }

    /// The names as they are now, all durable.
    pub(crate) fn settled(&self) -> Self {
        Self::whole(self.live.clone())
    }

    /// Inodes that the root leads to.
    pub(crate) fn reachable(&self) -> HashSet<Ino> {
        let mut seen = HashSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            for (_, ino) in self.entries(dir) {
                if seen.insert(ino) {
                    open.push(ino);
                }
            }
        }
        seen
    }

    /// Forgets directories that nothing leads to.
    pub(crate) fn retain(&mut self, inodes: &HashSet<Ino>) {
        self.live.retain(|dir, _| inodes.contains(dir));
        self.durable.retain(|dir, _| inodes.contains(dir));
    }

    fn whole(names: HashMap<Ino, Entries>) -> Self {
        Self { live: names.clone(), durable: names, pending: Vec::new() }
    }

    /// Closes a set under what its members need, applies it and drops it from the pending ones.
    fn make_durable(&mut self, mut covered: Vec<bool>) {
        for later in (0..covered.len()).rev() {
            if !covered[later] {
                continue;
            }
            let change = &self.pending[later].change;
            for (covered, earlier) in covered.iter_mut().zip(&self.pending[..later]) {
                *covered |= change.needs(&earlier.change);
            }
        }
        let mut covered = covered.into_iter();
        self.pending.retain(|pending| {
            let durable = covered.next().unwrap_or(false);
            if durable {
                pending.change.apply(&mut self.durable);
            }
            !durable
        });
    }

    fn prefix(&self, rng: &mut StdRng, odds: &Odds) -> Vec<bool> {
        let count = self.pending.len();
        let kept = if rng.random_bool(odds.name) { count } else { rng.random_range(0..=count) };
        (0..count).map(|index| index < kept).collect()
    }

    fn subset(&self, rng: &mut StdRng, odds: &Odds) -> Vec<bool> {
        let mut kept: Vec<bool> = Vec::with_capacity(self.pending.len());
        for (index, pending) in self.pending.iter().enumerate() {
            let mut earlier = self.pending[..index].iter().zip(&kept);
            let possible =
                earlier.all(|(earlier, kept)| *kept || !pending.change.needs(&earlier.change));
            kept.push(possible && rng.random_bool(odds.name));
        }
        kept
    }
}
