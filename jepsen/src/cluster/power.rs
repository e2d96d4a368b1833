//! A member's disk that forgets what was not synced when its power is cut.
//!
//! Each process of a cluster has a mount namespace of its own, with copies of the mounts it was started beside. The
//! folder of all disks is shared between them, so that a disk that is unmounted is gone everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::powerfs::image::{Image, Lies, NameSync};
use crate::powerfs::mount::PowerFs;
use crate::powerfs::odds::{Losses, NameSurvival, Odds};
use crate::powerfs::trap::Armed;

const SYNC_LATENCY: Duration = Duration::from_micros(300);

/// A folder in which mounts and unmounts are seen from every namespace made after it.
#[derive(Debug)]
pub(crate) struct SharedFolder(PathBuf);

impl SharedFolder {
    pub(crate) fn over(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        mount(&["--bind"], &[folder, folder])?;
        let shared = Self(folder.to_owned());
        mount(&["--make-shared"], &[folder])?;
        Ok(shared)
    }
}

impl Drop for SharedFolder {
    fn drop(&mut self) {
        let _not_there = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(options: &[&str], paths: &[&Path]) -> Result<()> {
    let status = Command::new("mount").args(options).args(paths).status()?;
    ensure!(status.success(), "mount {options:?} {paths:?}: {status}");
    Ok(())
}

/// One member's disk, mounted.
#[derive(Debug)]
pub(crate) struct PowerDisk {
    at: PathBuf,
    fs: PowerFs,
}

// === impl PowerDisk ===

impl PowerDisk {
    /// An empty disk; syncs of files with one of `lies` in their path do nothing.
    pub(crate) fn mount(at: &Path, lies: &[String]) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let lies = Lies { files: lies.to_vec(), directories: false };
        Self::with(Image::new(NameSync::Strict, lies), at)
    }

    fn with(image: Image, at: &Path) -> Result<Self> {
        let fs = PowerFs::mount(image, at, SYNC_LATENCY)
            .context("cannot mount a disk: FUSE needs root or fusermount3")?;
        Ok(Self { at: at.to_owned(), fs })
    }

    /// The power will go with one of the next calls, half of the time.
    pub(crate) fn arm(&self, rng: &mut StdRng, bits: u32) {
        if rng.random_bool(0.5) {
            let bits = rng.random_range(0..bits);
            let then = rng.random_range(1..=1 << bits);
            self.fs.with(|image| image.arm(Armed { pattern: String::new(), matching: 0, then }));
        }
    }

    pub(crate) fn wait_for_cut(&self, time: Duration) {
        self.fs.wait_for_cut(time);
    }

    /// From now on nothing is written, synced or read.
    pub(crate) fn freeze(&self) {
        self.fs.with(Image::freeze);
    }

    /// The disk as it is found after the cut. No process may have files of it open.
    pub(crate) fn forget(self, rng: &mut StdRng) -> Result<(Self, Losses)> {
        let image = self.fs.unmount().context("cannot unmount a disk")?;
        let odds = Odds::draw(rng, true, NameSurvival::Either);
        let (left, losses) = image.cut(rng, &odds);
        Ok((Self::with(left, &self.at)?, losses))
    }
}
