//! One log line, from a tracing event to text.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Metadata;
use tracing::field::{Field, Visit};

use super::{Format, Severity};
use crate::support::clock::unix_micros;

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

/// `2026-11-21T10:42:27.863685Z`, from microseconds since 1970.
fn rfc3339(micros: u64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{fraction:06}Z", second % 60)
}

/// Year, month and day of a day since 1970, in the Gregorian calendar (400 years are 146,097 days; a year is
/// counted from March, so that the leap day is its last).
fn civil(days: u64) -> (u64, u64, u64) {
    let from_year_zero = days + 719_468;
    let era = from_year_zero / 146_097;
    let day_of_era = from_year_zero % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_follow_the_calendar() {
        for (micros, want) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_827_696_000_001, "2000-02-29T12:34:56.000001Z"),
            (1_795_257_747_863_685, "2026-11-21T10:42:27.863685Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(micros), want);
        }
    }
}
