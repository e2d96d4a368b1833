//! A thread of its own for futures whose steps are long.
//!
//! ```text
//!   caller's runtime ── run(future) ──> thread "tls", nicer than the rest ── output ──> caller
//! ```
//!
//! **Why:** on few cores one thread carries raft, its heartbeats and every client. A TLS handshake is two or three
//! steps of up to a millisecond each; a few hundred clients that come at once must not stand before a heartbeat.
//!
//! **Invariant:** who drops the future that [`Aside::run`] returned ends the work; dropping the last [`Aside`] ends and
//! joins the thread.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber as _;

use super::spawn::background_thread;

/// The thread.
#[derive(Debug)]
pub struct Aside {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Aside {
    /// Starts the thread `name`.
    pub fn start(name: &str) -> io::Result<Aside> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = background_thread(name, move || {
            // Either way nobody wants anything any more.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Aside { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs `future` there, with the caller's log, and returns what it came to; a panic in it goes on in the caller.
    pub async fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut task = JoinSet::new();
        task.spawn_on(future.with_current_subscriber(), &self.handle);
        match task.join_next().await.expect("one task was just spawned") {
            Ok(output) => output,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread is about to end, and whoever waits here with it.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been told to who waited for it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_runs_on_the_other_thread_and_ends_with_who_asked() {
        let aside = Aside::start("aside").unwrap();
        let here = std::thread::current().id();
        let there = aside.run(async { std::thread::current().id() }).await;
        assert_ne!(here, there);
        let (tell, told) = oneshot::channel::<()>();
        let endless = aside.run(async move {
            let _keep = tell;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), endless).await.is_err());
        assert!(told.await.is_err(), "it was dropped");
    }
}
