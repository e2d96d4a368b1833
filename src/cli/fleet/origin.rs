//! `config show`: the settings that a daemon started like etcd would have, each with where it comes from.
//!
//! ```text
//!   flags behind -- ──┐  a config file? it decides alone
//!   ETCD_* variables ─┼─> the daemon's own readers ──> settings ──> what follows from others ──> table, JSON, YAML
//!   file, defaults  ──┘
//! ```
//!
//! | precedence | source | when |
//! |---|---|---|
//! | 1 | the file of `--config-file` or `ETCD_CONFIG_FILE` | if there is one, it decides alone, with the defaults |
//! | 2 | a flag | a variable beside its flag is refused, as in etcd |
//! | 3 | a variable | that is not empty |
//! | 4 | the default | or what follows from another setting |
//!
//! **Invariant:** nothing is opened but the config file, and no secret is shown.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::failure::Failure;
use super::table::table;
use crate::cli::daemon::derive_defaults;
use crate::cli::environment::{self, Environment, Taken};
use crate::cli::file::{self, FileError};
use crate::cli::table::{EXPERIMENTAL, Group, Key, REDACTED, Row, Twin, is_secret, rows, variable};
use crate::cli::{config_file, follow_twins, settings};
use crate::support::flags::{FlagSet, ParseError, Value};
use crate::support::go::quote::quote;
use crate::support::urls::texts;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "origin", content = "source", rename_all = "kebab-case")]
pub(super) enum Origin {
    /// Nobody said anything.
    Default,
    /// It follows from the setting of this name.
    Derived(String),
    /// A flag, as it is written.
    Flag(String),
    /// A variable.
    Variable(String),
    /// A config file, and the key in it.
    File {
        /// The file.
        path: String,
        /// Its key, inner ones behind a dot.
        key: String,
    },
}

impl Origin {
    fn plain(&self) -> String {
        match self {
            Origin::Default => "default".to_owned(),
            Origin::Derived(from) => format!("derived from --{from}"),
            Origin::Flag(flag) => format!("flag {flag}"),
            Origin::Variable(name) => format!("variable {name}"),
            Origin::File { path, key } => format!("file {path}, {key}"),
        }
    }
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Setting {
    /// The flag's name without dashes.
    pub(super) name: &'static str,
    #[serde(serialize_with = "as_is")]
    pub(super) value: Value,
    #[serde(flatten)]
    pub(super) origin: Origin,
}

impl Setting {
    /// The value as one would write it behind the flag.
    fn plain(&self) -> String {
        match &self.value {
            Value::Bool(yes) => yes.to_string(),
            Value::Text(text) => text.clone(),
            Value::Int(n) => n.to_string(),
            Value::Uint(n) => n.to_string(),
            Value::Duration(span) => span.to_string(),
            Value::Urls(urls, _) => texts(urls).join(","),
            Value::Texts(list) => list.join(","),
        }
    }
}

fn as_is<S: Serializer>(value: &Value, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Value::Bool(yes) => to.serialize_bool(*yes),
        Value::Text(text) => to.serialize_str(text),
        Value::Int(n) => to.serialize_i64(*n),
        Value::Uint(n) => to.serialize_u64(*n),
        Value::Duration(span) => to.collect_str(span),
        Value::Urls(urls, _) => to.collect_seq(texts(urls)),
        Value::Texts(list) => to.collect_seq(list),
    }
}

/// Every setting in the order of the help, as the daemon would read it; `arguments` without the program's name.
pub(super) fn settings_of(
    arguments: &[String],
    environment: &Environment,
) -> Result<Vec<Setting>, Failure> {
    let mut line = settings::defaults();
    let leftover = line.parse(arguments).map_err(|why| match why {
        ParseError::Help => Failure::usage("the daemon's flags are listed by: quorate --help"),
        ParseError::Bad(why) => Failure::usage(why),
    })?;
    if let Some(first) = leftover.first() {
        return Err(Failure::usage(format!("{} is not a valid flag", quote(first))));
    }
    let (mut flags, origins, from_file) = match config_file(&line, environment) {
        Some(path) => {
            let (flags, origins) = from_file(&path)?;
            (flags, origins, true)
        }
        None => {
            let origins = from_line(&mut line, environment)?;
            (line, origins, false)
        }
    };
    let derived = derive(&mut flags, from_file);
    Ok(rows()
        .filter(|row| row.group != Group::Hidden || flags.is_set(row.name))
        .map(|row| Setting {
            name: row.name,
            value: shown(row, &flags),
            origin: derived
                .get(row.name)
                .or_else(|| origins.get(row.name))
                .cloned()
                .unwrap_or(Origin::Default),
        })
        .collect())
}

fn shown(row: &Row, flags: &FlagSet) -> Value {
    let value = flags.value(row.name);
    match value {
        Value::Text(text) if is_secret(row.name) && !text.is_empty() => {
            Value::Text(REDACTED.to_owned())
        }
        value => value.clone(),
    }
}

type Origins = BTreeMap<&'static str, Origin>;

fn from_file(path: &str) -> Result<(FlagSet, Origins), Failure> {
    let mut flags = settings::defaults();
    file::take(&mut flags, path).map_err(|why| match why {
        FileError::Bad(why) | FileError::Urls(why) => Failure::failed(why),
    })?;
    let origins = rows()
        .filter(|row| flags.is_set(row.name))
        .map(|row| (row.name, Origin::File { path: path.to_owned(), key: key(row) }))
        .collect();
    Ok((flags, origins))
}

fn key(row: &Row) -> String {
    match row.key {
        Key::None | Key::Same => row.name.to_owned(),
        Key::In(first, second) => format!("{first}.{second}"),
        Key::Deep(first, second, third) => format!("{first}.{second}.{third}"),
        Key::Deepest(first, second, third, fourth) => format!("{first}.{second}.{third}.{fourth}"),
    }
}

fn from_line(flags: &mut FlagSet, environment: &Environment) -> Result<Origins, Failure> {
    let mut origins: Origins = set_names(flags)
        .into_iter()
        .map(|name| (name, Origin::Flag(format!("--{name}"))))
        .collect();
    match environment::take(flags, environment) {
        Taken::Well => {}
        Taken::Bad(why) => return Err(Failure::failed(why)),
        Taken::Conflict => return Err(conflict(&origins, environment)),
    }
    for name in set_names(flags) {
        origins.entry(name).or_insert_with(|| Origin::Variable(variable(name)));
    }
    let old: Vec<&'static str> =
        EXPERIMENTAL.iter().map(|(old, _)| *old).filter(|old| flags.is_set(old)).collect();
    follow_twins(flags).map_err(Failure::failed)?;
    for (name, twin) in EXPERIMENTAL.iter().filter(|(name, _)| old.contains(name)) {
        let new = match twin {
            Twin::Flag(new) => new,
            Twin::Gate(_) => "feature-gates",
        };
        if let Some(origin) = origins.get(name).cloned() {
            origins.insert(new, origin);
        }
    }
    Ok(origins)
}

fn set_names(flags: &FlagSet) -> Vec<&'static str> {
    flags.names().filter(|name| flags.is_set(name)).collect()
}

/// etcd does not start then, so there is no effective setting to show.
fn conflict(origins: &Origins, environment: &Environment) -> Failure {
    let both = origins.keys().find(|name| {
        let variable = variable(name);
        environment.iter().any(|(key, _)| *key == variable)
    });
    let name = both.copied().unwrap_or_default();
    Failure::failed(format!(
        "--{name} and {} are both given, and a daemon refuses to start then: unset the variable, or leave out the flag",
        variable(name)
    ))
}

/// What the daemon makes of settings that nobody gave: fills them in, and says from what.
fn derive(flags: &mut FlagSet, from_file: bool) -> Origins {
    let before = settings::config(flags, from_file);
    let mut after = before.clone();
    derive_defaults(&mut after);
    let mut derived = Origins::new();
    let mut put = |name: &'static str, value: Value, from: &str| {
        flags.put(name, value);
        derived.insert(name, Origin::Derived(from.to_owned()));
    };
    if before.member.data_dir != after.member.data_dir {
        put("data-dir", Value::Text(after.member.data_dir), "name");
    }
    if before.cluster.initial_cluster != after.cluster.initial_cluster {
        put("initial-cluster", Value::Text(after.cluster.initial_cluster), "name");
    }
    if before.member.advertise_peer != after.member.advertise_peer {
        let names = texts(&after.member.advertise_peer).into_iter().collect();
        let value = Value::Urls(after.member.advertise_peer, names);
        put("initial-advertise-peer-urls", value, "listen-peer-urls");
    }
    if let Some(urls) = after
        .member
        .advertise_client
        .filter(|urls| before.member.advertise_client.as_ref().is_some_and(|before| before != urls))
    {
        let names = texts(&urls).into_iter().collect();
        put("advertise-client-urls", Value::Urls(urls, names), "listen-client-urls");
    }
    derived
}

/// For programs: a list of settings with their origins, or one mapping of names to values.
pub(super) fn metadata(settings: &[Setting], origin: bool) -> Result<Json, Failure> {
    let refused = |why: serde_json::Error| Failure::failed(format!("cannot write JSON: {why}"));
    let list = settings.iter().map(serde_json::to_value).collect::<Result<Vec<Json>, _>>();
    let list = list.map_err(refused)?;
    if origin {
        return Ok(Json::Array(list));
    }
    let values = list.into_iter().map(|mut setting| setting["value"].take());
    Ok(settings.iter().map(|setting| setting.name.to_owned()).zip(values).collect())
}

/// The table for people: name and value, and where it comes from if `origin`.
pub(super) fn plain(settings: &[Setting], origin: bool) -> String {
    let rows = settings.iter().map(|setting| {
        let mut row = vec![setting.name.to_owned(), setting.plain()];
        if origin {
            row.push(setting.origin.plain());
        }
        row
    });
    let heads: &[&str] =
        if origin { &["SETTING", "VALUE", "ORIGIN"] } else { &["SETTING", "VALUE"] };
    table(heads, rows)
}

#[cfg(test)]
#[path = "origin_test.rs"]
mod tests;
