//! What is to happen at a failpoint, as text: `1*sleep(10)->50.0%print->panic`.
//!
//! ```text
//!   terms = term { "->" term }          term = { count "*" | percent "." digits "%" } act [ "(" value ")" ]
//!   act = off | return | sleep | panic | print      value = "text" | integer | true | false | nothing
//! ```
//!
//! The first term whose limits allow it is done, each time the place is reached. gofail's `break` is not there.

use std::time::Duration;

use crate::support::go::duration::GoDuration;

/// A failpoint's terms, with what is left of their counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    text: String,
    chain: Vec<Term>,
    done: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    limits: Vec<Limit>,
    act: Act,
}

#[derive(Clone, Debug, PartialEq)]
enum Limit {
    /// So many times more.
    Times(u64),
    /// In this share of all times.
    Chance(f64),
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// Nothing.
    Off,
    /// The place is told this text, if it listens.
    Return(String),
    /// Whoever comes waits.
    Sleep(Duration),
    /// The process ends, with these words if there are any.
    Panic(String),
    /// A line in the log.
    Print,
}

impl Terms {
    /// `None`: they are not understood.
    pub(crate) fn parse(text: &str) -> Option<Terms> {
        let mut chain = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (term, after) = term(rest)?;
            chain.push(term);
            rest = match after {
                "" => "",
                more => more.strip_prefix("->")?,
            };
        }
        let terms = Terms { text: text.to_owned(), chain, done: 0 };
        (!terms.chain.is_empty()).then_some(terms)
    }

    /// What is to happen this time.
    pub(crate) fn next(&mut self) -> Act {
        for term in &mut self.chain {
            if term.limits.iter_mut().all(Limit::allows) {
                self.done += 1;
                return term.act.clone();
            }
        }
        Act::Off
    }

    /// As they were given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How many times something was done.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }
}

impl Limit {
    fn allows(&mut self) -> bool {
        match self {
            Limit::Times(0) => false,
            Limit::Times(left) => {
                *left -= 1;
                true
            }
            Limit::Chance(share) => rand::random::<f64>() <= *share,
        }
    }
}

fn term(text: &str) -> Option<(Term, &str)> {
    let mut limits = Vec::new();
    let mut rest = text;
    while rest.starts_with(|first: char| first.is_ascii_digit()) {
        let (limit, after) = limit(rest)?;
        limits.push(limit);
        rest = after;
    }
    let (act, rest) = act(rest)?;
    Some((Term { limits, act }, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `3*`, or `12.5%`; as in gofail, a percentage has a point.
fn limit(text: &str) -> Option<(Limit, &str)> {
    let (whole, rest) = digits(text);
    if let Some(rest) = rest.strip_prefix('*') {
        return Some((Limit::Times(whole.parse().ok()?), rest));
    }
    let (fraction, rest) = digits(rest.strip_prefix('.')?);
    let percent: f64 = format!("{whole}.{fraction}0").parse().ok()?;
    Some((Limit::Chance(percent / 100.0), rest.strip_prefix('%')?))
}

fn act(text: &str) -> Option<(Act, &str)> {
    let of = |word: &str| text.strip_prefix(word).and_then(value);
    if let Some((_, rest)) = of("off") {
        return Some((Act::Off, rest));
    }
    if let Some((value, rest)) = of("return") {
        return Some((Act::Return(value.text()), rest));
    }
    if let Some((value, rest)) = of("panic") {
        return Some((Act::Panic(value.text()), rest));
    }
    if let Some((_, rest)) = of("print") {
        return Some((Act::Print, rest));
    }
    let (value, rest) = of("sleep")?;
    let time = match value {
        Value::Number(ms) => Duration::from_millis(ms.try_into().ok()?),
        Value::Text(text) => GoDuration::parse(&text)?.to_std(),
        Value::Nothing | Value::Truth(_) => return None,
    };
    Some((Act::Sleep(time), rest))
}

enum Value {
    Nothing,
    Text(String),
    Number(i64),
    Truth(bool),
}

impl Value {
    fn text(self) -> String {
        match self {
            Value::Nothing => String::new(),
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Truth(truth) => truth.to_string(),
        }
    }
}

/// What stands in brackets, if anything does.
fn value(text: &str) -> Option<(Value, &str)> {
    let Some(inner) = text.strip_prefix('(') else {
        return Some((Value::Nothing, text));
    };
    if let Some(quoted) = inner.strip_prefix('"') {
        let (text, rest) = unquote(quoted)?;
        return Some((Value::Text(text), rest.strip_prefix(')')?));
    }
    let (inner, rest) = inner.split_once(')')?;
    let value = match inner {
        "" => Value::Nothing,
        "true" => Value::Truth(true),
        "false" => Value::Truth(false),
        number => Value::Number(number.parse().ok()?),
    };
    Some((value, rest))
}

/// Text up to its closing quote, and what follows that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut read = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((read, &text[at + 1..])),
            '\\' => read.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                same @ ('"' | '\\') => same,
                _ => return None,
            }),
            plain => read.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(text: &str, times: usize) -> Vec<Act> {
        let mut terms = Terms::parse(text).unwrap();
        (0..times).map(|_| terms.next()).collect()
    }

    #[test]
    fn each_act_is_understood() {
        for (text, act) in [
            ("off", Act::Off),
            ("panic", Act::Panic(String::new())),
            ("panic(\"why\")", Act::Panic("why".to_owned())),
            ("print", Act::Print),
            ("return", Act::Return(String::new())),
            ("return()", Act::Return(String::new())),
            ("return(\"no space\")", Act::Return("no space".to_owned())),
            ("return(\"a \\\"b\\\" (c)\")", Act::Return("a \"b\" (c)".to_owned())),
            ("return(7)", Act::Return("7".to_owned())),
            ("sleep(100)", Act::Sleep(Duration::from_millis(100))),
            ("sleep(\"10s\")", Act::Sleep(Duration::from_secs(10))),
            ("sleep(\"1m0.5s\")", Act::Sleep(Duration::from_millis(60_500))),
        ] {
            assert_eq!(acts(text, 2), [act.clone(), act], "{text}");
        }
    }

    #[test]
    fn terms_follow_each_other_when_their_counts_run_out() {
        let sleep = |ms| Act::Sleep(Duration::from_millis(ms));
        assert_eq!(
            acts("2*sleep(10)->1*off->1*sleep(20)->panic", 5),
            [sleep(10), sleep(10), Act::Off, sleep(20), Act::Panic(String::new())]
        );
        assert_eq!(acts("1*print", 2), [Act::Print, Act::Off], "nothing is left");
        assert_eq!(acts("0.0%panic->print", 3), [Act::Print, Act::Print, Act::Print]);
        assert_eq!(acts("1*100.0%print->off", 2), [Act::Print, Act::Off]);
        let mut terms = Terms::parse("1*print").unwrap();
        (terms.next(), terms.next());
        assert_eq!((terms.done(), terms.text()), (1, "1*print"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "x",
            "sleep",
            "sleep()",
            "sleep(x)",
            "sleep(\"x\")",
            "sleep(-1)",
            "print->x",
            "print-panic",
            "50%print",
            "5",
            "5*",
            "return(\"x)",
            "return(x",
            "break",
            "print print",
        ] {
            assert_eq!(Terms::parse(text), None, "{text}");
        }
    }
}
