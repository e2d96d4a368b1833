//! JSON to protobuf, as protobuf-go's `protojson` does it with `DiscardUnknown`, down to its words.
//!
//! ```text
//!   one value, checked by `values` ── names to fields, values by their kind ──> the message's bytes
//! ```
//!
//! Both names of a field are read; unknown names, and unknown names of an enum, are passed over; null is not there.

use super::number;
use super::schema::{Field, Kind, Message};
use super::wire;
use crate::support::go::quote::quote;

/// Messages within each other. The services' own decoder takes no more.
const DEPTH_MAX: usize = 100;

/// The bytes of `message` as the JSON value `text` says, or what is wrong, in protobuf-go's words.
///
/// `text` is one value that [`super::values::Values`] has cut.
pub(super) fn read(message: &Message, text: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = Reader { text, at: 0 };
    let mut out = Vec::with_capacity(text.len());
    match reader.message(message, 0, &mut out) {
        Ok(()) => Ok(out),
        Err(why) => Err(format!("proto: {why}")),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// What stands at a place, parsed if it is whole by itself.
enum Token {
    Null,
    Bool(bool),
    Number,
    Text(String),
    /// `{` or `[`.
    Open,
}

impl Reader<'_> {
    fn byte(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    /// Line and column, from 1; columns are characters.
    fn position(&self, at: usize) -> String {
        let before = &self.text[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        format!("(line {line}:{column}): ")
    }

    fn raw(&self, from: usize) -> String {
        String::from_utf8_lossy(&self.text[from..self.at]).into_owned()
    }

    /// The token from `from` to here does not belong there.
    fn unexpected(&self, from: usize) -> String {
        format!("syntax error {}unexpected token {}", self.position(from), self.raw(from))
    }

    /// Reads one token.
    fn token(&mut self) -> Result<Token, String> {
        let from = self.at;
        match self.byte() {
            b'"' => return self.string().map(Token::Text),
            b'{' | b'[' => {
                self.at += 1;
                return Ok(Token::Open);
            }
            _ => {}
        }
        while !matches!(self.byte(), 0 | b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        Ok(match &self.text[from..self.at] {
            b"null" => Token::Null,
            b"true" => Token::Bool(true),
            b"false" => Token::Bool(false),
            _ => Token::Number,
        })
    }

    fn message(
        &mut self,
        message: &Message,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if depth >= DEPTH_MAX {
            return Err("exceeded max recursion depth".to_owned());
        }
        let from = self.at;
        if self.byte() != b'{' {
            self.token()?;
            return Err(self.unexpected(from));
        }
        self.at += 1;
        let mut seen = Seen::default();
        loop {
            self.skip_space();
            match self.byte() {
                b',' => self.at += 1,
                b'"' => self.member(message, depth, &mut seen, out)?,
                _ => {
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    fn member(
        &mut self,
        message: &Message,
        depth: usize,
        seen: &mut Seen,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let from = self.at;
        let name = self.string()?;
        let raw = self.raw(from);
        self.skip_space();
        self.at += 1;
        self.skip_space();
        let by_json = message.fields.iter().position(|field| field.json == name);
        let named = || message.fields.iter().position(|field| field.name == name);
        let Some(index) = by_json.or_else(named) else { return self.skip() };
        let field = &message.fields[index];
        if seen.field(index) {
            return Err(format!("{}duplicate field {raw}", self.position(from)));
        }
        if self.byte() == b'n' {
            return self.token().map(drop);
        }
        if field.repeated {
            return self.list(field, depth, out);
        }
        if let Some(oneof) = field.oneof
            && seen.oneof(oneof)
        {
            let at = self.position(from);
            return Err(format!("{at}error parsing {raw}, oneof {oneof} is already set"));
        }
        self.value(field, depth, out)
    }

    fn list(&mut self, field: &Field, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let from = self.at;
        if self.byte() != b'[' {
            self.token()?;
            return Err(self.unexpected(from));
        }
        self.at += 1;
        loop {
            self.skip_space();
            match self.byte() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => self.value(field, depth, out)?,
            }
        }
    }

    /// One value of a field.
    fn value(&mut self, field: &Field, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if let Kind::Message(inner) = field.kind {
            let mut bytes = Vec::new();
            self.message(inner, depth + 1, &mut bytes)?;
            wire::put_bytes(out, field.number, &bytes);
            return Ok(());
        }
        let from = self.at;
        let token = self.token()?;
        if self.scalar(field, from, token, out).is_some() {
            return Ok(());
        }
        let (at, kind, raw) = (self.position(from), field.kind.word(), self.raw(from));
        Err(format!("{at}invalid value for {kind} field {}: {raw}", field.json))
    }

    fn scalar(&self, field: &Field, from: usize, token: Token, out: &mut Vec<u8>) -> Option<()> {
        let text = std::str::from_utf8(&self.text[from..self.at]).ok()?;
        let number = match (field.kind, token) {
            (Kind::Bool, Token::Bool(value)) => u64::from(value),
            (Kind::Int64, Token::Number) => number::parse::<i64>(text)?.cast_unsigned(),
            (Kind::Int64, Token::Text(text)) => number::parse_quoted::<i64>(&text)?.cast_unsigned(),
            (Kind::Uint64, Token::Number) => number::parse(text)?,
            (Kind::Uint64, Token::Text(text)) => number::parse_quoted(&text)?,
            (Kind::Uint32, Token::Number) => number::parse::<u32>(text)?.into(),
            (Kind::Uint32, Token::Text(text)) => number::parse_quoted::<u32>(&text)?.into(),
            (Kind::Enum(_), Token::Number) => enum_number(number::parse(text)?),
            (Kind::Enum(names), Token::Text(name)) => {
                match names.values.iter().find(|(known, _)| *known == name) {
                    Some((_, value)) => enum_number(*value),
                    None => return Some(()),
                }
            }
            (Kind::String, Token::Text(text)) => {
                wire::put_bytes(out, field.number, text.as_bytes());
                return Some(());
            }
            (Kind::Bytes, Token::Text(text)) => {
                wire::put_bytes(out, field.number, &super::base64::decode_lenient(&text)?);
                return Some(());
            }
            (_, _) => return None,
        };
        wire::put_number(out, field.number, number);
        Some(())
    }

    /// Passes over one value, whatever it is; its strings are looked at.
    fn skip(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            match self.byte() {
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    self.at += 1;
                    depth = depth.saturating_sub(1);
                }
                _ => {
                    if let Token::Open = self.token()? {
                        depth += 1;
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// The string that begins here.
    fn string(&mut self) -> Result<String, String> {
        let from = self.at;
        let mut out = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(0);
            let text = std::str::from_utf8(&rest[..plain]).map_err(|_| {
                format!("syntax error {}invalid UTF-8 in string", self.position(from))
            })?;
            out.push_str(text);
            self.at += plain;
            if self.byte() != b'\\' {
                self.at += 1;
                return Ok(out);
            }
            out.push(self.escape(from)?);
        }
    }

    /// One escape in the string that began at `from`.
    fn escape(&mut self, from: usize) -> Result<char, String> {
        let letter = self.text.get(self.at + 1).copied().unwrap_or(0);
        if letter != b'u' {
            self.at += 2;
            return Ok(match letter {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                other => char::from(other),
            });
        }
        let first = self.code_unit(self.at).unwrap_or(0);
        self.at += 6;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let Some(six) = self.text.get(self.at..self.at + 6) else {
            return Err("unexpected EOF".to_owned());
        };
        let second = self.code_unit(self.at).filter(|_| six.starts_with(b"\\u"));
        let pair = second.and_then(|second| surrogates(first, second));
        let Some(c) = pair else {
            let shown = quote(&String::from_utf8_lossy(six));
            let at = self.position(from);
            return Err(format!("syntax error {at}invalid escape code {shown} in string"));
        };
        self.at += 6;
        Ok(c)
    }

    /// The four hexadecimal digits after the `\u` at `at`.
    fn code_unit(&self, at: usize) -> Option<u32> {
        let digits = std::str::from_utf8(self.text.get(at + 2..at + 6)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    }
}

/// The character of a high and a low surrogate.
fn surrogates(high: u32, low: u32) -> Option<char> {
    let (high, low) = (u16::try_from(high).ok()?, u16::try_from(low).ok()?);
    char::decode_utf16([high, low]).next()?.ok().filter(|c| c.len_utf16() == 2)
}

/// Enums are signed: they are sent like 64-bit numbers.
fn enum_number(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

/// Fields and oneofs that an object has named.
#[derive(Default)]
struct Seen {
    fields: u64,
    oneofs: Vec<&'static str>,
}

impl Seen {
    /// Whether it was there before.
    fn field(&mut self, index: usize) -> bool {
        let bit = 1_u64 << (index & 63);
        let before = self.fields & bit != 0;
        self.fields |= bit;
        before
    }

    fn oneof(&mut self, name: &'static str) -> bool {
        let before = self.oneofs.contains(&name);
        self.oneofs.push(name);
        before
    }
}
