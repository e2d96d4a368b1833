//! A file of leads: from when to when each was held, so that those of all agents of a machine can be laid side by side.
//!
//! ```text
//!   {"event":"won","node":"a","revision":7,"from_ns":..,"on_time":"committed"}
//!   {"event":"lost","node":"a","revision":7,"until_ns":..,"why":"..","late":"refused"}
//! ```
//!
//! A time is read before the guard is asked, and written down only if the guard then says that it is held: a process that
//! is stopped in between claims too little, never too much.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::fleet::store::{Guard, Lost, Op, StateStore, StoreError};
use crate::support::clock::machine_nanos;

/// Between two looks at a guard.
const STEP: Duration = Duration::from_millis(5);

/// How long a late write may take.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger(Mutex<File>);

impl Ledger {
    /// Appends to the file at `path`.
    pub fn open(path: &Path) -> io::Result<Ledger> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger(Mutex::new(file)))
    }

    /// Looks at the guard until it is lost, and writes down what it said. Dropped, it writes how far it came.
    pub(super) async fn keep(&self, store: &dyn StateStore, guard: &Guard) -> Lost {
        let mut hold = Hold { ledger: self, guard, until: None, told: false };
        if hold.look() {
            let written = write(store, guard).await;
            // A process that was stopped meanwhile has written late.
            let on_time = if guard.is_held() { written } else { "unknown" };
            self.put(&json!({
                "event": "won", "node": guard.leader_id(), "revision": guard.revision(),
                "from_ns": hold.until, "on_time": on_time,
            }));
        }
        while hold.look() {
            sleep(STEP).await;
        }
        let late = write(store, guard).await;
        let why = guard.until_lost().await;
        hold.end(&why.to_string(), late);
        why
    }

    fn put(&self, line: &Value) {
        if let Err(error) = self.0.lock().write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, "a lead was not written down");
        }
    }
}

/// One lead, as far as it was seen.
struct Hold<'a> {
    ledger: &'a Ledger,
    guard: &'a Guard,
    /// The last moment at which it was held for certain.
    until: Option<u64>,
    told: bool,
}

impl Hold<'_> {
    fn look(&mut self) -> bool {
        let now = machine_nanos();
        let held = self.guard.is_held();
        if held {
            self.until = Some(now);
        }
        held
    }

    fn end(&mut self, why: &str, late: &str) {
        self.told = true;
        self.ledger.put(&json!({
            "event": "lost", "node": self.guard.leader_id(), "revision": self.guard.revision(),
            "until_ns": self.until, "why": why, "late": late,
        }));
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.end("the agent stopped", "not tried");
        }
    }
}

/// A write that only this leader may do; what became of it.
async fn write(store: &dyn StateStore, guard: &Guard) -> &'static str {
    let key = format!("quorate/holds{}/{}", guard.election(), guard.leader_id());
    let put = [Op::put(key, guard.revision().to_string())];
    let fence = [guard.fence()];
    match timeout(WRITE_MAX, store.do_transaction(&fence, &put, &[])).await {
        Ok(Ok(done)) if done.committed => "committed",
        Ok(Ok(_)) => "refused",
        Ok(Err(StoreError::Unavailable(_))) | Err(_) => "unknown",
        Ok(Err(
            StoreError::NotFound
            | StoreError::LeaseGone
            | StoreError::Closed
            | StoreError::Compacted { .. }
            | StoreError::Denied(_)
            | StoreError::Refused(_)
            | StoreError::Lost(_),
        )) => "failed",
    }
}
