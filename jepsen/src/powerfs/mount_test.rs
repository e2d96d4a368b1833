//! Bug guarded: a system call that the kernel sends in another way than the model expects. Real calls on a real
//! mount; where FUSE is not to be had the tests say so and prove nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::file::PAGE;
use super::image::{Image, Lies, NameSync};
use super::mount::PowerFs;
use super::odds::{NameSurvival, Odds};

const ALL_LOST: Odds =
    Odds { page: 0.0, torn: 0.0, size: 0.0, name: 0.0, names: NameSurvival::Subset, mixed: false };

/// An empty directory to mount on, removed afterwards.
struct MountPoint(PathBuf);

impl MountPoint {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("powerfs-{}-{serial}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let _left_for_the_eye = fs::remove_dir(&self.0);
    }
}

/// Runs `calls` on a mount, cuts the power with everything unsynced lost, and gives what is left to `look`.
fn cut_after(calls: impl FnOnce(&Path), look: impl FnOnce(&Path)) {
    let at = MountPoint::new();
    let empty = Image::new(NameSync::Strict, Lies::default());
    let mount = |image| PowerFs::mount(image, &at.0, Duration::ZERO);
    let disk = match mount(empty) {
        Ok(disk) => disk,
        Err(error) => return println!("not run, no FUSE here: {error}"),
    };
    calls(&at.0);
    disk.with(Image::freeze);
    let (left, _) =
        disk.unmount().unwrap().cut(&mut rand::SeedableRng::seed_from_u64(1), &ALL_LOST);
    let disk = mount(left).unwrap();
    look(&at.0);
    disk.unmount().unwrap();
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn synced_pages_and_names_outlive_a_cut_and_others_do_not() {
    cut_after(
        |root| {
            let mut kept = File::create(root.join("kept")).unwrap();
            kept.write_all(&[1; 3 * PAGE]).unwrap();
            kept.sync_data().unwrap();
            kept.write_all_at(&[2; PAGE], PAGE as u64).unwrap();
            File::create(root.join("empty")).unwrap().write_all(b"never synced").unwrap();
            sync_dir(root);
            File::create(root.join("nameless")).unwrap().sync_all().unwrap();
        },
        |root| {
            assert_eq!(fs::read(root.join("kept")).unwrap(), [1; 3 * PAGE]);
            assert_eq!(fs::read(root.join("empty")).unwrap(), b"");
            assert!(!root.join("nameless").exists());
        },
    );
}

#[test]
fn a_rename_is_durable_with_its_directory_and_replaces_in_one_step() {
    cut_after(
        |root| {
            for (name, content) in [("a", b"old"), ("tmp", b"new"), ("b", b"two")] {
                let mut file = File::create(root.join(name)).unwrap();
                file.write_all(content).unwrap();
                file.sync_all().unwrap();
            }
            fs::create_dir(root.join("d")).unwrap();
            fs::rename(root.join("tmp"), root.join("a")).unwrap();
            sync_dir(root);
            fs::rename(root.join("b"), root.join("a")).unwrap();
            fs::remove_dir(root.join("d")).unwrap();
        },
        |root| {
            assert_eq!(fs::read(root.join("a")).unwrap(), b"new");
            assert_eq!(fs::read(root.join("b")).unwrap(), b"two");
            assert!(root.join("d").is_dir());
        },
    );
}

#[test]
fn a_file_opened_for_synchronous_writes_needs_no_sync() {
    cut_after(
        |root| {
            let dsync = rustix::fs::OFlags::DSYNC.bits() as i32;
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(dsync)
                .open(root.join("a"))
                .unwrap();
            sync_dir(root);
            file.write_all(b"at once").unwrap();
        },
        |root| assert_eq!(fs::read(root.join("a")).unwrap(), b"at once"),
    );
}

#[test]
fn sizes_directories_and_removal_look_as_on_any_file_system() {
    let at = MountPoint::new();
    let empty = Image::new(NameSync::Strict, Lies::default());
    let disk = match PowerFs::mount(empty, &at.0, Duration::ZERO) {
        Ok(disk) => disk,
        Err(error) => return println!("not run, no FUSE here: {error}"),
    };
    let dir = at.0.join("d");
    fs::create_dir(&dir).unwrap();
    for index in 0..2000 {
        File::create(dir.join(format!("f{index}"))).unwrap();
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2000);
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("x")).unwrap();
    file.set_len(5 * PAGE as u64).unwrap();
    file.write_all_at(b"end", 5 * PAGE as u64 - 1).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5 * PAGE as u64 + 2);
    file.set_len(2).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\0\0");
    drop(file);
    assert!(fs::remove_dir(&dir).is_err(), "not empty");
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(fs::read_dir(&at.0).unwrap().count(), 0);
    disk.unmount().unwrap();
}
