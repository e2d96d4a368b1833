//! One who writes at a pace, and keeps count.

use std::time::Duration;

use quorate::fleet::store::{StateStore as _, Store};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// What became of the writes.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) successes: usize,
    pub(crate) failures: Vec<String>,
}

pub(crate) struct Writer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Written>,
}

impl Writer {
    /// Puts a key below `/written/` every `pace`.
    pub(crate) fn start(store: Store, pace: Duration) -> Writer {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut written = Written::default();
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0_u64.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => break,
                }
                match store.put(format!("/written/{number:06}").as_bytes(), b"x").await {
                    Ok(_version) => written.successes += 1,
                    Err(why) => written.failures.push(why.to_string()),
                }
            }
            written
        });
        Writer { stop, task }
    }

    pub(crate) async fn stop(self) -> Written {
        // It listens until it is told.
        let _ = self.stop.send(());
        self.task.await.expect("it ends in order")
    }
}
