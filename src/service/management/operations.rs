//! What goes on while nobody waits for it: LXD's operations, kept in memory.
//!
//! ```text
//!   start ──> running ──> success │ failure     each change is an event
//!                              └── the last ones stay to be asked for; the oldest that are over go first
//! ```
//!
//! **Invariant:** one that is under way is never forgotten; if too many are, no more are begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::codes::code_of;
use super::envelope::value_of;
use crate::fleet::api::server::{EventKind, Operation, OperationStatus};
use crate::fleet::error::FleetError;
use crate::fleet::events::EventLog;
use crate::support::clock::{rfc3339, unix_micros};

/// How many are kept.
const KEPT: usize = 256;

/// The operations of one daemon. Clones are the same table.
#[derive(Clone, Debug)]
pub(super) struct Operations {
    rows: Arc<Mutex<VecDeque<watch::Sender<Operation>>>>,
    events: EventLog,
}

/// One that was begun, until it is told how it ended. Dropped before: it has failed.
#[derive(Debug)]
pub(super) struct Begun {
    row: watch::Sender<Operation>,
    events: EventLog,
    ended: bool,
}

impl Operations {
    /// Nothing goes on yet; changes are told to `events`.
    pub(super) fn new(events: EventLog) -> Self {
        Operations { rows: Arc::default(), events }
    }

    /// Begins one. Too many under way: [`FleetError::Unavailable`].
    pub(super) fn begin(
        &self,
        description: &str,
        object: &str,
    ) -> Result<(Operation, Begun), FleetError> {
        let now = rfc3339(unix_micros());
        let operation = Operation {
            id: Uuid::new_v4().to_string(),
            class: "task".to_owned(),
            description: description.to_owned(),
            created_at: now.clone(),
            updated_at: now,
            status: OperationStatus::Running,
            status_code: OperationStatus::Running.code(),
            metadata: Some(json!({ "object": object })),
            may_cancel: false,
            err: String::new(),
            err_code: 0,
        };
        let row = watch::Sender::new(operation.clone());
        {
            let mut rows = self.rows.lock();
            if rows.len() == KEPT {
                let over = rows.iter().position(|row| row.borrow().status.is_final());
                let Some(oldest) = over else {
                    return Err(FleetError::Unavailable(
                        "too many operations are under way".into(),
                    ));
                };
                rows.remove(oldest);
            }
            rows.push_back(row.clone());
        }
        self.events.publish(EventKind::Operation, value_of(&operation));
        Ok((operation, Begun { row, events: self.events.clone(), ended: false }))
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<Operation> {
        self.rows.lock().iter().map(|row| row.borrow().clone()).collect()
    }

    /// One of them.
    pub(super) fn get(&self, id: &str) -> Result<Operation, FleetError> {
        Ok(self.row(id)?.borrow().clone())
    }

    /// One of them, once it is over or `patience` is: then as it is.
    pub(super) async fn wait(
        &self,
        id: &str,
        patience: Option<Duration>,
    ) -> Result<Operation, FleetError> {
        let mut row = self.row(id)?.subscribe();
        let over = async {
            let ended = row.wait_for(|operation| operation.status.is_final()).await;
            ended.map(|operation| operation.clone()).ok()
        };
        let ended = match patience {
            Some(patience) => tokio::time::timeout(patience, over).await.unwrap_or_default(),
            None => over.await,
        };
        match ended {
            Some(operation) => Ok(operation),
            None => self.get(id),
        }
    }

    /// Forgets one that is over. Under way: [`FleetError::Conflict`], as what was begun is not left half done.
    pub(super) fn forget(&self, id: &str) -> Result<(), FleetError> {
        let mut rows = self.rows.lock();
        let at = rows.iter().position(|row| row.borrow().id == id).ok_or_else(|| unknown(id))?;
        if !rows[at].borrow().status.is_final() {
            return Err(FleetError::Conflict("the operation cannot be cancelled".to_owned()));
        }
        rows.remove(at);
        Ok(())
    }

    fn row(&self, id: &str) -> Result<watch::Sender<Operation>, FleetError> {
        let rows = self.rows.lock();
        rows.iter().find(|row| row.borrow().id == id).cloned().ok_or_else(|| unknown(id))
    }
}

fn unknown(id: &str) -> FleetError {
    FleetError::NotFound(format!("no operation {id:?}"))
}

impl Begun {
    /// Notes how it ended: what the row would have answered.
    pub(super) fn end(mut self, outcome: &Result<Value, FleetError>) {
        self.note(outcome);
    }

    fn note(&mut self, outcome: &Result<Value, FleetError>) {
        self.ended = true;
        self.row.send_modify(|operation| {
            operation.updated_at = rfc3339(unix_micros());
            operation.status = match outcome {
                Ok(answer) => {
                    let object =
                        operation.metadata.take().map_or(Value::Null, |mut m| m["object"].take());
                    operation.metadata = Some(json!({ "object": object, "result": answer }));
                    operation.err_code = 0;
                    OperationStatus::Success
                }
                Err(why) => {
                    operation.err = why.to_string();
                    operation.err_code = code_of(why);
                    OperationStatus::Failure
                }
            };
            operation.status_code = operation.status.code();
        });
        let operation = self.row.borrow().clone();
        self.events.publish(EventKind::Operation, value_of(&operation));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            self.note(&Err(FleetError::Internal("the operation came to nothing".to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations() -> Operations {
        Operations::new(EventLog::default())
    }

    #[tokio::test]
    async fn whoever_waits_hears_what_was_observed() {
        let operations = operations();
        let (operation, begun) = operations.begin("join", "n2").unwrap();
        assert_eq!(operation.status_code, 103);
        let waiting = {
            let (operations, id) = (operations.clone(), operation.id.clone());
            tokio::spawn(async move { operations.wait(&id, None).await })
        };
        begun.end(&Ok(json!({ "name": "n2" })));
        let over = waiting.await.unwrap().unwrap();
        assert_eq!((over.status_code, over.err_code), (200, 0));
        assert_eq!(over.metadata, Some(json!({ "object": "n2", "result": { "name": "n2" } })));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_short_hears_how_far_it_is() {
        let operations = operations();
        let (operation, begun) = operations.begin("join", "n2").unwrap();
        let seen = operations.wait(&operation.id, Some(Duration::from_secs(5))).await.unwrap();
        assert_eq!(seen.status, OperationStatus::Running);
        assert!(matches!(operations.forget(&operation.id), Err(FleetError::Conflict(_))));
        drop(begun);
        let over = operations.get(&operation.id).unwrap();
        assert_eq!((over.status_code, over.err_code), (400, 500));
        operations.forget(&operation.id).unwrap();
        assert!(matches!(operations.get(&operation.id), Err(FleetError::NotFound(_))));
    }

    #[test]
    fn the_oldest_that_is_over_makes_room_and_none_under_way_does() {
        let operations = operations();
        let mut under_way = Vec::new();
        let (first, begun) = operations.begin("remove", "0").unwrap();
        under_way.push(begun);
        let (second, begun) = operations.begin("remove", "1").unwrap();
        begun.end(&Err(FleetError::NotFound("gone".to_owned())));
        for number in 2..=KEPT {
            under_way.push(operations.begin("remove", &number.to_string()).unwrap().1);
        }
        assert!(operations.get(&first.id).is_ok());
        assert!(operations.get(&second.id).is_err());
        assert!(matches!(operations.begin("remove", "x"), Err(FleetError::Unavailable(_))));
        assert_eq!(operations.list().len(), KEPT);
    }
}
