//! Go's durations: `1h30m` in, `1h30m0s` out. Nanoseconds, signed, as in Go.

use std::fmt;
use std::time::Duration;

use super::quote::quote;

/// A duration as Go has it: signed nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// `n` milliseconds.
    pub const fn from_millis(n: i64) -> Self {
        GoDuration(n * 1_000_000)
    }

    /// `n` seconds.
    pub const fn from_secs(n: i64) -> Self {
        GoDuration(n * 1_000_000_000)
    }

    /// The same span as std has it; nothing below zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// The same span as Go has it; what is too long for Go is the longest.
    pub fn from_std(span: Duration) -> Self {
        GoDuration(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }

    /// `time.ParseDuration`: a signed run of decimal numbers with units, such as `-1.5h`, `300ms`, `1h30m`.
    pub fn parse(text: &str) -> Option<GoDuration> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(GoDuration(0));
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(end);
            let unit_end =
                tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, after) = tail.split_at(unit_end);
            total += nanoseconds(number, unit)?;
            if total > i128::from(i64::MAX) + 1 {
                return None;
            }
            rest = after;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).ok().map(GoDuration)
    }

    /// What Go says to a text that [`GoDuration::parse`] refused.
    pub fn complaint(text: &str) -> String {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        let number = unsigned.trim_end_matches(|c| !digits(c));
        let unit = &unsigned[number.len()..];
        let is_number = number.bytes().any(|b| b.is_ascii_digit()) && number.chars().all(digits);
        match unit {
            "" if is_number => format!("time: missing unit in duration {}", quote(text)),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" | "" => {
                format!("time: invalid duration {}", quote(text))
            }
            unit if is_number => {
                format!("time: unknown unit {} in duration {}", quote(unit), quote(text))
            }
            _ => format!("time: invalid duration {}", quote(text)),
        }
    }
}

fn nanoseconds(number: &str, unit: &str) -> Option<i128> {
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = &fraction[..fraction.len().min(18)];
    let fraction: i128 = if digits.is_empty() {
        0
    } else {
        let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
        digits.parse::<i128>().ok()? * unit / scale
    };
    Some(whole * unit + fraction)
}

impl fmt::Display for GoDuration {
    /// As Go's `Duration.String`: `0s`, `1.5ms`, `1m30s`, `2h0m0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (unit, scale) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => return write!(f, "{nanos}ns"),
            1_000..1_000_000 => ("µs", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h{minutes}m")?;
        } else if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let rest = if unit == "s" { nanos % 60_000_000_000 } else { nanos };
        let width = scale.to_string().len() - 1;
        let fraction = format!("{:0width$}", rest % scale);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() {
            write!(f, "{}{unit}", rest / scale)
        } else {
            write!(f, "{}.{fraction}{unit}", rest / scale)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("100ms", Some(100_000_000)),
            ("5m", Some(300_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("-2s", Some(-2_000_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1d", None),
            ("1s ", None),
            (".s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(GoDuration::parse(text).map(|d| d.0), want, "{text:?}");
        }
    }

    #[test]
    fn refused_durations_are_complained_of_in_gos_words() {
        for (text, want) in [
            ("x", "time: invalid duration \"x\""),
            ("", "time: invalid duration \"\""),
            ("-5", "time: missing unit in duration \"-5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ] {
            assert_eq!(GoDuration::complaint(text), want);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (7_200_000_000_000, "2h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), want);
        }
    }
}
