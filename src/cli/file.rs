//! Settings from a config file: YAML or JSON, keys as flags are named (etcd `server/embed/config.go`,
//! `configFromFile`). Unknown keys are skipped, so that a file for another release starts.
//!
//! **Invariant:** a file decides everything: flags and variables beside it are not looked at.

use std::fs;

use serde_json::{Map, Value as Json};

use super::table::{Key, Row, rows};
use crate::embed::gates;
use crate::support::flags::{FlagSet, Kind, Value};
use crate::support::go::duration::GoDuration;
use crate::support::listen::words;
use crate::support::urls::parse_list;
use crate::support::yaml;

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileError {
    /// To be logged as the reason why the flags do not verify.
    Bad(String),
    /// A list of URLs was bad: etcd prints this bare and exits.
    Urls(String),
}

/// Reads the file at `path` into the flags.
pub(super) fn take(flags: &mut FlagSet, path: &str) -> Result<(), FileError> {
    let bytes =
        fs::read(path).map_err(|why| FileError::Bad(format!("open {path}: {}", words(&why))))?;
    take_text(flags, &String::from_utf8_lossy(&bytes))
}

fn take_text(flags: &mut FlagSet, text: &str) -> Result<(), FileError> {
    let tree = yaml::parse(text)
        .map_err(|why| FileError::Bad(format!("error converting YAML to JSON: yaml: {why}")))?;
    let root = match tree {
        Json::Object(root) => root,
        Json::Null => Map::new(),
        other => {
            let why = decode(word(&other), "value", "embed.configYAML");
            return Err(FileError::Bad(why));
        }
    };
    check_mappings(&root)?;
    for row in rows() {
        let Some((json, path)) = lookup(&root, row) else { continue };
        if json.is_null() {
            continue;
        }
        if let Some(value) = read(row, json, &path)? {
            flags.put(row.name, value);
        }
    }
    Ok(())
}

/// The keys that hold mappings must.
fn check_mappings(root: &Map<String, Json>) -> Result<(), FileError> {
    for (key, holder, go) in [
        ("client-transport-security", "configYAML.configJSON", "embed.securityConfig"),
        ("peer-transport-security", "configYAML.configJSON", "embed.securityConfig"),
        ("socket-options", "configYAML.Config", "transport.SocketOpts"),
        ("discovery-config", "configYAML.Config", "v3discovery.DiscoveryConfig"),
    ] {
        check_mapping(root, key, holder, key, go)?;
    }
    check_client(root)
}

/// Those of the discovery service's client stand inside each other.
fn check_client(root: &Map<String, Json>) -> Result<(), FileError> {
    const PATH: &str = "discovery-config.client";
    let Some(discovery) = find(root, "discovery-config").and_then(Json::as_object) else {
        return Ok(());
    };
    let holder = "DiscoveryConfig.Config";
    check_mapping(discovery, "client", holder, PATH, "clientv3.ConfigSpec")?;
    let Some(client) = find(discovery, "client").and_then(Json::as_object) else { return Ok(()) };
    for (key, go) in [("secure", "clientv3.SecureConfig"), ("auth", "clientv3.AuthConfig")] {
        check_mapping(client, key, "ConfigSpec.Config", &format!("{PATH}.{key}"), go)?;
    }
    Ok(())
}

fn check_mapping(
    object: &Map<String, Json>,
    key: &str,
    holder: &str,
    path: &str,
    go: &str,
) -> Result<(), FileError> {
    match find(object, key) {
        None | Some(Json::Null | Json::Object(_)) => Ok(()),
        Some(other) => {
            let field = format!("Go struct field {holder}.{path}");
            Err(FileError::Bad(decode(word(other), &field, go)))
        }
    }
}

/// encoding/json takes keys in any case, an exact match first.
fn find<'a>(object: &'a Map<String, Json>, key: &str) -> Option<&'a Json> {
    object.get(key).or_else(|| {
        object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    })
}

fn lookup<'a>(root: &'a Map<String, Json>, row: &Row) -> Option<(&'a Json, String)> {
    match row.key {
        Key::None => None,
        Key::Same => {
            let holder = if is_text_for_json(row) { "configJSON" } else { "Config" };
            Some((find(root, row.name)?, format!("configYAML.{holder}.{}", row.name)))
        }
        Key::In(first, second) => {
            let (kind, holder) = match first {
                "socket-options" => ("SocketOpts", "Config"),
                "discovery-config" => ("DiscoveryConfig", "Config"),
                _ => ("securityConfig", "configJSON"),
            };
            let json = find(find(root, first)?.as_object()?, second)?;
            Some((json, format!("{kind}.{holder}.{first}.{second}")))
        }
        Key::Deep(first, second, third) => {
            let inner = find(find(root, first)?.as_object()?, second)?.as_object()?;
            let path = format!("ConfigSpec.Config.{first}.{second}.{third}");
            Some((find(inner, third)?, path))
        }
        Key::Deepest(first, second, third, fourth) => {
            let inner = find(find(root, first)?.as_object()?, second)?.as_object()?;
            let kind = if third == "auth" { "AuthConfig" } else { "SecureConfig" };
            let path = format!("{kind}.Config.{first}.{second}.{third}.{fourth}");
            Some((find(find(inner, third)?.as_object()?, fourth)?, path))
        }
    }
}

/// Lists that a file spells as one text: etcd keeps them in a struct of their own.
fn is_text_for_json(row: &Row) -> bool {
    let list =
        matches!(row.kind, Kind::Urls { .. } | Kind::Gates(_)) || row.name == "host-whitelist";
    list && row.name != "listen-metrics-urls"
}

fn go_type(row: &Row) -> &'static str {
    match (row.kind, row.name) {
        (Kind::Bool, _) => "bool",
        (Kind::Int, "quota-backend-bytes") => "int64",
        (Kind::Int, _) => "int",
        (Kind::Uint, "snapshot-count" | "snapshot-catchup-entries") => "uint64",
        (Kind::Uint, _) => "uint",
        (Kind::Uint32, _) => "uint32",
        (Kind::Duration, _) => "time.Duration",
        (Kind::Texts | Kind::UniqueTexts, name) if name != "host-whitelist" => "[]string",
        _ => "string",
    }
}

/// The value of `json` for this flag; `None` leaves the default, as an empty text does for a list of URLs.
fn read(row: &Row, json: &Json, path: &str) -> Result<Option<Value>, FileError> {
    let mismatch = || {
        let field = format!("Go struct field {path}");
        let what = match json {
            Json::Number(n) if is_number(row.kind) => format!("number {n}"),
            other => word(other).to_owned(),
        };
        FileError::Bad(decode(&what, &field, go_type(row)))
    };
    let value = match row.kind {
        Kind::Bool => Value::Bool(json.as_bool().ok_or_else(mismatch)?),
        Kind::Int => Value::Int(json.as_i64().ok_or_else(mismatch)?),
        Kind::Uint => Value::Uint(json.as_u64().ok_or_else(mismatch)?),
        Kind::Uint32 => {
            let n = json.as_u64().filter(|n| u32::try_from(*n).is_ok());
            Value::Uint(n.ok_or_else(mismatch)?)
        }
        Kind::Duration => Value::Duration(GoDuration(json.as_i64().ok_or_else(mismatch)?)),
        Kind::Texts | Kind::UniqueTexts if row.name != "host-whitelist" => {
            let items = json.as_array().ok_or_else(mismatch)?;
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            Value::Texts(texts.ok_or_else(mismatch)?)
        }
        _ => return read_text(row, json.as_str().ok_or_else(mismatch)?),
    };
    Ok(Some(value))
}

fn read_text(row: &Row, text: &str) -> Result<Option<Value>, FileError> {
    let value = match row.kind {
        _ if text.is_empty() && row.name != "data-dir" && is_text_for_json(row) => return Ok(None),
        Kind::Urls { allowed } if allowed.contains(&text) => {
            Value::Urls(Vec::new(), [text.to_owned()].into())
        }
        Kind::Urls { .. } => {
            let urls = parse_list(text).map_err(|why| {
                // etcd's own slip names the peers here.
                let name = match row.name {
                    "advertise-client-urls" => "advertise-peer-urls",
                    name => name,
                };
                FileError::Urls(format!("unexpected error setting up {name}: {why}"))
            })?;
            let names = urls.iter().map(ToString::to_string).collect();
            Value::Urls(urls, names)
        }
        Kind::Gates(_) => {
            gates::check(text).map_err(FileError::Bad)?;
            Value::Text(text.to_owned())
        }
        Kind::UniqueTexts => Value::Texts(text.split(',').map(str::to_owned).collect()),
        Kind::SomeOf(_) => Value::Texts(vec![text.to_owned()]),
        _ => Value::Text(text.to_owned()),
    };
    Ok(Some(value))
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Duration)
}

fn word(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// The words of sigs.k8s.io/yaml around those of encoding/json.
fn decode(what: &str, field: &str, go: &str) -> String {
    format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into {field} of \
         type {go}"
    )
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
