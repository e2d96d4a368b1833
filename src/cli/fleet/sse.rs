//! Server-sent events (WHATWG HTML, "Interpreting an event stream"), from lines as they come.
//!
//! ```text
//!   id: 7 \n event: lifecycle \n data: {...} \n \n   ──>  Event { id: "7", kind: "lifecycle", data: "{...}" }
//!   : comment, or a field that is unknown            ──>  nothing
//! ```

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) kind: String,
    /// Lines are joined by line feeds.
    pub(super) data: String,
}

/// No event is longer; what is, breaks off the stream.
const LONGEST: usize = 1 << 20;

/// The event whose lines are coming.
#[derive(Debug, Default)]
pub(super) struct Reader {
    event: Event,
    has_data: bool,
}

impl Reader {
    /// Takes the next line, without its end; the event that it completes. The error is for people.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<Event>, String> {
        if line.is_empty() {
            let has_data = std::mem::take(&mut self.has_data);
            // The id stays in force for the events behind it.
            let event = std::mem::take(&mut self.event);
            self.event.id.clone_from(&event.id);
            return Ok(has_data.then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments, which keep a connection warm, and fields that a reader may skip.
            _ => {}
        }
        if self.event.data.len() > LONGEST {
            return Err(format!("an event is longer than {LONGEST} bytes"));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: &str, data: &str) -> Event {
        Event { id: id.to_owned(), kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn lines_become_events_and_comments_do_not() {
        let text = ": hello\n\nid: 7\nevent: lifecycle\ndata: {\"a\":\ndata: 1}\n\nretry: 9\ndata:x\n\nevent: idle\n\n";
        let mut reader = Reader::default();
        let found: Vec<Event> =
            text.lines().filter_map(|line| reader.line(line).unwrap()).collect();
        assert_eq!(found, [event("7", "lifecycle", "{\"a\":\n1}"), event("7", "", "x")]);
    }

    #[test]
    fn an_event_without_end_breaks_off() {
        let mut reader = Reader::default();
        let line = format!("data: {}", "y".repeat(LONGEST / 2));
        assert_eq!(reader.line(&line), Ok(None));
        assert!(reader.line(&line).is_err(), "two lines are one event");
    }
}
