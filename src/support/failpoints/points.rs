//! Every failpoint there is, and what happens where one is reached.

use std::time::Duration;

use parking_lot::Mutex;

use super::http;
use super::terms::{Act, Terms};
use crate::support::spawn::rest;

/// Go's exit code after a panic.
const PANICKED: i32 = 2;

/// Held while a request is answered: whoever arms a place that ends the process is answered first.
static ANSWERING: Mutex<()> = Mutex::new(());

/// A place in the code.
#[derive(Debug)]
pub(crate) struct Point {
    name: &'static str,
    terms: Mutex<Option<Terms>>,
}

/// A failpoint was not armed, disarmed or looked at, in gofail's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PointError {
    #[error("failpoint: failpoint does not exist")]
    Unknown,
    #[error("failpoint: failpoint is disabled")]
    Disarmed,
    #[error("failpoint: could not parse terms")]
    Terms,
}

macro_rules! points {
    ($($name:ident)*) => {
        /// The places, by etcd's names.
        #[expect(non_upper_case_globals, reason = "these are etcd's names")]
        pub(crate) mod point {
            use super::Point;

            $(pub(crate) static $name: Point = Point::new(stringify!($name));)*
        }

        /// All of them.
        pub(super) static ALL: &[&Point] = &[$(&point::$name),*];
    };
}

points! {
    applyAfterOpenSnapshot
    applyBeforeOpenSnapshot
    beforeApplyOneConfChange
    beforeApplyOneEntryNormal
    beforeCheckpointInLeaseRenew
    beforeLookupWhenLeaseTimeToLive
    beforePublishing
    beforeRangeStreamChunk
    beforeSendWatchResponse
    beforeWritebackBuf
    compactAfterAcquiredBatchTxLock
    compactAfterSetFinishedCompact
    compactBeforeSetFinishedCompact
    defragBeforeCopy
    defragBeforeRename
    defragOpenFileError
    defragdbFail
    raftAfterSave
    raftBeforeSave
    walAfterSync
    walBeforeSync
}

impl Point {
    pub(super) const fn new(name: &'static str) -> Point {
        Point { name, terms: Mutex::new(None) }
    }

    fn next(&self) -> Act {
        self.terms.lock().as_mut().map_or(Act::Off, Terms::next)
    }

    /// Does what is to be done here, and holds the thread meanwhile.
    pub(crate) fn reach(&self) {
        if let Some(time) = self.act(self.next()) {
            rest(time);
        }
    }

    /// The same within a task: other tasks go on.
    pub(crate) async fn wait(&self) {
        if let Some(time) = self.act(self.next()) {
            tokio::time::sleep(time).await;
        }
    }

    /// The same on a thread, and what `return` tells this place.
    pub(crate) fn told(&self) -> Option<String> {
        let act = self.next();
        if let Act::Return(text) = act {
            return Some(text);
        }
        if let Some(time) = self.act(act) {
            rest(time);
        }
        None
    }

    /// How long to wait.
    fn act(&self, act: Act) -> Option<Duration> {
        match act {
            Act::Off | Act::Return(_) => None,
            Act::Sleep(time) => Some(time),
            Act::Print => {
                tracing::info!(failpoint = self.name, "failpoint print");
                None
            }
            Act::Panic(words) => self.end(&words),
        }
    }

    /// Ends the process as a panic ends one of Go's: at once, whoever is in the middle of what.
    fn end(&self, words: &str) -> ! {
        let _answered = ANSWERING.lock();
        tracing::error!(failpoint = self.name, words, "failpoint panic");
        std::process::exit(PANICKED)
    }
}

fn find(points: &[&'static Point], name: &str) -> Result<&'static Point, PointError> {
    points.iter().copied().find(|point| point.name == name).ok_or(PointError::Unknown)
}

pub(super) fn enable(points: &[&'static Point], name: &str, terms: &str) -> Result<(), PointError> {
    let point = find(points, name)?;
    let terms = Terms::parse(terms).ok_or(PointError::Terms)?;
    *point.terms.lock() = Some(terms);
    Ok(())
}

pub(super) fn disable(points: &[&'static Point], name: &str) -> Result<(), PointError> {
    let before = find(points, name)?.terms.lock().take();
    before.map(drop).ok_or(PointError::Disarmed)
}

/// Its terms, and how often something was done.
pub(super) fn status(points: &[&'static Point], name: &str) -> Result<(String, u64), PointError> {
    let terms = find(points, name)?.terms.lock();
    let terms = terms.as_ref().ok_or(PointError::Disarmed)?;
    Ok((terms.text().to_owned(), terms.done()))
}

/// A line for each: `name=terms`.
pub(super) fn list(points: &[&'static Point]) -> String {
    let line = |point: &&Point| {
        let terms = point.terms.lock();
        format!("{}={}\n", point.name, terms.as_ref().map_or("", Terms::text))
    };
    points.iter().map(line).collect()
}

/// Reads `name=terms;name=terms`.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let pair = |part| match str::split_once(part, '=') {
        Some((name, terms)) if !terms.contains('=') => Ok((name, terms)),
        Some(_) | None => Err(format!("bad failpoint {part:?}")),
    };
    text.split(';').filter(|part| !part.is_empty()).map(pair).collect()
}

/// Arms what `GOFAIL_FAILPOINTS` says, and serves `GOFAIL_HTTP`, if they are set. Names that are not ours are skipped,
/// as by gofail.
pub(crate) fn arm(variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let text = variable("GOFAIL_FAILPOINTS").unwrap_or_default();
    for (name, terms) in pairs(&text)? {
        if let Err(why) = enable(ALL, name, terms) {
            tracing::warn!(failpoint = name, terms, error = %why, "a failpoint is not armed");
        }
    }
    match variable("GOFAIL_HTTP").filter(|address| !address.is_empty()) {
        Some(address) => http::serve(&address, ALL, &ANSWERING)
            .map_err(|why| format!("cannot serve failpoints at {address}: {why}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_armed_looked_at_and_disarmed_in_gofails_words() {
        static HERE: Point = Point::new("here");
        let points = &[&HERE];
        assert_eq!(status(points, "here"), Err(PointError::Disarmed));
        assert_eq!(enable(points, "there", "print"), Err(PointError::Unknown));
        assert_eq!(enable(points, "here", "prin"), Err(PointError::Terms));
        enable(points, "here", "1*return(\"x\")").unwrap();
        assert_eq!(HERE.told().as_deref(), Some("x"));
        assert_eq!(HERE.told(), None);
        assert_eq!(status(points, "here").unwrap(), ("1*return(\"x\")".to_owned(), 1));
        assert_eq!(list(points), "here=1*return(\"x\")\n");
        disable(points, "here").unwrap();
        assert_eq!(disable(points, "here"), Err(PointError::Disarmed));
        assert_eq!(list(points), "here=\n");
    }

    #[test]
    fn pairs_are_read_from_the_environment() {
        assert_eq!(pairs("a=print;b=sleep(1);").unwrap(), [("a", "print"), ("b", "sleep(1)")]);
        assert!(pairs("").unwrap().is_empty());
        assert_eq!(pairs("a").unwrap_err(), "bad failpoint \"a\"");
    }

    #[test]
    fn names_are_sorted_and_once() {
        let names: Vec<&str> = ALL.iter().map(|point| point.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
