//! Log lines in the shape of etcd's zap logger, one subscriber a server.
//!
//! ```text
//!   tracing event ──> level and origin ──> JSON or console line ──> stderr, stdout, files, systemd's journal
//! ```
//!
//! ```json
//! {"level":"info","ts":"2026-11-21T10:42:27.863685Z","caller":"host/listeners.rs:42","msg":"serving","address":":1"}
//! ```
//!
//! What tracing lacks is said by convention: a field `severity = "fatal"` raises the level to one of zap's, and a
//! `?value` whose `Debug` is valid JSON (a list of strings) is written as JSON.
//!
//! **Invariant:** never a colour, never a line that is not whole: one write a line, under one lock.

mod journald;
mod line;
mod rotation;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::LazyLock;

use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use self::journald::Journald;
use self::line::{Fields, Line};
use self::rotation::RotatingFile;
pub use self::rotation::Rotation;

/// zap's levels, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "zap's words")]
pub enum Severity {
    Debug,
    Info,
    Warn,
    Error,
    DPanic,
    Panic,
    Fatal,
}

impl Severity {
    /// zap's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::DPanic => "dpanic",
            Severity::Panic => "panic",
            Severity::Fatal => "fatal",
        }
    }

    /// Reads zap's word, in lower or upper case; the empty word is info.
    pub fn parse(word: &str) -> Option<Severity> {
        let all = [
            Severity::Debug,
            Severity::Info,
            Severity::Warn,
            Severity::Error,
            Severity::DPanic,
            Severity::Panic,
            Severity::Fatal,
        ];
        if word.is_empty() {
            return Some(Severity::Info);
        }
        all.into_iter().find(|s| s.word() == word || s.word().to_ascii_uppercase() == word)
    }

    fn of(level: Level) -> Option<Severity> {
        match level {
            Level::ERROR => Some(Severity::Error),
            Level::WARN => Some(Severity::Warn),
            Level::INFO => Some(Severity::Info),
            Level::DEBUG => Some(Severity::Debug),
            Level::TRACE => None,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Columns parted by tabs, the fields as JSON in the last.
    Console,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(String),
    /// A file that is moved aside when it is full.
    Rotating(String, Rotation),
    /// The journal of systemd.
    Journald,
}

/// Takes whole lines.
pub(crate) trait Sink: Send {
    /// `folder` is that of the source file that speaks; `line` ends with a line break.
    fn line(&mut self, severity: Severity, folder: &str, line: &str);
}

impl<W: Write + Send> Sink for W {
    fn line(&mut self, _severity: Severity, _folder: &str, line: &str) {
        // Nowhere is left to say that a line could not be written.
        let _ = self.write_all(line.as_bytes());
        let _ = self.flush();
    }
}

/// A logger of its own for one server: hand it to [`tracing::dispatcher`] or to a future's `with_subscriber`.
pub fn dispatch(least: Severity, format: Format, outputs: &[Output]) -> io::Result<Dispatch> {
    let mut outputs = outputs.to_vec();
    outputs.sort();
    outputs.dedup();
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if !outputs.contains(&Output::File("/dev/null".to_owned())) {
        for output in &outputs {
            sinks.push(match output {
                Output::Stderr => Box::new(io::stderr()),
                Output::Stdout => Box::new(io::stdout()),
                Output::File(path) => {
                    Box::new(OpenOptions::new().append(true).create(true).open(path)?)
                }
                Output::Rotating(path, rotation) => {
                    Box::new(RotatingFile::open(path, rotation.clone())?)
                }
                Output::Journald => Box::new(Journald::connect()?),
            });
        }
    }
    Ok(dispatch_to(least, format, sinks))
}

/// Hears nothing. While one logger is all there is in the process, tracing asks only whoever is on the thread that passes
/// a line first whether it is wanted, and no more: in a program that embeds a server, that may be a thread without a
/// logger, and the server's own would never hear of it. Of two it asks both.
static BESIDE: LazyLock<Dispatch> =
    LazyLock::new(|| Dispatch::new(Registry::default().with(LevelFilter::OFF)));

/// The same, into any sinks.
pub(crate) fn dispatch_to(least: Severity, format: Format, sinks: Vec<Box<dyn Sink>>) -> Dispatch {
    LazyLock::force(&BESIDE);
    Dispatch::new(Registry::default().with(ZapLayer { least, format, sinks: Mutex::new(sinks) }))
}

/// How the targets of our own lines begin.
const OURS: &str = "quorate";

/// A library that warns of every heartbeat that a stopped member does not answer; we tell of such a member once. Its
/// errors are warnings: a message that comes while it stops is one to it, and what stops a member we say ourselves.
const CHATTY: &str = "openraft";

struct ZapLayer {
    least: Severity,
    format: Format,
    sinks: Mutex<Vec<Box<dyn Sink>>>,
}

impl ZapLayer {
    /// Libraries below us speak only when something is wrong.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with(OURS);
        match Severity::of(*metadata.level()) {
            None => false,
            // A field may raise an error to a fatal one.
            Some(Severity::Error) => true,
            Some(severity) if ours => severity >= self.least,
            Some(severity) if metadata.target().starts_with(CHATTY) => {
                severity >= Severity::Warn && self.least <= Severity::Debug
            }
            Some(severity) => severity >= self.least.max(Severity::Warn),
        }
    }
}

impl<S> Layer<S> for ZapLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    /// Asked once a callsite: what is off costs a load and a branch. Spans of libraries are always off.
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.wants(metadata) && (metadata.is_event() || metadata.target().starts_with(OURS))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.least {
            Severity::Debug => LevelFilter::DEBUG,
            Severity::Info => LevelFilter::INFO,
            Severity::Warn => LevelFilter::WARN,
            Severity::Error | Severity::DPanic | Severity::Panic | Severity::Fatal => {
                LevelFilter::ERROR
            }
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields::default();
        event.record(&mut own);
        let Some(severity) =
            own.take_severity().or_else(|| Severity::of(*event.metadata().level()))
        else {
            return;
        };
        let severity = match event.metadata().target().starts_with(CHATTY) {
            true => severity.min(Severity::Warn),
            false => severity,
        };
        if severity < self.least {
            return;
        }
        let mut around = Vec::new();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<Fields>() {
                    around.push(fields.clone());
                }
            }
        }
        let line = Line { severity, metadata: event.metadata(), around: &around, own: &own }
            .write(self.format);
        let folder = line::folder(event.metadata());
        for sink in self.sinks.lock().iter_mut() {
            sink.line(severity, folder, &line);
        }
    }
}

#[cfg(test)]
#[path = "telemetry_test.rs"]
mod tests;
