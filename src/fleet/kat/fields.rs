//! A tree of YAML walked field by field: whatever is wrong is told with its path, and all of it at once.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::support::go::duration::GoDuration;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as `spec.agentPort`; empty for the file as a whole.
    pub path: String,
    /// What.
    pub text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.text),
            path => write!(f, "{}: {}", path.trim_end_matches(": "), self.text),
        }
    }
}

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Fault { path: path.into(), text: text.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn list(self) -> Vec<Fault> {
        self.0
    }
}

/// One mapping: each field is taken once, and what nobody took is unknown.
pub(super) struct Fields {
    path: String,
    left: Map<String, Value>,
}

impl Fields {
    /// `None`, with a fault, if it is no mapping.
    pub(super) fn of(path: &str, value: Value, faults: &mut Faults) -> Option<Fields> {
        match value {
            Value::Object(left) => Some(Fields { path: path.to_owned(), left }),
            other => {
                faults.add(path, format!("a mapping is needed here, not {}", shown(&other)));
                None
            }
        }
    }

    /// The path of a field of this mapping.
    pub(super) fn at(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path if path.ends_with(": ") => format!("{path}{name}"),
            path => format!("{path}.{name}"),
        }
    }

    /// Whether that field has a value, and nobody took it yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// A mapping within this one.
    pub(super) fn mapping(&mut self, name: &str, faults: &mut Faults) -> Option<Fields> {
        let path = self.at(name);
        match self.left.remove(name) {
            Some(value) => Fields::of(&path, value, faults),
            None => {
                faults.add(path, "is missing");
                None
            }
        }
    }

    /// A text that may be absent; a field without a value is absent too.
    pub(super) fn text(&mut self, name: &str, faults: &mut Faults) -> Option<String> {
        match self.left.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                faults.add(self.at(name), format!("a text is needed here, not {}", shown(&other)));
                None
            }
        }
    }

    pub(super) fn port(&mut self, name: &str, default: u16, faults: &mut Faults) -> u16 {
        let value = match self.left.remove(name) {
            None | Some(Value::Null) => return default,
            Some(value) => value,
        };
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        port.filter(|port| *port > 0).unwrap_or_else(|| {
            let text = format!("{} is no port: a whole number from 1 to 65535 is", shown(&value));
            faults.add(self.at(name), text);
            default
        })
    }

    /// The same, where 0 stands for none.
    pub(super) fn port_or_none(
        &mut self,
        name: &str,
        default: u16,
        faults: &mut Faults,
    ) -> Option<u16> {
        if self.left.get(name).and_then(Value::as_u64) == Some(0) {
            self.left.remove(name);
            return None;
        }
        Some(self.port(name, default, faults))
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(
        &mut self,
        name: &str,
        default: u32,
        most: u32,
        faults: &mut Faults,
    ) -> u32 {
        let value = match self.left.remove(name) {
            None | Some(Value::Null) => return default,
            Some(value) => value,
        };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.filter(|count| (1..=most).contains(count)).unwrap_or_else(|| {
            let text = format!("{} is no whole number from 1 to {most}", shown(&value));
            faults.add(self.at(name), text);
            default
        })
    }

    /// A duration in Go's words, from `least` to `most`.
    pub(super) fn span(
        &mut self,
        name: &str,
        default: Duration,
        (least, most): (Duration, Duration),
        faults: &mut Faults,
    ) -> Duration {
        let value = match self.left.remove(name) {
            None | Some(Value::Null) => return default,
            Some(value) => value,
        };
        let span = value.as_str().and_then(GoDuration::parse);
        let Some(span) = span else {
            let text = format!("{} is no duration: 90s, 15m or 1h30m is", shown(&value));
            faults.add(self.at(name), text);
            return default;
        };
        if span.0 < 0 || !(least..=most).contains(&span.to_std()) {
            let (least, most) = (GoDuration::from_std(least), GoDuration::from_std(most));
            let text = format!("{span} is not from {least} to {most}");
            faults.add(self.at(name), text);
            return default;
        }
        span.to_std()
    }

    /// A network, such as `10.0.0.0/16`.
    pub(super) fn network(&mut self, name: &str, faults: &mut Faults) -> Option<IpNet> {
        let text = self.text(name, faults)?;
        match text.parse::<IpNet>() {
            Ok(network) if network == network.trunc() => Some(network),
            Ok(network) => {
                let meant = network.trunc();
                faults.add(
                    self.at(name),
                    format!("{text} has bits beside its prefix: {meant} has none"),
                );
                None
            }
            Err(_) => {
                let text = format!("{text:?} is no network: 10.0.0.0/16 is");
                faults.add(self.at(name), text);
                None
            }
        }
    }

    /// An absolute path.
    pub(super) fn folder(&mut self, name: &str, faults: &mut Faults) -> Option<PathBuf> {
        let text = self.text(name, faults)?;
        let path = PathBuf::from(&text);
        if path.is_absolute() {
            return Some(path);
        }
        faults.add(self.at(name), format!("{text:?} is no absolute path"));
        None
    }

    /// What nobody took is unknown.
    pub(super) fn end(self, faults: &mut Faults) {
        for name in self.left.keys() {
            faults.add(self.at(name), "there is no such field");
        }
    }
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
