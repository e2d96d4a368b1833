//! Small files that are replaced whole, and stay so when the machine goes down.
//!
//! ```text
//!   bytes ── beside it, under a name of its own ── fsync ── rename over the old one ── fsync of the folder
//! ```
//!
//! **Invariant:** who reads finds the whole old content or the whole new one, never a part; once a call has come back,
//! a power cut does not undo it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of files that hold a secret.
pub const SECRET: u32 = 0o600;
/// The mode of folders for their owner alone.
const PRIVATE: u32 = 0o700;
/// The mode of files that everybody may read.
pub const OPEN: u32 = 0o644;

/// Puts `content` at `path` in one step, with `mode`.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    let written = write_new(&beside, mode, content).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What could not be written is in nobody's way; the error that counts is the first.
        let _ = fs::remove_file(&beside);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file that nobody reads yet, and syncs it. Its folder is not synced.
pub fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
    // A file that was left over keeps its mode otherwise.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Removes the file; one that is not there is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the folder, with those above it, for its owner alone; one that is there gets that mode.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path);
    if found.is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o777 == PRIVATE) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames and removals in `folder` last.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// A name beside `path` that no other writer uses at the same time.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut own = std::ffi::OsString::from(".");
    own.push(name);
    own.push(format!(".{:016x}.new", rand::random::<u64>()));
    Ok(path.with_file_name(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, OPEN, b"a long first content").unwrap();
        replace(&path, SECRET, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["f"]);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_put_in_its_place_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(replace(&path, SECRET, b"x").is_err());
        assert_eq!(names(dir.path()), ["f"]);
        assert!(replace(&dir.path().join("missing/f"), SECRET, b"x").is_err());
    }
}
