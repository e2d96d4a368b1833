//! Where one JSON value ends and the next begins: the syntax check of Go's `encoding/json`, with its words.
//!
//! ```text
//!   chunks of a body ── feed ──> { "a": 1 } { "b": [ .. ──> next: one whole value, or what is wrong, or more, please
//! ```
//!
//! A value is checked for syntax alone; `read` gives it a meaning. The first fault ends the run of values.

use crate::support::go::quote::quote;

/// Objects and lists within each other (Go's `maxNestingDepth`).
const DEPTH_MAX: usize = 10_000;

/// What stands at the head of a run of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// One value, without space around it.
    Value(Vec<u8>),
    /// A value has not ended yet.
    More,
    /// Nothing but space.
    End,
}

/// Why no value was cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Not JSON; Go's words.
    #[error("{0}")]
    Syntax(String),
    /// Longer than allowed.
    #[error("a value is longer than {0} bytes")]
    TooLong(usize),
}

/// A run of JSON values that comes in pieces.
#[derive(Debug)]
pub(super) struct Values {
    buffer: Vec<u8>,
    /// How much of the buffer the scanner has seen.
    seen: usize,
    scanner: Scanner,
    limit: usize,
    fault: Option<Fault>,
}

impl Values {
    /// Values of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Values { buffer: Vec::new(), seen: 0, scanner: Scanner::default(), limit, fault: None }
    }

    /// Adds a piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// Cuts the next value off. With `ended`, no more pieces come.
    pub(super) fn next(&mut self, ended: bool) -> Result<Cut, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let cut = self.cut(ended);
        if let Err(fault) = &cut {
            self.fault = Some(fault.clone());
        }
        cut
    }

    fn cut(&mut self, ended: bool) -> Result<Cut, Fault> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            match self.scanner.step(byte).map_err(Fault::Syntax)? {
                Step::Inside => self.seen += 1,
                Step::Last => {
                    self.seen += 1;
                    return Ok(self.take());
                }
                Step::Past => return Ok(self.take()),
            }
            if self.seen > self.limit {
                return Err(Fault::TooLong(self.limit));
            }
        }
        let empty = self.buffer.iter().all(u8::is_ascii_whitespace);
        if !ended {
            return Ok(if empty { self.forget() } else { Cut::More });
        }
        match self.scanner.step(b' ') {
            Ok(Step::Past) => Ok(self.take()),
            _ if empty => Ok(Cut::End),
            _ => Err(Fault::Syntax("unexpected EOF".to_owned())),
        }
    }

    /// Space before a value need not be kept.
    fn forget(&mut self) -> Cut {
        self.buffer.clear();
        self.seen = 0;
        Cut::More
    }

    fn take(&mut self) -> Cut {
        let rest = self.buffer.split_off(self.seen);
        let mut value = std::mem::replace(&mut self.buffer, rest);
        self.seen = 0;
        self.scanner = Scanner::default();
        let space = value.iter().take_while(|byte| is_space(**byte)).count();
        value.drain(..space);
        Cut::Value(value)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What a byte means to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Inside,
    /// It is the value's last byte.
    Last,
    /// The value ended before it.
    Past,
}

/// Where in a value we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Text,
    Escape,
    /// So many hexadecimal digits are to come.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// `true`, `false` or `null`, and how much of it has been seen.
    Word(&'static str, usize),
    Ended,
}

/// What we are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Key,
    Member,
    Item,
}

#[derive(Debug, Default)]
struct Scanner {
    state: State,
    places: Vec<Place>,
}

fn wrong(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        byte => {
            let quoted = quote(&char::from(byte).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    };
    format!("invalid character {shown} {context}")
}

impl Scanner {
    fn step(&mut self, byte: u8) -> Result<Step, String> {
        match self.state {
            State::Value | State::ValueOrEnd | State::Key | State::KeyOrEnd if is_space(byte) => {
                Ok(Step::Inside)
            }
            State::ValueOrEnd if byte == b']' => self.after_value(byte),
            State::Value | State::ValueOrEnd => self.begin(byte),
            State::KeyOrEnd if byte == b'}' => {
                self.enter(Place::Member);
                self.after_value(byte)
            }
            State::Key | State::KeyOrEnd if byte == b'"' => self.go(State::Text),
            State::Key | State::KeyOrEnd => {
                Err(wrong(byte, "looking for beginning of object key string"))
            }
            State::Text | State::Escape | State::Hex(_) => self.text(byte),
            State::Word(word, at) => self.word(word, at, byte),
            State::Ended => self.after_value(byte),
            State::Minus
            | State::Zero
            | State::Digits
            | State::Point
            | State::Fraction
            | State::Exponent
            | State::ExponentSign
            | State::ExponentDigits => self.number(byte),
        }
    }

    fn go(&mut self, state: State) -> Result<Step, String> {
        self.state = state;
        Ok(Step::Inside)
    }

    /// The place we are in becomes another.
    fn enter(&mut self, place: Place) {
        if let Some(last) = self.places.last_mut() {
            *last = place;
        }
    }

    fn begin(&mut self, byte: u8) -> Result<Step, String> {
        match byte {
            b'{' => self.open(byte, Place::Key, State::KeyOrEnd),
            b'[' => self.open(byte, Place::Item, State::ValueOrEnd),
            b'"' => self.go(State::Text),
            b'-' => self.go(State::Minus),
            b'0' => self.go(State::Zero),
            b'1'..=b'9' => self.go(State::Digits),
            b't' => self.go(State::Word("true", 1)),
            b'f' => self.go(State::Word("false", 1)),
            b'n' => self.go(State::Word("null", 1)),
            _ => Err(wrong(byte, "looking for beginning of value")),
        }
    }

    fn open(&mut self, byte: u8, place: Place, state: State) -> Result<Step, String> {
        if self.places.len() >= DEPTH_MAX {
            return Err(wrong(byte, "exceeded max depth"));
        }
        self.places.push(place);
        self.go(state)
    }

    fn text(&mut self, byte: u8) -> Result<Step, String> {
        match (self.state, byte) {
            (State::Text, b'"') => self.go(State::Ended),
            (State::Text, b'\\') => self.go(State::Escape),
            (State::Text, ..0x20) => Err(wrong(byte, "in string literal")),
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                self.go(State::Text)
            }
            (State::Escape, b'u') => self.go(State::Hex(4)),
            (State::Escape, _) => Err(wrong(byte, "in string escape code")),
            (State::Hex(left), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.go(if left == 1 { State::Text } else { State::Hex(left - 1) })
            }
            (State::Hex(_), _) => Err(wrong(byte, "in \\u hexadecimal character escape")),
            (_, _) => Ok(Step::Inside),
        }
    }

    fn word(&mut self, word: &'static str, at: usize, byte: u8) -> Result<Step, String> {
        let expected = word.as_bytes()[at];
        if byte != expected {
            let context = format!("in literal {word} (expecting {:?})", char::from(expected));
            return Err(wrong(byte, &context));
        }
        self.go(if at + 1 == word.len() { State::Ended } else { State::Word(word, at + 1) })
    }

    fn number(&mut self, byte: u8) -> Result<Step, String> {
        match (self.state, byte) {
            (State::Minus, b'0') => self.go(State::Zero),
            (State::Minus, b'1'..=b'9') => self.go(State::Digits),
            (State::Minus, _) => Err(wrong(byte, "in numeric literal")),
            (State::Digits, b'0'..=b'9') => Ok(Step::Inside),
            (State::Digits | State::Zero, b'.') => self.go(State::Point),
            (State::Point | State::Fraction, b'0'..=b'9') => self.go(State::Fraction),
            (State::Point, _) => Err(wrong(byte, "after decimal point in numeric literal")),
            (State::Digits | State::Zero | State::Fraction, b'e' | b'E') => {
                self.go(State::Exponent)
            }
            (State::Exponent, b'+' | b'-') => self.go(State::ExponentSign),
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                self.go(State::ExponentDigits)
            }
            (State::Exponent | State::ExponentSign, _) => {
                Err(wrong(byte, "in exponent of numeric literal"))
            }
            (_, _) => self.after_value(byte),
        }
    }

    /// A value has just ended; `byte` comes after it, or closes what it is in.
    fn after_value(&mut self, byte: u8) -> Result<Step, String> {
        let Some(place) = self.places.last().copied() else { return Ok(Step::Past) };
        if is_space(byte) {
            return self.go(State::Ended);
        }
        match (place, byte) {
            (Place::Key, b':') => {
                self.enter(Place::Member);
                self.go(State::Value)
            }
            (Place::Key, _) => Err(wrong(byte, "after object key")),
            (Place::Member, b',') => {
                self.enter(Place::Key);
                self.go(State::Key)
            }
            (Place::Item, b',') => self.go(State::Value),
            (Place::Member, b'}') | (Place::Item, b']') => {
                self.places.pop();
                self.state = State::Ended;
                Ok(if self.places.is_empty() { Step::Last } else { Step::Inside })
            }
            (Place::Member, _) => Err(wrong(byte, "after object key:value pair")),
            (Place::Item, _) => Err(wrong(byte, "after array element")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is cut from `text`, fed in pieces of `size`, and the fault.
    fn all(text: &str, size: usize) -> (Vec<String>, Option<String>) {
        let mut values = Values::new(1 << 20);
        let mut cut = Vec::new();
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        for at in 0..=pieces.len() {
            if let Some(piece) = pieces.get(at) {
                values.feed(piece);
            }
            loop {
                match values.next(at == pieces.len()) {
                    Ok(Cut::Value(value)) => cut.push(String::from_utf8(value).unwrap()),
                    Ok(Cut::More | Cut::End) => break,
                    Err(fault) => return (cut, Some(fault.to_string())),
                }
            }
        }
        (cut, None)
    }

    #[test]
    fn values_are_cut_wherever_the_pieces_end() {
        let text = " {\"a\":[1,{\"b\":\"}\\\"\"}]} {}[]\n12 \"x\"true -1.5e+3{\"k\":null}";
        let want = [
            "{\"a\":[1,{\"b\":\"}\\\"\"}]}",
            "{}",
            "[]",
            "12",
            "\"x\"",
            "true",
            "-1.5e+3",
            "{\"k\":null}",
        ];
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(all(text, size), (want.map(str::to_owned).to_vec(), None), "{size}");
        }
        assert_eq!(all(" \n\t", 1), (Vec::new(), None));
    }

    #[test]
    fn faults_are_told_in_gos_words() {
        for (text, fault) in [
            ("{", "unexpected EOF"),
            ("\"a", "unexpected EOF"),
            ("tru", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("\u{1}", "invalid character '\\x01' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\",", "invalid character ',' after object key"),
            ("{\"a\":1]", "invalid character ']' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[,", "invalid character ',' looking for beginning of value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("nuxl", "invalid character 'x' in literal null (expecting 'l')"),
            ("falze", "invalid character 'z' in literal false (expecting 's')"),
        ] {
            assert_eq!(all(text, 1).1.as_deref(), Some(fault), "{text:?}");
        }
    }

    #[test]
    fn values_are_bounded_and_so_is_their_depth() {
        let mut values = Values::new(10);
        values.feed(b"\"0123456789\"");
        assert_eq!(values.next(false), Err(Fault::TooLong(10)));
        assert_eq!(values.next(true), Err(Fault::TooLong(10)), "and stays so");
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(all(&deep, 1000).1.unwrap(), "invalid character '[' exceeded max depth");
    }
}
