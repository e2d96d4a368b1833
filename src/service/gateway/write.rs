//! Protobuf to JSON, as protobuf-go's `protojson` writes it with `UseProtoNames` and without `EmitUnpopulated`: fields in
//! the order of their declaration, zeros left out, 64-bit numbers as strings, bytes as base64, enums by name, no spaces.

use std::fmt::Write as _;

use super::base64;
use super::schema::{Enum, Field, Kind, Message};
use super::wire::{Held, Malformed, take_field, take_varint};

/// Messages within each other, as deep as the services' own encoder is asked to go.
const DEPTH_MAX: usize = 200;

/// Which characters of a string are escaped besides those that must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// None: a whole answer.
    Needed,
    /// `<`, `>`, `&` and the line separators: parts of streams pass through Go's `encoding/json` as well.
    Html,
}

/// Appends `bytes` as the JSON of `message`.
pub(super) fn write(
    message: &Message,
    bytes: &[u8],
    escapes: Escapes,
    out: &mut String,
) -> Result<(), Malformed> {
    Writer { escapes, out }.message(message, bytes, 0)
}

/// Appends a JSON string.
pub(super) fn write_string(text: &str, escapes: Escapes, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32).expect("writing to a string"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escapes == Escapes::Html => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a string");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Writer<'a> {
    escapes: Escapes,
    out: &'a mut String,
}

impl Writer<'_> {
    fn message(&mut self, message: &Message, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        let found = fields(message, bytes)?;
        self.out.push('{');
        let mut first = true;
        for group in found.chunk_by(|(a, _), (b, _)| a == b) {
            let Some(&(index, last)) = group.last() else { continue };
            let field = &message.fields[index];
            if !field.repeated && field.oneof.is_none() && is_zero(field, last) {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(',');
            }
            write!(self.out, "\"{}\":", field.name).expect("writing to a string");
            if field.repeated {
                self.list(field, group.iter().map(|(_, held)| *held), depth)?;
            } else {
                self.value(field, last, depth)?;
            }
        }
        self.out.push('}');
        Ok(())
    }

    fn list<'a>(
        &mut self,
        field: &Field,
        all: impl Iterator<Item = Held<'a>>,
        depth: usize,
    ) -> Result<(), Malformed> {
        self.out.push('[');
        for (at, held) in all.enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.value(field, held, depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn value(&mut self, field: &Field, held: Held<'_>, depth: usize) -> Result<(), Malformed> {
        match (field.kind, held) {
            (Kind::Bool, Held::Number(value)) => self.plain(value != 0),
            (Kind::Int64, Held::Number(value)) => self.quoted(value.cast_signed()),
            (Kind::Uint64, Held::Number(value)) => self.quoted(value),
            (Kind::Uint32, Held::Number(value)) => self.plain(value as u32),
            (Kind::Enum(names), Held::Number(value)) => self.name(names, value as i32),
            (Kind::String, Held::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
                write_string(text, self.escapes, self.out);
            }
            (Kind::Bytes, Held::Bytes(bytes)) => {
                self.out.push('"');
                base64::encode(bytes, self.out);
                self.out.push('"');
            }
            (Kind::Message(inner), Held::Bytes(bytes)) => self.message(inner, bytes, depth + 1)?,
            (_, _) => return Err(Malformed),
        }
        Ok(())
    }

    fn plain(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "{value}").expect("writing to a string");
    }

    fn quoted(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "\"{value}\"").expect("writing to a string");
    }

    /// A number without a name stays one.
    fn name(&mut self, names: &Enum, value: i32) {
        match names.values.iter().find(|(_, number)| *number == value) {
            Some((name, _)) => self.quoted(name),
            None => self.plain(value),
        }
    }
}

/// The message's fields in the order of their declaration, those that repeat next to each other.
fn fields<'a>(message: &Message, mut bytes: &'a [u8]) -> Result<Vec<(usize, Held<'a>)>, Malformed> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (number, held) = take_field(&mut bytes)?;
        let index = message.fields.iter().position(|field| field.number == number);
        let (Some(index), Some(held)) = (index, held) else { continue };
        let field = &message.fields[index];
        match held {
            Held::Bytes(mut packed) if field.repeated && !field.kind.has_length() => {
                while !packed.is_empty() {
                    found.push((index, Held::Number(take_varint(&mut packed)?)));
                }
            }
            Held::Bytes(_) | Held::Number(_) => found.push((index, held)),
        }
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(found)
}

/// What a message without the field would say as well.
fn is_zero(field: &Field, held: Held<'_>) -> bool {
    match (field.kind, held) {
        (Kind::Message(_), _) => false,
        (_, Held::Number(value)) => value == 0,
        (_, Held::Bytes(bytes)) => bytes.is_empty(),
    }
}
