//! One flat folder of files, behind a seam: the journal touches the disk only through it.
//!
//! ```text
//!   journal ──▶ LogDevice (names, directory) ──▶ LogFile (bytes)
//!                  │                                │
//!              FileDevice: std::fs + rustix     DoubleDevice: live and durable images, cut at any sync point
//! ```
//!
//! **Assumed of the device** (journal rule 11): a 4 KiB page that was synced is kept whole or reported bad; a page
//! written and not synced is kept, lost or left as it was before, each by itself; names change only as
//! [`LogDevice::sync_dir`] orders them, and a change that failed to sync may still become durable by a later one.
//! A device that answers a sync before the bytes are safe is out of scope.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod double;

/// A file of the device, open for reading and writing by any number of threads.
pub trait LogFile: Send + Sync + Debug {
    /// Fills `buf` from `offset` on; an end of file before that is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where it must.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when every byte written before is on the disk (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file off after `size` bytes. When that is durable is left open.
    fn shrink(&self, size: u64) -> io::Result<()>;
    /// Asks for `len` bytes from `offset` on to be written to the disk, and does not wait; a hint.
    fn push_out(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// Asks that what was synced be read from the disk again, not from memory; a hint.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// A folder of log files.
pub trait LogDevice: Send + Sync + Debug {
    /// The names in the folder, in name order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file of `size` zeroes, written out (not merely reserved) and synced. Its name is not yet synced.
    ///
    /// `written` is told of each part that was written, of a mebibyte at most, and takes as long as it likes.
    fn create_zeroed(
        &self,
        name: &str,
        size: u64,
        written: &mut dyn FnMut(u64),
    ) -> io::Result<Arc<dyn LogFile>>;
    /// A new empty file; its name is not yet synced.
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when every change of names made before is on the disk.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that may still be written.
    fn free_space(&self) -> io::Result<u64>;
}

/// What is written in the background, in bytes a second, unless the load itself is faster: bases, states that come from
/// another member, files made ahead of their use. The journal's syncs have to pass.
pub const BACKGROUND_PACE: f64 = (32 << 20) as f64;

const ZEROES: usize = 1 << 20;

/// The real device: a folder of the file system.
#[derive(Debug)]
pub struct FileDevice {
    folder: PathBuf,
    handle: File,
}

impl FileDevice {
    /// Bytes of the whole file system, in use or not.
    pub fn total_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// Opens `folder`, making it if it is absent (its parent is then synced).
    pub fn open(folder: &Path) -> io::Result<FileDevice> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(FileDevice { folder: folder.to_path_buf(), handle: File::open(folder)? })
    }

    fn new_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.folder.join(name))
    }
}

impl LogFile for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn shrink(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn push_out(&self, offset: u64, len: u64) -> io::Result<()> {
        // Linux begins to write back the dirty pages of a range that is not needed any more.
        let len = std::num::NonZeroU64::new(len);
        rustix::fs::fadvise(self, offset, len, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl LogDevice for FileDevice {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn create_zeroed(
        &self,
        name: &str,
        size: u64,
        written: &mut dyn FnMut(u64),
    ) -> io::Result<Arc<dyn LogFile>> {
        let file = self.new_file(name)?;
        let zeroes = vec![0; ZEROES];
        let mut offset = 0;
        while offset < size {
            let step = (size - offset).min(ZEROES as u64);
            FileExt::write_all_at(&file, &zeroes[..step as usize], offset)?;
            LogFile::push_out(&file, offset, step)?;
            offset += step;
            written(step);
        }
        file.sync_all()?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(self.new_file(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let path = self.folder.join(name);
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
