//! Since when leaders of earlier terms are silent: what they promised, they asked a quorum about before.
//!
//! ```text
//!   append of term 3  ·  ·  ·  ·            this member leads term 4
//!                              └─ last_before(4)  ── or now, if it led term 3 itself and has heard nobody since
//! ```
//!
//! **Invariant:** whatever raft may take for a quorum's word, an append or a step of a whole state, counts from when it
//! arrives, before raft looks at it: the answer to it comes later.

use parking_lot::Mutex;
use quorate_core::api::ids::Term;
use tokio::time::Instant;

/// When leaders were last heard here, by their terms.
#[derive(Debug)]
pub(crate) struct Silence(Mutex<Heard>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The newest term of which something was heard, this member's own lead among it; and when last.
    term: Term,
    at: Instant,
    /// When last of any term before that one.
    before: Instant,
    /// This member led that term.
    own: bool,
}

impl Silence {
    /// Before its process began this member may have answered anything.
    pub(crate) fn new() -> Silence {
        let now = Instant::now();
        Silence(Mutex::new(Heard { term: Term(0), at: now, before: now, own: false }))
    }

    /// An append of a leader of `term` has arrived, or a step of a whole state.
    pub(crate) fn heard(&self, term: Term) {
        self.0.lock().hear(term, false);
    }

    /// This member leads `term`. Told before it acts as its leader.
    pub(crate) fn leads(&self, term: Term) {
        self.0.lock().hear(term, true);
    }

    /// When a leader of a term before `term` was last heard here; `None` if later ones were, and as long as this
    /// member's `vote` is of an earlier term: it may still answer such a leader.
    pub(crate) fn told(&self, vote: Term, term: Term) -> Option<Instant> {
        if vote < term { None } else { self.last_before(term) }
    }

    fn last_before(&self, term: Term) -> Option<Instant> {
        let heard = self.0.lock();
        match heard.term.cmp(&term) {
            std::cmp::Ordering::Less => Some(heard.before.max(heard.end())),
            std::cmp::Ordering::Equal => Some(heard.before),
            std::cmp::Ordering::Greater => None,
        }
    }
}

impl Heard {
    /// When the newest term was last heard of; its own one ends when it hears of another.
    fn end(&self) -> Instant {
        if self.own { Instant::now() } else { self.at }
    }

    fn hear(&mut self, term: Term, own: bool) {
        let now = Instant::now();
        match self.term.cmp(&term) {
            std::cmp::Ordering::Less => {
                *self = Heard { term, at: now, before: self.before.max(self.end()), own };
            }
            std::cmp::Ordering::Equal => {
                self.at = now;
                self.own |= own;
            }
            std::cmp::Ordering::Greater => self.before = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    async fn pass(seconds: u64) -> Instant {
        advance(Duration::from_secs(seconds)).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_append_of_an_earlier_term_counts_also_if_it_comes_late() {
        let silence = Silence::new();
        let began = Instant::now();
        assert_eq!(
            silence.last_before(Term(3)),
            Some(began),
            "it may have answered before it began"
        );
        let heard = pass(1).await;
        silence.heard(Term(2));
        pass(1).await;
        assert_eq!(silence.last_before(Term(3)), Some(heard));
        assert_eq!(silence.last_before(Term(2)), Some(began));
        silence.heard(Term(3));
        pass(1).await;
        silence.heard(Term(3));
        assert_eq!(silence.last_before(Term(3)), Some(heard));
        let late = pass(1).await;
        silence.heard(Term(2));
        assert_eq!(silence.last_before(Term(3)), Some(late));
        assert_eq!(silence.last_before(Term(4)), Some(late));
        assert_eq!(silence.last_before(Term(2)), None, "another leads by now");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_while_a_leader_of_an_earlier_term_may_yet_be_answered() {
        let silence = Silence::new();
        silence.heard(Term(2));
        assert_eq!(silence.told(Term(2), Term(3)), None, "it has not voted in the term");
        let heard = pass(1).await;
        silence.heard(Term(2));
        pass(1).await;
        assert_eq!(silence.told(Term(3), Term(3)), Some(heard));
        assert_eq!(silence.told(Term(5), Term(3)), Some(heard), "or in a later one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_led_itself_may_have_promised_until_it_heard_of_another() {
        let silence = Silence::new();
        silence.leads(Term(2));
        let now = pass(5).await;
        assert_eq!(silence.last_before(Term(3)), Some(now));
        let heard = pass(1).await;
        silence.heard(Term(3));
        pass(1).await;
        assert_eq!(silence.last_before(Term(3)), Some(heard));
        // It leads next, and its own lead is none of the earlier ones.
        let last = Instant::now();
        silence.heard(Term(3));
        pass(1).await;
        silence.leads(Term(4));
        pass(9).await;
        assert_eq!(silence.last_before(Term(4)), Some(last));
    }
}
