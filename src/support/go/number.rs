//! Numbers and booleans as Go's strconv reads them.

/// Why a number was refused; the words are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Not a number in any base.
    Syntax,
    /// A number, but not of this size.
    Range,
}

/// `strconv.ParseBool`: `1 t T TRUE true True` and their opposites.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `strconv.ParseUint(text, 0, bits)`: decimal, `0x`, `0o`, `0b`, a leading `0` for octal, underscores between
/// digits where a base prefix stands.
pub fn parse_uint(text: &str, bits: u32) -> Result<u64, NumberError> {
    let (digits, radix, prefixed) = split_base(text);
    let digits = strip_underscores(digits, prefixed).ok_or(NumberError::Syntax)?;
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    let value = u64::from_str_radix(&digits, radix).map_err(|_| NumberError::Range)?;
    if bits < 64 && value >> bits != 0 {
        return Err(NumberError::Range);
    }
    Ok(value)
}

/// `strconv.ParseInt(text, 0, 64)`.
pub fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(rest, 64)?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map_err(|_| NumberError::Range)
}

/// The digits, their base, and whether a prefix (`0x`, or a lone `0`) named it.
fn split_base(text: &str) -> (&str, u32, bool) {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    match lower.as_deref() {
        Some("0x") => (&text[2..], 16, true),
        Some("0o") => (&text[2..], 8, true),
        Some("0b") => (&text[2..], 2, true),
        Some(two) if two.starts_with('0') => (&text[1..], 8, true),
        _ => (text, 10, false),
    }
}

/// Go allows one underscore between digits, and after a base prefix, only in literals with a prefix.
fn strip_underscores(digits: &str, prefixed: bool) -> Option<String> {
    if !digits.contains('_') {
        return Some(digits.to_owned());
    }
    if !prefixed || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    Some(digits.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_gos_bases() {
        for (text, want) in [
            ("0", Ok(0)),
            ("128", Ok(128)),
            ("0x10", Ok(16)),
            ("0X1F", Ok(31)),
            ("010", Ok(8)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("0x1_0", Ok(16)),
            ("1_0", Err(NumberError::Syntax)),
            ("-1", Err(NumberError::Syntax)),
            ("+1", Err(NumberError::Syntax)),
            ("", Err(NumberError::Syntax)),
            ("08", Err(NumberError::Syntax)),
            (" 1", Err(NumberError::Syntax)),
            ("18446744073709551616", Err(NumberError::Range)),
        ] {
            assert_eq!(parse_uint(text, 64), want, "{text:?}");
        }
        assert_eq!(parse_uint("4294967296", 32), Err(NumberError::Range));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(NumberError::Range));
        assert_eq!(parse_int("+7"), Ok(7));
    }

    #[test]
    fn booleans_are_gos_words_only() {
        assert_eq!(parse_bool("T"), Some(true));
        assert_eq!(parse_bool("False"), Some(false));
        assert_eq!(parse_bool("yes"), None);
        assert_eq!(parse_bool(""), None);
    }
}
