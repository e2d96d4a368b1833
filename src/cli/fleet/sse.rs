//! Server-sent events (WHATWG HTML, "Interpreting an event stream"), from bytes as they come.
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

/// What has come and is no whole line or event yet.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Reader {
    /// Takes the next bytes; the events that they complete. The error is for people.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        self.rest.extend_from_slice(bytes);
        let mut done = Vec::new();
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            done.extend(self.line(&String::from_utf8_lossy(line)));
        }
        if self.rest.len() + self.event.data.len() > LONGEST {
            return Err(format!("an event is longer than {LONGEST} bytes"));
        }
        Ok(done)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let has_data = std::mem::take(&mut self.has_data);
            // The id stays in force for the events behind it.
            let event = std::mem::take(&mut self.event);
            self.event.id.clone_from(&event.id);
            return has_data.then_some(event);
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
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: &str, data: &str) -> Event {
        Event { id: id.to_owned(), kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: lifecycle\ndata: {\"a\":\ndata: 1}\n\nretry: 9\r\ndata:x\r\n\r\nevent: idle\n\n";
        let want = [event("7", "lifecycle", "{\"a\":\n1}"), event("7", "", "x")];
        for size in 1..=text.len() {
            let mut reader = Reader::default();
            let found: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|part| reader.push(part).unwrap()).collect();
            assert_eq!(found, want, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_breaks_off() {
        let mut reader = Reader::default();
        assert!(reader.push(&vec![b'x'; LONGEST]).unwrap().is_empty());
        assert!(reader.push(b"x").unwrap_err().contains("longer"));
        let mut reader = Reader::default();
        let line = format!("data: {}\n", "y".repeat(LONGEST / 2));
        assert!(reader.push(line.as_bytes()).unwrap().is_empty());
        assert!(reader.push(line.as_bytes()).is_err(), "two lines are one event");
    }
}
