//! One log line where a storm would be: the same thing about the same member is told once in a while.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use tokio::time::Instant;

/// The same is told again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Who can invent member ids does not fill the memory: beyond this many, nothing more is told for a while.
const KNOWN_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<BTreeMap<(MemberId, String), Instant>>);

impl Quiet {
    /// Whether `what` about `member` is worth a line now.
    pub(super) fn allows(&self, member: MemberId, what: &str) -> bool {
        let mut told = self.0.lock();
        let now = Instant::now();
        let key = (member, what.to_owned());
        if told.get(&key).is_some_and(|at| now < *at + AGAIN_AFTER) {
            return false;
        }
        if told.len() >= KNOWN_MAX {
            told.retain(|_, at| now < *at + AGAIN_AFTER);
            if told.len() >= KNOWN_MAX {
                return false;
            }
        }
        told.insert(key, now);
        true
    }

    /// All is well with `member`: what goes wrong next is news.
    pub(super) fn forget(&self, member: MemberId) {
        self.0.lock().retain(|(about, _), _| *about != member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_told_again_only_after_a_while_or_after_good_news() {
        let quiet = Quiet::default();
        assert!(quiet.allows(MemberId(1), "a"));
        assert!(!quiet.allows(MemberId(1), "a"));
        assert!(quiet.allows(MemberId(2), "a") && quiet.allows(MemberId(1), "b"));
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(quiet.allows(MemberId(1), "a"));
        quiet.forget(MemberId(1));
        assert!(quiet.allows(MemberId(1), "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn invented_members_do_not_fill_the_memory() {
        let quiet = Quiet::default();
        let told = (0..1000).filter(|id| quiet.allows(MemberId(*id), "a")).count();
        assert_eq!(told, KNOWN_MAX);
    }
}
