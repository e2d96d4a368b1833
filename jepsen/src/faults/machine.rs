//! How long this machine kept everyone waiting: for a core, and for its disk.
//!
//! A server that had no core cannot answer in time. A gap in which the machine itself stood still for a good part of
//! it says nothing about the server.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::traffic::Arena;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Less than this is no stall.
const STALL_MIN: Duration = Duration::from_millis(50);

/// The machine stood still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    at: Duration,
    took: Duration,
}

/// All stalls of a run.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Vec<Stall>);

impl Stalls {
    /// The time the machine stood still from `from` on for `time`.
    pub(crate) fn within(&self, from: Duration, time: Duration) -> Duration {
        let to = from + time;
        let part =
            |stall: &Stall| (stall.at + stall.took).min(to).saturating_sub(stall.at.max(from));
        self.0.iter().map(part).sum()
    }
}

/// A thread that sleeps, writes, syncs, and notes what took longer than it should.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    watcher: JoinHandle<Result<Stalls>>,
}

impl Watch {
    /// On the file system of `folder`.
    pub(crate) fn begin(folder: &Path, arena: Arena) -> Result<Self> {
        let file = File::create(folder.join("heartbeat")).context("a file to sync")?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let watcher = thread::spawn(move || {
            let mut stalls = Stalls::default();
            while !stop.load(Ordering::Relaxed) {
                let (at, asked) = (arena.now(), Instant::now());
                thread::sleep(LOOK_EVERY);
                file.write_at(&[1; 4096], 0)?;
                file.sync_data()?;
                let took = asked.elapsed().saturating_sub(LOOK_EVERY);
                if took > STALL_MIN {
                    stalls.0.push(Stall { at, took });
                }
            }
            Ok(stalls)
        });
        Ok(Self { over, watcher })
    }

    pub(crate) fn end(self) -> Result<Stalls> {
        self.over.store(true, Ordering::Relaxed);
        match self.watcher.join() {
            Ok(stalls) => stalls,
            Err(_) => bail!("the watcher of the machine panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_as_far_as_it_overlaps() {
        let at = Duration::from_millis;
        let stalls = Stalls(vec![Stall { at: at(100), took: at(100) }]);
        for (from, time, expected) in [(0, 100, 0), (0, 150, 50), (120, 30, 30), (150, 900, 50)] {
            assert_eq!(stalls.within(at(from), at(time)), at(expected), "{from} {time}");
        }
    }
}
