//! One log line, from a tracing event to text.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Metadata;
use tracing::field::{Field, Visit};

use super::{Format, Severity};
use crate::support::clock::{rfc3339, unix_micros};

/// Fields in the order they were recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

impl Fields {
    /// The level that `severity = "…"` asks for, and no such field any more.
    pub(super) fn take_severity(&mut self) -> Option<Severity> {
        let at = self.pairs.iter().position(|(name, _)| *name == "severity")?;
        let (_, word) = self.pairs.remove(at);
        Severity::parse(word.as_str()?)
    }

    fn push(&mut self, field: &Field, value: Value) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        self.pairs.push((name, value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Value::String(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
            return;
        }
        let looks_like_json = text.starts_with(['[', '{', '"']);
        let value = looks_like_json
            .then(|| serde_json::from_str(&text).ok())
            .flatten()
            .unwrap_or(Value::String(text));
        self.push(field, value);
    }
}

/// What a line is made of.
pub(super) struct Line<'a> {
    pub(super) severity: Severity,
    pub(super) metadata: &'a Metadata<'a>,
    /// Fields of the spans around, outermost first.
    pub(super) around: &'a [Fields],
    pub(super) own: &'a Fields,
}

impl Line<'_> {
    pub(super) fn write(&self, format: Format) -> String {
        let stamp = rfc3339(unix_micros());
        let caller = caller(self.metadata);
        let mut out = String::with_capacity(256);
        match format {
            Format::Json => {
                let level = self.severity.word();
                write!(out, "{{\"level\":\"{level}\",\"ts\":\"{stamp}\"").expect(TO_A_STRING);
                if let Some(caller) = caller {
                    write!(out, ",\"caller\":{}", text(&caller)).expect(TO_A_STRING);
                }
                write!(out, ",\"msg\":{}", text(&self.own.message)).expect(TO_A_STRING);
                self.write_fields(&mut out, true);
                out.push_str("}\n");
            }
            Format::Console => {
                let level = self.severity.word();
                let caller = caller.unwrap_or_default();
                let message = self.own.message.replace('\n', "\\n");
                write!(out, "{stamp}\t{level}\t{caller}\t{message}").expect(TO_A_STRING);
                let mut fields = String::new();
                self.write_fields(&mut fields, false);
                if !fields.is_empty() {
                    write!(out, "\t{{{fields}}}").expect(TO_A_STRING);
                }
                out.push('\n');
            }
        }
        out
    }

    fn write_fields(&self, out: &mut String, mut comma: bool) {
        for fields in self.around.iter().chain([self.own]) {
            for (name, value) in &fields.pairs {
                if comma {
                    out.push(',');
                }
                comma = true;
                write!(out, "{}:{value}", text(name)).expect(TO_A_STRING);
            }
        }
    }
}

const TO_A_STRING: &str = "writing to a string";

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// The file's last two parts and the line, as zap shortens it.
fn caller(metadata: &Metadata<'_>) -> Option<String> {
    let file = metadata.file()?;
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    Some(format!("{}:{}", &file[start..], metadata.line()?))
}

/// The folder of the source file that speaks, or nothing.
pub(super) fn folder<'a>(metadata: &Metadata<'a>) -> &'a str {
    let path = metadata.file().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.rsplit('/').next().unwrap_or_default()
}
