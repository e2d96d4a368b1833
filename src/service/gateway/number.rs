//! Whole numbers as protobuf's JSON spells them: `12`, `"12"`, `1.2e1` (protobuf-go `internal/encoding/json`).

/// A 64-bit number holds no more digits.
const DIGITS_MAX: usize = 20;

/// The length of the JSON number at the start of `text`, if one stands there and ends there.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') && digits(at + 1) > 0 {
        at += 1 + digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) && text.len() > at + 1 {
        at += 1;
        if matches!(text.get(at), Some(b'+' | b'-')) {
            at += 1;
            text.get(at)?;
        }
        at += digits(at);
    }
    let ends = text.get(at).is_none_or(|byte| {
        !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_'))
    });
    ends.then_some(at)
}

/// The digits of a JSON number that is whole, with its sign; `None` if it is not whole, or far too large.
fn whole(number: &str) -> Option<String> {
    let (sign, rest) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (rest, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, ""));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    let digits = if exponent >= 0 {
        if fraction.len() > shift || whole.len().checked_add(shift)? > DIGITS_MAX {
            return None;
        }
        format!("{whole}{fraction}{}", "0".repeat(shift - fraction.len()))
    } else {
        let kept = whole.len().checked_sub(shift).filter(|_| fraction.is_empty())?;
        let (kept, dropped) = whole.split_at(kept);
        if !dropped.bytes().all(|digit| digit == b'0') {
            return None;
        }
        kept.to_owned()
    };
    Some(format!("{sign}{digits}"))
}

/// A JSON number as one of ours.
pub(super) fn parse<N: std::str::FromStr>(number: &str) -> Option<N> {
    whole(number)?.parse().ok()
}

/// A number inside a JSON string. Like protobuf-go, it does not look at what follows a first whole token.
pub(super) fn parse_quoted<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.trim().len() != text.len() {
        return None;
    }
    parse(text.get(..length(text.as_bytes())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_spelled() {
        for (text, want) in [
            ("12", Some(12)),
            ("-12", Some(-12)),
            ("1.2e1", Some(12)),
            ("1.20", None),
            ("12.0", Some(12)),
            ("1200e-2", Some(12)),
            ("1201e-2", None),
            ("12e-5", None),
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("0e99999", Some(0)),
            ("1e30", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(length(text.as_bytes()), Some(text.len()), "{text}");
            assert_eq!(parse::<i64>(text), want, "{text}");
        }
        assert_eq!(parse::<u64>("-1"), None);
        assert_eq!(parse::<i32>("2147483648"), None);
    }

    #[test]
    fn quoted_numbers_end_with_their_first_token() {
        for (text, want) in [
            ("12", Some(12)),
            ("12,", Some(12)),
            ("12 x", Some(12)),
            ("12x", None),
            (" 12", None),
            ("12 ", None),
            ("", None),
            ("01", None),
            ("x", None),
        ] {
            assert_eq!(parse_quoted::<i64>(text), want, "{text:?}");
        }
    }
}
