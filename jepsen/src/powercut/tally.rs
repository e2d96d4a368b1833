//! What a run did, for the report.

use std::collections::BTreeMap;
use std::fmt;

use super::check::Checked;
use super::plan::When;
use crate::powerfs::odds::Losses;

/// Sums over all lives.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: u32,
    pub(crate) at_startup: u32,
    pub(crate) by_time: u32,
    pub(crate) by_calls: u32,
    /// By the pattern aimed at.
    pub(crate) aimed: BTreeMap<String, u32>,
    /// While a file was there that is only there while a base is being written, whatever the aim was.
    pub(crate) during_base: u32,
    pub(crate) losses: Losses,
    /// Writes that were answered.
    pub(crate) acknowledged: u64,
    pub(crate) keys_checked: u64,
    pub(crate) leases_checked: u64,
    pub(crate) hashes_checked: u64,
    pub(crate) damages: u32,
    /// Damages under the running server, while a base was being written.
    pub(crate) live_damages: u32,
    pub(crate) rebuilds: usize,
}

// === impl Tally ===

impl Tally {
    /// Counts a cut; `sprung` tells that it fell where the plan aimed, not when the life's time was over.
    pub(crate) fn cut(&mut self, when: &When, sprung: bool) {
        self.cuts += 1;
        match when {
            When::Startup(_) => self.at_startup += 1,
            When::Calls(_) if sprung => self.by_calls += 1,
            When::Aimed { trap, .. } if sprung => {
                *self.aimed.entry(trap.pattern.clone()).or_default() += 1;
            }
            When::Calls(_) | When::Aimed { .. } | When::Time => self.by_time += 1,
        }
    }

    pub(crate) fn checked(&mut self, checked: Checked) {
        self.keys_checked += checked.keys;
        self.leases_checked += checked.leases;
        self.hashes_checked += checked.hashes;
    }

    pub(crate) fn proves_something(&self) -> bool {
        self.acknowledged > 0 && self.keys_checked > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cuts ({} by count of calls, {} by time, {} while starting",
            self.cuts, self.by_calls, self.by_time, self.at_startup
        )?;
        for (pattern, count) in &self.aimed {
            write!(f, ", {count} at {pattern}")?;
        }
        write!(f, "), {} while a base was being written; {}; ", self.during_base, self.losses)?;
        write!(
            f,
            "{} writes acknowledged; checked {} keys, {} leases, {} hashes",
            self.acknowledged, self.keys_checked, self.leases_checked, self.hashes_checked
        )?;
        if self.damages + self.live_damages > 0 {
            let (at_rest, live) = (self.damages, self.live_damages);
            write!(f, "; damages: {at_rest} at rest, {live} while a base was being written; ")?;
            write!(f, "{} rebuilds", self.rebuilds)?;
        }
        Ok(())
    }
}
