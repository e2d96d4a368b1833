//! Stretches of a constant load, with and without what is measured, and the latencies in them.

use std::time::Duration;

use super::steady::Call;

/// Calls of a load that has just begun are left out.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);
/// Between the end of what is measured and what counts as without.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// A stretch of the load, since it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Window {
    pub(super) fn overlaps(self, call: &Call) -> bool {
        call.due <= self.to && call.due + call.took >= self.from
    }

    pub(super) fn holds(self, call: &Call) -> bool {
        call.due >= self.from && call.due + call.took <= self.to
    }

    pub(super) fn seconds(self) -> f64 {
        self.to.saturating_sub(self.from).as_secs_f64()
    }
}

/// Sorted latencies of one side.
#[derive(Debug)]
pub(super) struct Side(pub(super) Vec<Duration>);

impl Side {
    pub(super) fn of<'a>(calls: impl Iterator<Item = &'a Call>) -> Self {
        let mut latencies: Vec<_> = calls.map(|call| call.took).collect();
        latencies.sort_unstable();
        Self(latencies)
    }

    /// Microseconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * quantile) as usize;
        self.0.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// The stretches around `with`, together as long, as near as may be in equal halves.
pub(super) fn without(with: Window) -> (Window, Window) {
    let half = (with.to - with.from) / 2;
    let before = Window { from: with.from.saturating_sub(half).max(WARM_UP), to: with.from };
    let rest = (with.to - with.from).saturating_sub(before.to.saturating_sub(before.from));
    let from = with.to + PAUSE;
    (before, Window { from, to: from + rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(due: u64, took: u64) -> Call {
        Call { due: Duration::from_millis(due), took: Duration::from_millis(took) }
    }

    fn window(from: u64, to: u64) -> Window {
        Window { from: Duration::from_millis(from), to: Duration::from_millis(to) }
    }

    #[test]
    fn a_call_that_overlaps_the_base_belongs_to_it_and_to_nothing_else() {
        let with = window(10_000, 20_000);
        for (call, inside) in [
            (call(9_000, 500), false),
            (call(9_000, 1_500), true),
            (call(15_000, 1), true),
            (call(19_999, 9_000), true),
            (call(20_001, 1), false),
        ] {
            assert_eq!(with.overlaps(&call), inside, "{call:?}");
            let (before, after) = without(with);
            assert!(!inside || !before.holds(&call) && !after.holds(&call), "{call:?}");
        }
    }

    #[test]
    fn the_windows_without_are_together_as_long() {
        for with in [window(10_000, 20_000), window(3_000, 20_000), window(60_000, 61_000)] {
            let (before, after) = without(with);
            assert_eq!(before.seconds() + after.seconds(), with.seconds());
            assert!(before.from >= WARM_UP && after.from > with.to);
        }
    }

    #[test]
    fn quantiles_are_of_sorted_latencies() {
        let calls: Vec<_> = (0..1000).rev().map(|n| call(0, n)).collect();
        let side = Side::of(calls.iter());
        assert_eq!(side.quantile(0.5), 499e3);
        assert_eq!(side.quantile(0.99), 989e3);
        assert_eq!(side.quantile(1.0), 999e3);
    }
}
