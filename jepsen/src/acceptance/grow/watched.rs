//! One watch of everything on one stream, from before the first change to after the last.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::client::Client;
use crate::traffic::Arena;
use crate::traffic::judge::Truth;
use crate::traffic::watchers::{Everything, LAST_KEY, Seen1};

/// So long after the load the last key may take.
const CATCH_UP: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);

/// What came, and why nothing came any more if it was not the last key.
#[derive(Debug, Default)]
pub(super) struct Watched {
    events: Vec<Seen1>,
    broke: Option<String>,
}

/// Never resumes.
pub(super) async fn watch(mut client: Client, arena: Arena) -> Watched {
    let mut watched = Watched::default();
    let Some(mut everything) = Everything::from(&mut client, 1, false).await else {
        watched.broke = Some("it was not opened".to_owned());
        return watched;
    };
    let mut over: Option<Instant> = None;
    while watched.broke.is_none() {
        match timeout(LOOK, everything.next()).await {
            Err(_) if arena.over() => {
                if over.get_or_insert_with(Instant::now).elapsed() > CATCH_UP {
                    watched.broke = Some(format!("the last key has not come in {CATCH_UP:?}"));
                }
            }
            Err(_) => {}
            Ok(None) => watched.broke = Some(format!("the stream broke at {:.1?}", arena.now())),
            Ok(Some(response)) if response.canceled => {
                watched.broke = Some(format!("cancelled: {}", response.cancel_reason));
            }
            Ok(Some(response)) => {
                let events = response.events.into_iter().map(Seen1::from);
                watched.events.extend(events);
                if watched.events.last().is_some_and(|last| last.key == LAST_KEY.as_bytes()) {
                    break;
                }
            }
        }
    }
    watched
}

impl Watched {
    /// Everything came, once and in order.
    pub(super) fn check(&self, truth: &Truth, findings: &mut Vec<String>) {
        println!("the watch saw {} of {} events", self.events.len(), truth.history.len());
        if let Some(why) = &self.broke {
            findings.push(format!("the watch that was open all the time: {why}"));
        }
        if !truth.history.starts_with(&self.events) {
            let pairs = truth.history.iter().zip(&self.events);
            let at = pairs.clone().position(|(written, seen)| written != seen);
            let first = at.and_then(|at| pairs.clone().nth(at));
            findings.push(format!("the watch differs from what was written: {first:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(revision: i64) -> Seen1 {
        Seen1 { revision, key: "a".into(), deleted: false, version: revision, value_sum: 0 }
    }

    fn findings(written: &[i64], seen: &[i64]) -> usize {
        let history = written.iter().map(|revision| event(*revision)).collect();
        let truth = Truth { revision: 9, state: BTreeMap::new(), history };
        let events = seen.iter().map(|revision| event(*revision)).collect();
        let mut findings = Vec::new();
        Watched { events, broke: None }.check(&truth, &mut findings);
        findings.len()
    }

    #[test]
    fn an_event_that_is_missed_or_comes_twice_is_found() {
        for (written, seen, expected) in [
            (&[2, 3, 4][..], &[2, 3, 4][..], 0),
            (&[2, 3, 4, 5], &[2, 3, 4], 0),
            (&[2, 3, 4], &[2, 4], 1),
            (&[2, 3, 4], &[2, 3, 3, 4], 1),
            (&[2, 3], &[2, 3, 4], 1),
        ] {
            assert_eq!(findings(written, seen), expected, "{written:?} {seen:?}");
        }
    }
}
