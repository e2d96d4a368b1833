//! The glue between the kernel and the [`Image`]: each FUSE request is one call of the model under one lock.
//!
//! ```text
//!  fuser threads ──▶ Disk (Filesystem) ──lock──▶ Image
//!                     fsync: begin · wait the device's latency, unlocked · finish
//!  harness ────────▶ PowerFs::wait_for_cut · freeze · replace
//! ```
//!
//! Nothing is written back late: without the kernel's writeback cache every `write` reaches the model before it
//! returns, so the model alone decides what is durable. Pages stay in the kernel's cache for reads and for `mmap`.
//! Each life of the server gets a mount of its own, so that no cache outlives a cut.
//!
//! **Invariant:** a sync answers only after the image took it as durable.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, OFlags};

use super::file::PAGE;
use super::image::{Image, Refused, Stat, Sync};
use super::names::Slot;

/// Nobody changes the tree but through the kernel, so it may remember what it saw.
const TTL: Duration = Duration::from_secs(3600);
/// Requests wait for syncs here; each has a thread as long as it does.
const THREADS: usize = 8;
/// One write request; larger writes come in pieces.
const WRITE_MAX: u32 = 1 << 20;
/// What `statfs` calls the size of the disk; the model itself never fills up.
const DISK_PAGES: u64 = (64 << 30) / PAGE as u64;

#[derive(Debug)]
struct Shared {
    image: Mutex<Image>,
    /// Told when a trap has sprung.
    cut: Condvar,
}

/// A mounted image. Dropping it unmounts.
#[derive(Debug)]
pub(crate) struct PowerFs {
    shared: Arc<Shared>,
    session: BackgroundSession,
}

// === impl PowerFs ===

impl PowerFs {
    /// Mounts `image` on the directory `at`; each sync takes `sync_latency`.
    ///
    /// # Errors
    /// No `/dev/fuse`, neither root nor `fusermount3`, or the directory is missing.
    pub(crate) fn mount(image: Image, at: &Path, sync_latency: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared { image: Mutex::new(image), cut: Condvar::new() });
        let disk = Disk { shared: Arc::clone(&shared), sync_latency };
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("powerfs".to_owned()), MountOption::DefaultPermissions];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(disk, at, &config)?;
        Ok(Self { shared, session })
    }

    /// Looks at or changes the image between the kernel's requests.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Image) -> T) -> T {
        f(&mut self.shared.image.lock())
    }

    /// Blocks until a trap springs, at most for `time`; true when it did.
    pub(crate) fn wait_for_cut(&self, time: Duration) -> bool {
        let mut image = self.shared.image.lock();
        let mut frozen = |image: &mut Image| !image.is_frozen();
        self.shared.cut.wait_while_for(&mut image, &mut frozen, time);
        image.is_frozen()
    }

    /// Unmounts and hands the image back. Every process that had files open must be gone.
    ///
    /// # Errors
    /// The directory is still in use.
    pub(crate) fn unmount(self) -> io::Result<Image> {
        let image = self.shared.image.lock().clone();
        self.session.umount_and_join()?;
        Ok(image)
    }
}

#[derive(Debug)]
struct Disk {
    shared: Arc<Shared>,
    sync_latency: Duration,
}

// === impl Disk ===

impl Disk {
    /// One call of the model.
    fn call<T>(&self, f: impl FnOnce(&mut Image) -> Result<T, Refused>) -> Result<T, Errno> {
        let answer = f(&mut self.shared.image.lock());
        answer.map_err(|refused| {
            if refused == Refused::PowerIsOff {
                self.shared.cut.notify_all();
            }
            errno(refused)
        })
    }

    fn sync(&self, ino: INodeNo, data_only: bool) -> Result<(), Errno> {
        let sync: Sync = self.call(|image| image.begin_sync(ino.0, data_only))?;
        std::thread::sleep(self.sync_latency);
        self.call(|image| image.finish_sync(sync))
    }

    fn attributes(req: &Request, stat: &Stat) -> FileAttr {
        FileAttr {
            ino: INodeNo(stat.ino),
            size: stat.size,
            blocks: stat.pages * (PAGE as u64 / 512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: kind(stat),
            perm: stat.permissions,
            nlink: if stat.directory { 2 } else { 1 },
            uid: req.uid(),
            gid: req.gid(),
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        }
    }
}

fn kind(stat: &Stat) -> FileType {
    if stat.directory { FileType::Directory } else { FileType::RegularFile }
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::NotFound => Errno::ENOENT,
        Refused::Exists => Errno::EEXIST,
        Refused::NotADirectory => Errno::ENOTDIR,
        Refused::IsADirectory => Errno::EISDIR,
        Refused::NotEmpty => Errno::ENOTEMPTY,
        Refused::PowerIsOff => Errno::EIO,
    }
}

fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

fn empty(answer: Result<(), Errno>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(req: &Request, answer: Result<Stat, Errno>, reply: ReplyEntry) {
    match answer {
        Ok(stat) => reply.entry(&TTL, &Disk::attributes(req, &stat), Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config
            .set_max_write(WRITE_MAX)
            .map(|_before| ())
            .map_err(|nearest| io::Error::other(format!("kernel wants max_write {nearest}")))
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(req, self.call(|image| image.lookup(parent.0, name)), reply);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.call(|image| image.stat(ino.0)) {
            Ok(stat) => reply.attr(&TTL, &Self::attributes(req, &stat)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let answer = self.call(|image| {
            if let Some(mode) = mode {
                image.set_permissions(ino.0, permissions(mode, 0))?;
            }
            if let Some(size) = size {
                image.truncate(ino.0, size)?;
            }
            image.stat(ino.0)
        });
        match answer {
            Ok(stat) => reply.attr(&TTL, &Self::attributes(req, &stat)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let permissions = permissions(mode, umask);
        entry(req, self.call(|image| image.create(parent.0, name, true, permissions)), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let permissions = permissions(mode, umask);
        match self.call(|image| image.create(parent.0, name, false, permissions)) {
            Ok(stat) => reply.created(
                &TTL,
                &Self::attributes(req, &stat),
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.call(|image| image.remove(parent.0, name, false)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.call(|image| image.remove(parent.0, name, true)), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let exclusive = flags == RenameFlags::RENAME_NOREPLACE;
        if !exclusive && !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = (Slot::new(parent.0, name), Slot::new(newparent.0, newname));
        empty(self.call(|image| image.rename(&from, &to, exclusive)), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.call(|image| image.stat(ino.0)) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.call(|image| image.read(ino.0, offset, size as usize)) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let synced = OFlags::from_bits_retain(flags.0 as u32).contains(OFlags::DSYNC);
        let written = self.call(|image| image.write(ino.0, offset, data));
        let answer = if synced { written.and_then(|()| self.sync(ino, true)) } else { written };
        match answer {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    /// Every `close`: promises nothing.
    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(self.call(|image| image.stat(ino.0).map(|_| ())), reply);
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.sync(ino, datasync), reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.sync(ino, datasync), reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = match self.call(|image| image.list(ino.0)) {
            Ok(list) => list,
            Err(error) => return reply.error(error),
        };
        // The place in the stream is made of the inode number, so that removing names between two calls skips none.
        // A parent's inode number is for show: the kernel resolves `..` by itself.
        let dot = |at, name: &str| (at, OsStr::new(name).to_owned(), ino, FileType::Directory);
        let mut all = vec![dot(1, "."), dot(2, "..")];
        all.extend(
            list.into_iter()
                .map(|(name, stat)| (stat.ino + 2, name, INodeNo(stat.ino), kind(&stat))),
        );
        all.sort_unstable_by_key(|(at, ..)| *at);
        for (at, name, ino, kind) in all.into_iter().filter(|(at, ..)| *at > offset) {
            if reply.add(ino, at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.call(|image| Ok(image.allocated_pages())) {
            Ok(used) => {
                let free = DISK_PAGES.saturating_sub(used);
                reply.statfs(DISK_PAGES, free, free, 1 << 20, 1 << 20, PAGE as u32, 255, 0);
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
        let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !(FallocateFlags::KEEP_SIZE | zeroes).contains(mode) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let answer = self.call(|image| {
            if mode.intersects(zeroes) {
                image.zero(ino.0, offset, length)?;
            }
            let end = offset.saturating_add(length);
            if !keep_size && image.stat(ino.0)?.size < end {
                image.truncate(ino.0, end)?;
            }
            Ok(())
        });
        empty(answer, reply);
    }
}
