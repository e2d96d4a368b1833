//! What a node remembers of itself: `events`, `audit`, `operation`.

use std::convert::Infallible;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, typed};
use super::failure::Failure;
use super::format::Answer;
use super::line::{Events, Format, Operation};
use super::sse::{Event, Reader};
use super::table::table;
use crate::cli::say;
use crate::fleet::api::server::{AuditRecord, Operation as Task};
use crate::support::http_client::Lines;

const EVENTS: &str = "/1.0/events";
const OPERATIONS: &str = "/1.0/operations";

/// The API waits no longer.
const WAIT_SECONDS_MAX: u64 = 24 * 60 * 60;

/// Progress is told if its stream is there by then.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);

/// A stream of the node's events.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    api: &'a Api,
    lines: Lines,
    reader: Reader,
}

impl Stream<'_> {
    /// Opens the stream behind the event `after`; without one, at what comes from now on.
    pub(super) async fn open(api: &Api, after: Option<u64>) -> Result<Stream<'_>, Failure> {
        let path = match after {
            Some(after) => format!("{EVENTS}?after={after}"),
            None => EVENTS.to_owned(),
        };
        Ok(Stream { api, lines: api.lines(&path).await?, reader: Reader::default() })
    }

    /// The next event; `None` when the daemon has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        while let Some(line) = self.lines.next().await.map_err(|why| self.api.failure(why))? {
            if let Some(event) = self.reader.line(&line).map_err(Failure::failed)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// Writes events to standard output as they come, until the daemon ends, the limit is reached or nobody reads on.
pub(super) async fn follow(api: &Api, events: Events, format: Format) -> Result<(), Failure> {
    let mut stream = Stream::open(api, events.after).await?;
    let mut told = 0;
    let mut last = String::new();
    while events.limit.is_none_or(|limit| told < limit) {
        let Some(event) = stream.next().await? else {
            let from = if last.is_empty() { String::new() } else { format!(" --after {last}") };
            return Err(Failure::failed(format!(
                "the daemon ended the stream; it goes on with: quorate events{from}"
            )));
        };
        let text = event_text(&event, format)?;
        let mut out = io::stdout();
        // Whoever read has gone: `quorate events | head`.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        told += 1;
        last = event.id;
    }
    Ok(())
}

fn event_text(event: &Event, format: Format) -> Result<String, Failure> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_else(|_| json!(event.data));
    match format {
        Format::Plain => {
            let text = |key: &str| data[key].as_str().unwrap_or_default();
            Ok(format!("{}  {}  {}\n", text("timestamp"), text("type"), words(&data["metadata"])))
        }
        // One line each, so that programs can read them one by one.
        Format::Json => Ok(format!("{data}\n")),
        Format::Yaml => Ok(format!("---\n{}", Answer::of(data).text(Format::Yaml)?)),
    }
}

/// An event's metadata for people.
pub(super) fn words(metadata: &Value) -> String {
    match metadata {
        Value::String(text) => text.clone(),
        Value::Object(fields) => match fields.get("step").and_then(Value::as_str) {
            Some(step) => match fields.get("operation").and_then(Value::as_str) {
                Some(operation) => format!("{operation}: {step}"),
                None => step.to_owned(),
            },
            None => {
                let pairs: Vec<String> = fields
                    .iter()
                    .map(|(key, value)| match value {
                        Value::String(text) => format!("{key}={text}"),
                        other => format!("{key}={other}"),
                    })
                    .collect();
                pairs.join(" ")
            }
        },
        other => other.to_string(),
    }
}

/// Tells of the steps of what the node is doing, on standard error, until `work` is done. The stream is opened first,
/// so that no step is missed; if there is none, or it breaks, the work goes on untold.
pub(super) async fn told<T>(api: &Api, work: impl Future<Output = T>) -> T {
    let stream = tokio::time::timeout(STREAM_PATIENCE, Stream::open(api, None)).await;
    let telling = async {
        if let Ok(Ok(mut stream)) = stream {
            while let Ok(Some(event)) = stream.next().await {
                let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
                if data["type"] == "progress" {
                    say(&mut io::stderr(), &format!("{}\n", words(&data["metadata"])));
                }
            }
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        done = work => done,
        never = telling => match never {},
    }
}

/// `GET /1.0/audit`.
pub(super) async fn audit(api: &Api, limit: u32) -> Result<Answer, Failure> {
    let metadata = api.get(&format!("/1.0/audit?limit={limit}")).await?;
    Ok(Answer::told(metadata, |metadata| Ok(plain_audit(typed(metadata)?))))
}

fn plain_audit(records: Vec<AuditRecord>) -> String {
    let rows = records.into_iter().map(|record| {
        let code = match record.code {
            0 => String::new(),
            code => code.to_string(),
        };
        vec![record.time, record.actor, record.operation, record.object, record.result, code]
    });
    table(&["TIME", "ACTOR", "OPERATION", "OBJECT", "RESULT", "CODE"], rows)
}

/// `/1.0/operations...`.
pub(super) async fn operation(
    api: &Api,
    command: Operation,
    seconds: u64,
) -> Result<Answer, Failure> {
    let path = |id: &str| {
        let plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let refusal = || Failure::usage(format!("{id} is no id of an operation"));
        plain.then(|| format!("{OPERATIONS}/{id}")).ok_or_else(refusal)
    };
    match command {
        Operation::List => {
            let metadata = api.get(OPERATIONS).await?;
            Ok(Answer::told(metadata, |metadata| Ok(plain_tasks(&typed::<Vec<Task>>(metadata)?))))
        }
        Operation::Show { id } => Ok(one(api.get(&path(&id)?).await?)),
        Operation::Wait { id } => {
            let seconds = seconds.min(WAIT_SECONDS_MAX);
            let wait = format!("{}/wait?timeout={seconds}", path(&id)?);
            Ok(one(api.get(&wait).await?))
        }
        Operation::Delete { id } => {
            let metadata = api.delete(&path(&id)?).await?;
            Ok(Answer::said(metadata, "The operation is forgotten.\n"))
        }
    }
}

fn one(metadata: Value) -> Answer {
    Answer::told(metadata, |metadata| Ok(plain_tasks(&[typed(metadata)?])))
}

fn plain_tasks(tasks: &[Task]) -> String {
    let rows = tasks.iter().map(|task| {
        vec![
            task.id.clone(),
            task.description.clone(),
            format!("{:?}", task.status),
            task.created_at.clone(),
            task.updated_at.clone(),
            task.err.clone(),
        ]
    });
    table(&["ID", "WHAT", "STATUS", "BEGUN", "CHANGED", "WHY"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_words_or_as_they_are() {
        let data = json!({
            "sequence": 7, "type": "progress", "timestamp": "2026-11-22T12:00:00Z",
            "metadata": {"operation": "join", "step": "waiting for a vote"}
        });
        let event = Event { id: "7".to_owned(), kind: String::new(), data: data.to_string() };
        assert_eq!(
            event_text(&event, Format::Plain).unwrap(),
            "2026-11-22T12:00:00Z  progress  join: waiting for a vote\n"
        );
        let json: Value = serde_json::from_str(&event_text(&event, Format::Json).unwrap()).unwrap();
        assert_eq!(json, data);
        assert!(event_text(&event, Format::Yaml).unwrap().starts_with("---\n"));
    }

    #[test]
    fn metadata_without_a_step_is_told_by_its_fields() {
        assert_eq!(words(&json!({"phase": "joining", "n": 3})), "n=3 phase=joining");
        assert_eq!(words(&json!("bare")), "bare");
        assert_eq!(words(&json!(null)), "null");
    }
}
