//! How kind one power cut is, drawn from its seed, and what it kept and lost.

use std::ops::AddAssign;

use rand::Rng;
use rand::rngs::StdRng;

/// How unsynced directory operations survive a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NameSurvival {
    /// Any subset in which each name's own history is a prefix: a file system without a metadata log.
    Subset,
    /// A prefix of all directory operations in the order they were made: one metadata log, as ext4 and xfs have.
    Prefix,
    /// One of the two, by the cut's seed.
    Either,
}

/// The chances of one cut. Probabilities are shares of 1.
#[derive(Debug, Clone)]
pub(crate) struct Odds {
    /// That an unsynced page write survives.
    pub(crate) page: f64,
    /// That a surviving page write is torn at sector borders.
    pub(crate) torn: f64,
    /// That the newest unsynced size of a file survives; otherwise any older one since its last sync.
    pub(crate) size: f64,
    /// That one unsynced directory operation survives.
    pub(crate) name: f64,
    /// `Either` is resolved before a cut.
    pub(crate) names: NameSurvival,
    /// That half of the files draw their own chances.
    pub(crate) mixed: bool,
}

impl Odds {
    /// Draws a cut's character: all lost and all kept are as likely as anything between.
    pub(crate) fn draw(rng: &mut StdRng, torn: bool, names: NameSurvival) -> Self {
        let names = match names {
            NameSurvival::Either if rng.random_bool(0.5) => NameSurvival::Prefix,
            NameSurvival::Either | NameSurvival::Subset => NameSurvival::Subset,
            NameSurvival::Prefix => NameSurvival::Prefix,
        };
        Self {
            page: share(rng),
            torn: if torn && rng.random_bool(0.5) { 0.2 } else { 0.0 },
            size: share(rng),
            name: share(rng),
            names,
            mixed: rng.random_bool(0.5),
        }
    }

    /// The same cut seen by one file.
    pub(crate) fn for_file(&self, rng: &mut StdRng) -> Self {
        let mut own = self.clone();
        if self.mixed && rng.random_bool(0.5) {
            own.page = share(rng);
            own.size = share(rng);
        }
        own
    }
}

fn share(rng: &mut StdRng) -> f64 {
    match rng.random_range(0..4u8) {
        0 => 0.0,
        1 => 1.0,
        _ => rng.random_range(0.0..1.0),
    }
}

/// What cuts kept and lost of the unsynced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Pages whose newest content survived whole.
    pub(crate) pages_kept: u64,
    /// Pages that went back to an older content.
    pub(crate) pages_lost: u64,
    /// Pages that are a mixture of sectors.
    pub(crate) pages_torn: u64,
    /// Files whose newest size survived.
    pub(crate) sizes_kept: u64,
    /// Files that went back to an older size.
    pub(crate) sizes_lost: u64,
    /// Directory operations that survived.
    pub(crate) names_kept: u64,
    /// Directory operations that did not.
    pub(crate) names_lost: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.pages_kept += other.pages_kept;
        self.pages_lost += other.pages_lost;
        self.pages_torn += other.pages_torn;
        self.sizes_kept += other.sizes_kept;
        self.sizes_lost += other.sizes_lost;
        self.names_kept += other.names_kept;
        self.names_lost += other.names_lost;
    }
}

impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "pages kept {} lost {} torn {}, sizes kept {} lost {}, directory operations kept {} lost {}",
            self.pages_kept,
            self.pages_lost,
            self.pages_torn,
            self.sizes_kept,
            self.sizes_lost,
            self.names_kept,
            self.names_lost
        )
    }
}
