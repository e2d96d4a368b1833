//! Spans of time on the command line: Go's durations, and for certificates days, months and years too.

use crate::support::go::duration::GoDuration;

const DAY: i64 = 24 * 60 * 60;

/// A Go duration above zero.
pub(super) fn span(text: &str) -> Result<GoDuration, String> {
    let span = GoDuration::parse(text).ok_or_else(|| GoDuration::complaint(text))?;
    if span <= GoDuration(0) {
        return Err("it must be above zero".to_owned());
    }
    Ok(span)
}

/// Whole years of 365 days (`y`), months of 30 (`mo`) or days (`d`), or a Go duration; above zero.
pub(super) fn expiry(text: &str) -> Result<GoDuration, String> {
    for (unit, days) in [("y", 365), ("mo", 30), ("d", 1)] {
        let Some(number) = text.strip_suffix(unit).and_then(|number| number.parse::<u32>().ok())
        else {
            continue;
        };
        let seconds = i64::from(number) * days * DAY;
        return match seconds {
            0 => Err("it must be above zero".to_owned()),
            // What Go's nanoseconds can hold.
            seconds if seconds > i64::MAX / 1_000_000_000 => Err("it is too long".to_owned()),
            seconds => Ok(GoDuration::from_secs(seconds)),
        };
    }
    span(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_months_and_days_are_spans_of_certificates() {
        for (text, seconds) in [
            ("1y", 365 * DAY),
            ("6mo", 180 * DAY),
            ("90d", 90 * DAY),
            ("12h", 12 * 3600),
            ("1m", 60),
        ] {
            assert_eq!(expiry(text).unwrap(), GoDuration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn spans_that_are_none_are_refused_with_the_reason() {
        for (text, why) in [
            ("0s", "it must be above zero"),
            ("-1s", "it must be above zero"),
            ("0d", "it must be above zero"),
            ("4000000000y", "it is too long"),
            ("1", "time: missing unit in duration \"1\""),
            ("soon", "time: invalid duration \"soon\""),
        ] {
            assert_eq!(expiry(text).unwrap_err(), why, "{text}");
        }
        assert!(span("1d").is_err(), "only certificates are counted in days");
    }
}
