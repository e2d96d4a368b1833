//! Threads and blocking work, behind a seam: a simulation runs them in place, in a fixed order.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Cores that this process may use; 1 if nobody says.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts a named thread; the caller owns the handle and joins it.
pub fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

/// How much nicer than the process a background thread is.
const BACKGROUND_NICENESS: i32 = 10;

/// The same for work that nobody waits for: where cores are short, others go first.
pub fn background_thread(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread(name, move || {
        // Linux keeps this for each thread by itself. Best effort: without it the work is only in the way more.
        if let Ok(own) = rustix::process::getpriority_process(None) {
            let _ = rustix::process::setpriority_process(None, own + BACKGROUND_NICENESS);
        }
        run();
    })
}

/// Holds the calling thread for `time`. For threads of our own, never for a runtime's.
pub fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Runs slices of long work off the runtime's thread, at most `permits` at once.
#[derive(Debug)]
pub struct Blocking {
    permits: Option<Semaphore>,
}

impl Blocking {
    /// A pool of `permits` concurrent slices on tokio's blocking threads.
    pub fn bounded(permits: usize) -> Self {
        Blocking { permits: Some(Semaphore::new(permits)) }
    }

    /// Work runs in place on the caller's thread: for simulation, and nothing else.
    pub fn in_place() -> Self {
        Blocking { permits: None }
    }

    /// Another pool of the same kind, for `permits` slices of its own.
    pub fn beside(&self, permits: usize) -> Self {
        Blocking { permits: self.permits.as_ref().map(|_| Semaphore::new(permits)) }
    }

    /// Runs `work` and returns its result; a panic in it goes on in the caller. Never returns if the runtime is dropped
    /// before the work has begun.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(permits) = &self.permits else {
            return work();
        };
        let _permit = permits.acquire().await.expect("the semaphore is never closed");
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Its runtime is being dropped, and the caller's task with it.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An embedder may drop its runtime with a server in it: that ends no process.
    #[test]
    fn work_that_was_not_begun_ends_with_its_runtime() {
        for _ in 0..200 {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .max_blocking_threads(1)
                .build()
                .unwrap();
            let blocking = Arc::new(Blocking::bounded(64));
            let (tell, told) = std::sync::mpsc::channel();
            for _ in 0..64 {
                let (blocking, tell) = (Arc::clone(&blocking), tell.clone());
                runtime.spawn(async move {
                    let begun = move || {
                        let _ = tell.send(());
                        rest(Duration::from_micros(100));
                    };
                    blocking.run(begun).await;
                });
            }
            told.recv().unwrap();
            runtime.shutdown_background();
        }
    }

    #[test]
    fn a_background_thread_is_nicer_than_the_rest_of_the_process() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let before = niceness();
        let handle = background_thread("nice", move || tell.send(niceness()).unwrap()).unwrap();
        handle.join().unwrap();
        assert_eq!(told.recv().unwrap(), (before + BACKGROUND_NICENESS).min(19));
        assert_eq!(niceness(), before);
    }
}
