//! How long a candidate may believe that it still has its place: the one judgement behind [`super::Guard`].
//!
//! ```text
//!   grant or keep-alive: sent at S, answered with TTL T ──> good until S + T − margin(T)
//!   asked at or after that ──> expired, for ever, whatever is answered later
//! ```
//!
//! The store counts the TTL from when the keep-alive arrived, which is S or later, so it cannot give the place to
//! another one before S + T. The margin is for clocks that do not run alike, and for who asks, and then acts.
//!
//! **Invariant:** what has once been said to be lost is never held again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::error::Lost;

/// A tenth of the TTL, a second at most.
pub(super) fn margin(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(1))
}

/// A candidate's time.
#[derive(Debug)]
pub(super) struct Term(watch::Sender<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    good_until: Instant,
    lost: Option<Lost>,
}

impl State {
    /// Looks at the clock. The clock is read while the state is held, so that no answer is older than the one before.
    fn look(&mut self) -> bool {
        let expires = self.lost.is_none() && Instant::now() >= self.good_until;
        if expires {
            self.lost = Some(Lost::Expired);
        }
        expires
    }
}

fn until(sent: Instant, ttl: Duration) -> Instant {
    sent + (ttl - margin(ttl))
}

impl Term {
    /// One that begins with a lease that was asked for at `sent`.
    pub(super) fn new(sent: Instant, ttl: Duration) -> Term {
        Term(watch::Sender::new(State { good_until: until(sent, ttl), lost: None }))
    }

    /// Why it is over, if it is, by the clock at this moment.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.0.send_if_modified(State::look);
        self.0.borrow().lost
    }

    /// A keep-alive that was sent at `sent` was answered. One that is answered too late changes nothing.
    pub(super) fn renew(&self, sent: Instant, ttl: Duration) {
        self.0.send_if_modified(|state| {
            let expires = state.look();
            let good_until = until(sent, ttl);
            if state.lost.is_some() || good_until <= state.good_until {
                return expires;
            }
            state.good_until = good_until;
            true
        });
    }

    /// It is over; the first cause stays.
    pub(super) fn end(&self, why: Lost) {
        self.0.send_if_modified(|state| {
            if state.look() || state.lost.is_some() {
                return true;
            }
            state.lost = Some(why);
            true
        });
    }

    /// Returns once it is over, and says why.
    pub(super) async fn ended(&self) -> Lost {
        let mut changes = self.0.subscribe();
        loop {
            if let Some(lost) = self.lost() {
                return lost;
            }
            let good_until = changes.borrow_and_update().good_until;
            tokio::select! {
                changed = changes.changed() => changed.expect("the sender is `self`"),
                () = sleep_until(good_until) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_when_the_keep_alive_was_sent_and_ends_a_margin_early() {
        let sent = Instant::now();
        advance(Duration::from_secs(2)).await;
        let term = Term::new(sent, TTL);
        advance(Duration::from_millis(2499)).await;
        assert_eq!(term.lost(), None);
        advance(Duration::from_millis(1)).await;
        assert_eq!(term.lost(), Some(Lost::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_brings_nothing_back() {
        let term = Term::new(Instant::now(), TTL);
        advance(Duration::from_secs(4)).await;
        let sent = Instant::now();
        advance(Duration::from_secs(1)).await;
        // Nobody has looked since; the answer itself must.
        term.renew(sent, TTL);
        assert_eq!(term.lost(), Some(Lost::Expired));
        term.end(Lost::Resigned);
        assert_eq!(term.lost(), Some(Lost::Expired), "the first cause stays");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_out_of_order_never_shorten_it() {
        let term = Term::new(Instant::now(), TTL);
        advance(Duration::from_secs(2)).await;
        term.renew(Instant::now(), TTL);
        term.renew(Instant::now() - Duration::from_secs(2), TTL);
        advance(Duration::from_millis(4499)).await;
        assert_eq!(term.lost(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_every_end() {
        let term = Term::new(Instant::now(), TTL);
        let begun = Instant::now();
        assert_eq!(term.ended().await, Lost::Expired);
        assert_eq!(begun.elapsed(), Duration::from_millis(4500));
        let term = Term::new(Instant::now(), TTL);
        let (lost, ()) = tokio::join!(term.ended(), async { term.end(Lost::KeyGone) });
        assert_eq!(lost, Lost::KeyGone);
    }
}
