//! A device in memory with two images: what a running process sees, and what the disk would still have after a
//! power cut. Tests stop it at any sync point and open what a cut would leave.
//!
//! ```text
//!   write_at ──▶ live image ──sync_data──▶ durable image ──┐
//!                  dirty pages ──── a random subset ───────┼──▶ after_power_cut(seed)
//!   rename … ──▶ live names ──sync_dir───▶ durable names ──┤
//!                  pending operations ── a random subset ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{LogDevice, LogFile};

const PAGE: usize = 4096;

/// The double. Clones share one disk; what a process does to one is seen through the other.
#[derive(Clone, Debug)]
pub struct DoubleDevice {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    shrunk_to: Option<usize>,
}

#[derive(Clone, Debug)]
struct Disk {
    contents: BTreeMap<u64, Content>,
    live_names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    next_id: u64,
    capacity: u64,
    syncs: u64,
    freeze_at: Option<u64>,
    frozen: bool,
    fail_sync_at: Option<u64>,
    fail_writes: bool,
    sync_dir_lies: bool,
    sync_data_lies: bool,
}

#[derive(Debug)]
struct DoubleFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl Default for DoubleDevice {
    fn default() -> Self {
        DoubleDevice::with_capacity(u64::MAX)
    }
}

impl DoubleDevice {
    /// An empty disk of `capacity` bytes.
    pub fn with_capacity(capacity: u64) -> DoubleDevice {
        DoubleDevice {
            disk: Arc::new(Mutex::new(Disk {
                contents: BTreeMap::new(),
                live_names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending: Vec::new(),
                next_id: 0,
                capacity,
                syncs: 0,
                freeze_at: None,
                frozen: false,
                fail_sync_at: None,
                fail_writes: false,
                sync_dir_lies: false,
                sync_data_lies: false,
            })),
        }
    }

    /// Syncs asked for so far, of files and of the directory.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// The power goes at sync number `n` (from 0), before it takes effect; everything after it fails.
    pub fn freeze_at(&self, n: u64) {
        self.disk.lock().freeze_at = Some(n);
    }

    /// The power is gone.
    pub fn is_frozen(&self) -> bool {
        self.disk.lock().frozen
    }

    /// Sync number `n` fails. A file's pages are clean afterwards without being on the disk, as on Linux; changes of
    /// names stay pending.
    pub fn fail_sync_at(&self, n: u64) {
        self.disk.lock().fail_sync_at = Some(n);
    }

    /// Every write fails while set.
    pub fn fail_writes(&self, fail: bool) {
        self.disk.lock().fail_writes = fail;
    }

    /// Syncs of the directory answer without having done anything: for proving a test.
    pub fn lie_about_sync_dir(&self) {
        self.disk.lock().sync_dir_lies = true;
    }

    /// Syncs of files answer without having done anything: for proving a test.
    pub fn lie_about_sync_data(&self) {
        self.disk.lock().sync_data_lies = true;
    }

    /// Changes what fits; below what is used, nothing more can be written.
    pub fn set_capacity(&self, capacity: u64) {
        self.disk.lock().capacity = capacity;
    }

    /// The disk as a machine that lost power would find it: what was synced, and of the rest a random subset of
    /// pages and of directory operations, drawn from `seed`.
    pub fn after_power_cut(&self, seed: u64) -> DoubleDevice {
        let mut rng = StdRng::seed_from_u64(seed);
        let keep = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
        let mut disk = self.disk.lock().clone();
        for content in disk.contents.values_mut() {
            let dirty = std::mem::take(&mut content.dirty);
            for page in dirty.into_iter().filter(|_| rng.random_bool(keep)) {
                content.persist(page);
            }
            if content.shrunk_to.take().is_some_and(|_| rng.random_bool(keep)) {
                content.durable.truncate(content.live.len());
            }
            content.live = content.durable.clone();
        }
        for change in std::mem::take(&mut disk.pending) {
            if rng.random_bool(keep) {
                apply_change(&mut disk.durable_names, &change);
            }
        }
        disk.live_names = disk.durable_names.clone();
        disk.switch_on();
        DoubleDevice { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The disk as a new process on the same running machine finds it: the page cache lives on.
    pub fn after_kill(&self) -> DoubleDevice {
        let mut disk = self.disk.lock().clone();
        disk.switch_on();
        DoubleDevice { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Bytes of a file as a process sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let id = disk.live_names.get(name)?;
        Some(disk.contents[id].live.clone())
    }

    /// Replaces a file's bytes in both images, as rot or a careless hand would; `None` removes it.
    pub fn damage(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut disk = self.disk.lock();
        let Some(bytes) = bytes else {
            disk.live_names.remove(name);
            disk.durable_names.remove(name);
            return;
        };
        let id = disk.id_for_new(name);
        disk.durable_names.insert(name.to_owned(), id);
        disk.contents.insert(
            id,
            Content {
                live: bytes.clone(),
                durable: bytes,
                dirty: BTreeSet::new(),
                shrunk_to: None,
            },
        );
    }
}

impl Content {
    fn persist(&mut self, page: usize) {
        let start = page * PAGE;
        let end = (start + PAGE).min(self.live.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.live[start..end]);
    }
}

fn apply_change(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Add(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Disk {
    fn switch_on(&mut self) {
        self.syncs = 0;
        self.freeze_at = None;
        self.frozen = false;
        self.fail_sync_at = None;
        self.fail_writes = false;
    }

    fn powered(&self) -> io::Result<()> {
        if self.frozen { Err(power_off()) } else { Ok(()) }
    }

    /// Counts a sync; an error when the power goes or the sync is to fail.
    fn count_sync(&mut self) -> io::Result<bool> {
        self.powered()?;
        let number = self.syncs;
        self.syncs += 1;
        if self.freeze_at.is_some_and(|at| number >= at) {
            self.frozen = true;
            return Err(power_off());
        }
        Ok(self.fail_sync_at != Some(number))
    }

    fn used(&self) -> u64 {
        let live: BTreeSet<u64> = self.live_names.values().copied().collect();
        live.iter().map(|id| self.contents[id].live.len() as u64).sum()
    }

    fn room_for(&self, more: u64) -> io::Result<()> {
        if self.used().saturating_add(more) > self.capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn id_for_new(&mut self, name: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.live_names.insert(name.to_owned(), id);
        id
    }

    fn add(&mut self, name: &str, bytes: Vec<u8>) -> u64 {
        let id = self.id_for_new(name);
        self.pending.push(NameChange::Add(name.to_owned(), id));
        self.contents.insert(
            id,
            Content {
                live: bytes.clone(),
                durable: bytes,
                dirty: BTreeSet::new(),
                shrunk_to: None,
            },
        );
        id
    }

    fn change_name(&mut self, change: NameChange) {
        apply_change(&mut self.live_names, &change);
        self.pending.push(change);
    }
}

impl LogFile for DoubleFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.lock();
        disk.powered()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = disk.contents[&self.id].live.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        if disk.fail_writes {
            return Err(io::Error::other("this write fails on demand"));
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        let size = disk.contents[&self.id].live.len();
        if end > size {
            disk.room_for((end - size) as u64)?;
        }
        let content = disk.contents.get_mut(&self.id).expect("an open file has content");
        if end > size {
            content.live.resize(end, 0);
        }
        content.live[start..end].copy_from_slice(bytes);
        if end > start {
            content.dirty.extend(start / PAGE..=(end - 1) / PAGE);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let works = disk.count_sync()?;
        if disk.sync_data_lies {
            return Ok(());
        }
        let content = disk.contents.get_mut(&self.id).expect("an open file has content");
        let dirty = std::mem::take(&mut content.dirty);
        if !works {
            return Err(io::Error::other("this sync fails on demand"));
        }
        for page in dirty {
            content.persist(page);
        }
        if let Some(size) = content.shrunk_to.take() {
            content.durable.truncate(size);
        }
        Ok(())
    }

    fn shrink(&self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let content = disk.contents.get_mut(&self.id).expect("an open file has content");
        content.live.truncate(size);
        content.dirty.retain(|page| page * PAGE < size);
        content.shrunk_to = Some(size);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        disk.powered()?;
        Ok(disk.contents[&self.id].live.len() as u64)
    }
}

impl DoubleDevice {
    fn file(&self, id: u64) -> Arc<dyn LogFile> {
        Arc::new(DoubleFile { disk: Arc::clone(&self.disk), id })
    }
}

impl LogDevice for DoubleDevice {
    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        disk.powered()?;
        Ok(disk.live_names.keys().cloned().collect())
    }

    fn create_zeroed(
        &self,
        name: &str,
        size: u64,
        _written: &mut dyn FnMut(u64),
    ) -> io::Result<Arc<dyn LogFile>> {
        let mut disk = self.disk.lock();
        disk.count_sync()?;
        if let Err(full) = disk.room_for(size) {
            disk.add(name, Vec::new());
            return Err(full);
        }
        let id = disk.add(name, vec![0; usize::try_from(size).map_err(io::Error::other)?]);
        drop(disk);
        Ok(self.file(id))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        let id = disk.add(name, Vec::new());
        drop(disk);
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let disk = self.disk.lock();
        disk.powered()?;
        let id = *disk.live_names.get(name).ok_or_else(|| not_found(name))?;
        drop(disk);
        Ok(self.file(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        if !disk.live_names.contains_key(from) {
            return Err(not_found(from));
        }
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.powered()?;
        if !disk.live_names.contains_key(name) {
            return Err(not_found(name));
        }
        disk.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let works = disk.count_sync()?;
        if disk.sync_dir_lies {
            return Ok(());
        }
        if !works {
            // Names go through the file system's own journal: what failed stays to be done, unlike pages of a file.
            return Err(io::Error::other("this sync fails on demand"));
        }
        for change in std::mem::take(&mut disk.pending) {
            apply_change(&mut disk.durable_names, &change);
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        disk.powered()?;
        Ok(disk.capacity.saturating_sub(disk.used()))
    }
}
