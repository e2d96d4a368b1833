//! The golden files of the management API, `tests/testdata/management/*.json`, as the tests on a double and those on real
//! nodes read them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) forms: Vec<String>,
    pub(crate) trust: Trust,
    pub(crate) needs: Needs,
    #[serde(default = "yes")]
    pub(crate) envelope: bool,
    #[serde(default = "yes")]
    pub(crate) documented: bool,
    pub(crate) cases: Vec<Case>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trust {
    Trusted,
    Open,
    Capi,
    Node,
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Needs {
    ControlPlane,
    Fleet,
    NotStopping,
    Always,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) claim: String,
    #[serde(default)]
    pub(crate) only: Vec<String>,
    #[serde(default = "control_plane")]
    pub(crate) phase: String,
    #[serde(default = "socket")]
    pub(crate) door: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) body: Option<Value>,
    #[serde(default)]
    pub(crate) raw: Option<String>,
    #[serde(default)]
    pub(crate) node: Option<Value>,
    /// Left out: not looked at; null: the node must not have been asked.
    #[serde(default, deserialize_with = "present")]
    pub(crate) asked: Option<Value>,
    pub(crate) status: u16,
    pub(crate) answer: Value,
}

fn control_plane() -> String {
    "control-plane".to_owned()
}

fn socket() -> String {
    "socket".to_owned()
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Every file by its name without the ending, in order.
pub(crate) fn rows() -> Vec<(String, Row)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/management");
    let mut rows: Vec<(String, Row)> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a file of text");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let row = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
            (name, row)
        })
        .collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

/// Equal field by field; `"*"` stands for any text that is not empty.
pub(crate) fn differences(want: &Value, got: &Value, place: &str, found: &mut Vec<String>) {
    match (want, got) {
        (Value::String(any), Value::String(text)) if any == "*" && !text.is_empty() => {}
        (Value::Object(want), Value::Object(got)) => {
            let names: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
            for name in names {
                let place = format!("{place}.{name}");
                match (want.get(name), got.get(name)) {
                    (Some(want), Some(got)) => differences(want, got, &place, found),
                    (Some(_), None) => found.push(format!("{place} is missing")),
                    (None, _) => found.push(format!("{place} is too much: {}", got[name])),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (number, (want, got)) in want.iter().zip(got).enumerate() {
                differences(want, got, &format!("{place}[{number}]"), found);
            }
        }
        (want, got) if want == got => {}
        (want, got) => found.push(format!("{place}: wanted {want}, got {got}")),
    }
}
