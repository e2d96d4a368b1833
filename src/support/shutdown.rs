//! Stopping in order: a signal that everybody hears, and a count of those who have not finished.
//!
//! ```text
//!   Drain::start ──> every Draining::started() wakes ──> tasks finish ──> Drain::finished() returns
//! ```
//!
//! **Invariant:** a task holds its [`Draining`] until it is done; `finished` waits for the last one.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Who stops a set of tasks.
#[derive(Debug)]
pub struct Drain {
    begun: watch::Sender<bool>,
    alive: Option<mpsc::Sender<()>>,
    gone: mpsc::Receiver<()>,
}

/// What each task of the set holds.
#[derive(Clone, Debug)]
pub struct Draining {
    begun: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Default for Drain {
    fn default() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Drain { begun: watch::Sender::new(false), alive: Some(alive), gone }
    }
}

impl Drain {
    /// A handle for one more task. `None` once draining has begun: the set takes nobody more.
    pub fn join(&self) -> Option<Draining> {
        Some(Draining { begun: self.begun.subscribe(), _alive: self.alive.clone()? })
    }

    /// Tells every task to finish.
    pub fn start(&mut self) {
        self.alive = None;
        self.begun.send_replace(true);
    }

    /// Waits until every task has finished, at most `limit`. False if some had not.
    pub async fn finished(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.gone.recv()).await.is_ok()
    }
}

impl Draining {
    /// Returns once draining has begun.
    pub async fn started(&mut self) {
        // An error means that the owner is gone, which ends the task as well.
        let _ = self.begun.wait_for(|begun| *begun).await;
    }

    /// Whether draining has begun.
    pub fn has_started(&self) -> bool {
        *self.begun.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_the_last_task() {
        let mut drain = Drain::default();
        let mut quick = drain.join().unwrap();
        let slow = drain.join().unwrap();
        let task = tokio::spawn(async move { quick.started().await });
        drain.start();
        task.await.unwrap();
        assert!(drain.join().is_none());
        assert!(!drain.finished(Duration::from_millis(5)).await);
        assert!(slow.has_started());
        drop(slow);
        assert!(drain.finished(Duration::from_secs(1)).await);
    }
}
