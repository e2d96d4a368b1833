//! Lines to the journal of systemd (`--log-outputs=systemd/journal`).
//!
//! One datagram a line, with the fields that etcd sends (`client/pkg/logutil/zap_journal.go`): the whole line as
//! the message, its priority, the program, and the folder of the file it comes from. What the journal does not take
//! goes to standard error.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use super::{Severity, Sink};

/// Where journald listens (systemd.io, "Native Journal Protocol").
const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) struct Journald {
    socket: UnixDatagram,
    program: String,
}

impl Journald {
    pub(super) fn connect() -> io::Result<Journald> {
        Journald::connect_to(SOCKET)
    }

    fn connect_to(path: &str) -> io::Result<Journald> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let program = std::env::args().next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Journald { socket, program })
    }
}

impl Sink for Journald {
    fn line(&mut self, severity: Severity, folder: &str, line: &str) {
        let mut datagram = Vec::with_capacity(line.len() + 128);
        field(&mut datagram, "PRIORITY", priority(severity));
        field(&mut datagram, "MESSAGE", line);
        field(&mut datagram, "PACKAGE", folder);
        field(&mut datagram, "SYSLOG_IDENTIFIER", &self.program);
        if self.socket.send(&datagram).is_err() {
            // Nowhere is left to say that a line could not be written.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// A value with a line break in it is told with its length, any other by a `=`.
fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// syslog's numbers.
fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Debug => "7",
        Severity::Info => "6",
        Severity::Warn => "4",
        Severity::Error => "3",
        Severity::DPanic | Severity::Panic | Severity::Fatal => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_sent_the_line_and_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut sink = Journald::connect_to(path.to_str().unwrap()).unwrap();
        sink.line(Severity::Warn, "embed", "{\"level\":\"warn\"}\n");
        let mut buffer = [0; 1024];
        let length = journal.recv(&mut buffer).unwrap();
        let sent = &buffer[..length];
        let start =
            b"PRIORITY=4\nMESSAGE\n\x11\0\0\0\0\0\0\0{\"level\":\"warn\"}\n\nPACKAGE=embed\n";
        assert!(sent.starts_with(start), "{}", String::from_utf8_lossy(sent));
        assert!(String::from_utf8_lossy(sent).contains("SYSLOG_IDENTIFIER=quorate"));
    }

    #[test]
    fn without_a_journal_the_start_is_refused() {
        assert!(Journald::connect_to("/nonexistent/socket").is_err());
    }
}
