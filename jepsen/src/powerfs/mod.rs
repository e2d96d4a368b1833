//! A file system that forgets what was not synced when the power is cut.
//!
//! ```text
//!  server process ── syscalls ──▶ kernel ── FUSE ──▶ mount (glue) ──▶ Image
//!                                                                      │ files: pages, sizes   (file)
//!                                                                      │ directories: names    (names)
//!                                                                      │ trap: when to freeze  (trap)
//!  cut: freeze (every call answers EIO) ▶ SIGKILL ▶ Image::cut(odds) ──▶ the image the next life starts on
//! ```
//!
//! Only `mount` knows FUSE; everything else is a pure model, tested without a kernel.
//!
//! **Invariant:** what a sync covered before it answered is in the image after a cut, whatever the seed. Of the
//! rest any part may be there: this is the adversary, and it promises nothing that POSIX does not.
//!
//! Not modelled: a device that lies about flushes, blocks of other files shown in a fresh one (data=writeback),
//! rot of what was synced, hard links, a full disk.

pub(crate) mod file;
pub(crate) mod image;
pub(crate) mod mount;
pub(crate) mod names;
pub(crate) mod odds;
pub(crate) mod trap;

#[cfg(test)]
mod file_test;
#[cfg(test)]
mod image_test;
#[cfg(test)]
mod mount_test;
#[cfg(test)]
mod names_test;
#[cfg(test)]
mod seeds;
