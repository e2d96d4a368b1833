//! One who asks at a pace, and keeps count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate::fleet::store::{StateStore as _, Store, StoreError};
use quorate::service::remote::{RemoteSettings, open};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) successes: usize,
    pub(crate) failures: Vec<String>,
}

pub(crate) struct Writer {
    made: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Written>,
}

impl Writer {
    /// Puts a key below `/written/` every `pace`.
    pub(crate) fn start(store: Store, pace: Duration) -> Writer {
        Writer::asking(pace, move |number| {
            let store = store.clone();
            async move {
                let key = format!("/written/{number:06}");
                store.put(key.as_bytes(), b"x").await.map(drop)
            }
        })
    }

    /// Puts and gets in turn every `pace`, each over a connection of its own.
    pub(crate) fn reconnecting(settings: RemoteSettings, pace: Duration) -> Writer {
        Writer::asking(pace, move |number| {
            let settings = settings.clone();
            async move {
                let store = open(settings).map_err(StoreError::Unavailable)?;
                match number % 2 {
                    0 => store.put(b"/anew", number.to_string().as_bytes()).await.map(drop),
                    _ => store.get(b"/anew").await.map(drop),
                }
            }
        })
    }

    /// Calls `ask` with the request's number every `pace`.
    fn asking<F, Asked>(pace: Duration, ask: F) -> Writer
    where
        F: Fn(u64) -> Asked + Send + 'static,
        Asked: Future<Output = Result<(), StoreError>> + Send,
    {
        let (stop, mut stopped) = oneshot::channel();
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let task = tokio::spawn(async move {
            let mut written = Written::default();
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0_u64.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => break,
                }
                match ask(number).await {
                    Ok(()) => written.successes += 1,
                    Err(why) => written.failures.push(format!("{number}: {why}")),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            written
        });
        Writer { made, stop, task }
    }

    /// How many requests are over by now.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) async fn stop(self) -> Written {
        // It listens until it is told.
        let _ = self.stop.send(());
        self.task.await.expect("it ends in order")
    }
}
