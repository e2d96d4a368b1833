//! Command-line flags by the rules of Go's `flag` package and etcd's own value types.
//!
//! ```text
//!   arguments ── parse ──┐
//!   ETCD_X=…  ── set  ───┼──> one slot a flag: value, and whether anybody set it ──> typed getters
//!   config    ── put  ───┘
//! ```
//!
//! This is the mechanism; which flags exist is the table of [`crate::cli`].
//!
//! Rules: `-x` is `--x`; `--x=v` or `--x v`; booleans bare or `=v`; the first argument that is no flag, or `--`,
//! ends the flags; a repeated flag overwrites; `-h` and `-help` ask for help.

use std::collections::{BTreeMap, BTreeSet};

use super::go::duration::GoDuration;
use super::go::number::{NumberError, parse_bool, parse_int, parse_uint};
use super::go::quote::quote;
use super::urls::{Url, parse_list, texts};

/// What a flag's value is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true`, `false` and Go's other spellings; needs no value.
    Bool,
    /// Any text.
    Text,
    /// A signed 64-bit number.
    Int,
    /// An unsigned 64-bit number.
    Uint,
    /// An unsigned 32-bit number, refused in strconv's longer words.
    Uint32,
    /// A Go duration.
    Duration,
    /// A comma-separated list of URLs. Texts in `allowed` are taken too, without being URLs.
    Urls {
        /// Texts that are no URLs, and all the same allowed.
        allowed: &'static [&'static str],
    },
    /// A comma-separated list; sorted, each once.
    UniqueTexts,
    /// A comma-separated list, in its order.
    Texts,
    /// One of these words; the first is the default.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these words.
    SomeOf(&'static [&'static str]),
    /// `Name=bool` pairs; each occurrence adds to those before. The function refuses unknown names.
    Gates(fn(&str) -> Result<(), String>),
    /// Taken and forgotten.
    Ignored,
}

/// One flag as the mechanism sees it.
#[derive(Clone, Copy, Debug)]
pub struct FlagSpec {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Its default, as one would write it; empty for the kind's zero.
    pub default: &'static str,
}

/// A flag's value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "one a kind")]
pub enum Value {
    Bool(bool),
    Text(String),
    Int(i64),
    Uint(u64),
    Duration(GoDuration),
    Urls(Vec<Url>, BTreeSet<String>),
    Texts(Vec<String>),
}

#[derive(Clone, Debug)]
struct Slot {
    kind: Kind,
    value: Value,
    set: bool,
}

/// Why the arguments were not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `-h` or `--help`.
    #[error("help requested")]
    Help,
    /// An argument is wrong; Go's words.
    #[error("{0}")]
    Bad(String),
}

/// Every flag with its value.
#[derive(Clone, Debug)]
pub struct FlagSet {
    slots: BTreeMap<&'static str, Slot>,
}

impl FlagSet {
    /// All flags at their defaults.
    pub fn new(specs: impl IntoIterator<Item = FlagSpec>) -> FlagSet {
        let mut flags = FlagSet { slots: BTreeMap::new() };
        for spec in specs {
            let slot = Slot { kind: spec.kind, value: zero(spec.kind), set: false };
            let old = flags.slots.insert(spec.name, slot);
            assert!(old.is_none(), "flag {} stands twice in its table", spec.name);
            if !spec.default.is_empty() {
                flags
                    .set(spec.name, spec.default)
                    .expect("the table's defaults are valid, a test says so");
                flags.slot_mut(spec.name).set = false;
            }
        }
        flags
    }

    /// Takes arguments, and returns those behind the flags.
    pub fn parse(&mut self, arguments: &[String]) -> Result<Vec<String>, ParseError> {
        let mut rest = arguments;
        while let Some((argument, after)) = rest.split_first() {
            if argument.len() < 2 || !argument.starts_with('-') {
                break;
            }
            if argument == "--" {
                rest = after;
                break;
            }
            rest = self.take(argument, after)?;
        }
        Ok(rest.to_vec())
    }

    fn take<'a>(
        &mut self,
        argument: &str,
        after: &'a [String],
    ) -> Result<&'a [String], ParseError> {
        let body =
            argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).unwrap_or(argument);
        if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
            return Err(ParseError::Bad(format!("bad flag syntax: {argument}")));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some((&name, slot)) = self.slots.get_key_value(name) else {
            return Err(match name {
                "h" | "help" => ParseError::Help,
                _ => ParseError::Bad(format!("flag provided but not defined: -{name}")),
            });
        };
        let is_bool = matches!(slot.kind, Kind::Bool | Kind::Ignored);
        let (value, after) = match (inline, after.split_first()) {
            (Some(value), _) => (value, after),
            (None, _) if is_bool => ("true", after),
            (None, Some((value, after))) => (value.as_str(), after),
            (None, None) => {
                return Err(ParseError::Bad(format!("flag needs an argument: -{name}")));
            }
        };
        self.set(name, value).map_err(|why| {
            let what = if is_bool { "boolean value" } else { "value" };
            let flag = if is_bool { "" } else { "flag " };
            ParseError::Bad(format!("invalid {what} {} for {flag}-{name}: {why}", quote(value)))
        })?;
        Ok(after)
    }

    /// Gives a flag a value as one would write it. The error does not name the flag.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let slot = self.slots.get_mut(name).ok_or_else(|| format!("no such flag -{name}"))?;
        slot.value = read(slot.kind, &slot.value, text)?;
        slot.set = true;
        Ok(())
    }

    /// Gives a flag a value that was read elsewhere.
    pub fn put(&mut self, name: &str, value: Value) {
        let slot = self.slot_mut(name);
        slot.value = value;
        slot.set = true;
    }

    /// Whether anybody set it, be it to its default.
    pub fn is_set(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.set)
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.slots.keys().copied()
    }

    /// A flag's kind, if there is such a flag.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.slots.get(name).map(|slot| slot.kind)
    }

    /// A flag's value.
    pub fn value(&self, name: &str) -> &Value {
        &self.slot(name).value
    }

    /// A boolean flag.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Bool(true))
    }

    /// A text flag.
    pub fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text.clone(),
            other => panic_kind(name, other),
        }
    }

    /// A signed number.
    pub fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(n) => *n,
            other => panic_kind(name, other),
        }
    }

    /// An unsigned number.
    pub fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(n) => *n,
            other => panic_kind(name, other),
        }
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> GoDuration {
        match self.value(name) {
            Value::Duration(d) => *d,
            other => panic_kind(name, other),
        }
    }

    /// The URLs of a list of URLs.
    pub fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls, _) => urls.clone(),
            other => panic_kind(name, other),
        }
    }

    /// The texts of a list; of a list of URLs, what it allows besides.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::Texts(texts) => texts.clone(),
            Value::Urls(_, names) => names.iter().cloned().collect(),
            other => panic_kind(name, other),
        }
    }

    fn slot(&self, name: &str) -> &Slot {
        self.slots.get(name).expect("getters name flags of the table, a test reads them all")
    }

    fn slot_mut(&mut self, name: &str) -> &mut Slot {
        self.slots.get_mut(name).expect("only flags of the table are put")
    }
}

#[expect(clippy::panic, reason = "a flag read as another kind is a mistake in the table")]
fn panic_kind<T>(name: &str, value: &Value) -> T {
    panic!("flag {name} is {value:?}")
}

fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(false),
        Kind::Text | Kind::Gates(_) | Kind::Ignored => Value::Text(String::new()),
        Kind::Int => Value::Int(0),
        Kind::Uint | Kind::Uint32 => Value::Uint(0),
        Kind::Duration => Value::Duration(GoDuration(0)),
        Kind::Urls { .. } => Value::Urls(Vec::new(), BTreeSet::new()),
        Kind::UniqueTexts | Kind::Texts | Kind::SomeOf(_) => Value::Texts(Vec::new()),
        Kind::OneOf(words) => Value::Text(words[0].to_owned()),
    }
}

/// Reads `text` for a flag that holds `old`.
pub(crate) fn read(kind: Kind, old: &Value, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => parse_bool(text).map(Value::Bool).ok_or(PARSE.to_owned()),
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Ignored => Ok(Value::Text(String::new())),
        Kind::Int => parse_int(text).map(Value::Int).map_err(number),
        Kind::Uint => parse_uint(text, 64).map(Value::Uint).map_err(number),
        Kind::Uint32 => parse_uint(text, 32).map(Value::Uint).map_err(|why| {
            let why = match why {
                NumberError::Syntax => "invalid syntax",
                NumberError::Range => RANGE,
            };
            format!("strconv.ParseUint: parsing {}: {why}", quote(text))
        }),
        Kind::Duration => GoDuration::parse(text).map(Value::Duration).ok_or(PARSE.to_owned()),
        Kind::Urls { allowed } => read_urls(allowed, old, text),
        Kind::UniqueTexts => {
            let unique: BTreeSet<&str> = text.split(',').collect();
            Ok(Value::Texts(unique.into_iter().map(str::to_owned).collect()))
        }
        Kind::Texts => Ok(Value::Texts(text.split(',').map(str::to_owned).collect())),
        Kind::OneOf(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Kind::OneOf(_) => Err("invalid value".to_owned()),
        Kind::SomeOf(words) => {
            if let Some(bad) = text.split(',').find(|word| !words.contains(word)) {
                return Err(format!("invalid value {}", quote(bad)));
            }
            Ok(Value::Texts(text.split(',').map(str::to_owned).collect()))
        }
        Kind::Gates(check) => {
            check(text)?;
            let Value::Text(before) = old else {
                return Ok(Value::Text(text.to_owned()));
            };
            let joined = [before.as_str(), text]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(",");
            Ok(Value::Text(joined))
        }
    }
}

const PARSE: &str = "parse error";
const RANGE: &str = "value out of range";

fn number(why: NumberError) -> String {
    match why {
        NumberError::Syntax => PARSE.to_owned(),
        NumberError::Range => RANGE.to_owned(),
    }
}

/// etcd's `UniqueURLs.Set`: an allowed text, or one already there, leaves the URLs as they are.
fn read_urls(allowed: &[&str], old: &Value, text: &str) -> Result<Value, String> {
    let (urls, mut names) = match old {
        Value::Urls(urls, names) => (urls.clone(), names.clone()),
        _ => (Vec::new(), BTreeSet::new()),
    };
    if names.contains(text) {
        return Ok(Value::Urls(urls, names));
    }
    if allowed.contains(&text) {
        names.insert(text.to_owned());
        return Ok(Value::Urls(urls, names));
    }
    let mut urls = parse_list(text)?;
    urls.dedup();
    let names = texts(&urls).into_iter().collect();
    Ok(Value::Urls(urls, names))
}

#[cfg(test)]
#[path = "flags_test.rs"]
mod tests;
