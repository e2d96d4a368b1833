//! Durations as Go puts them into JSON.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A span in whole nanoseconds, 0 up to 2⁶³ - 1. 0 stands for "as you think best" wherever a request has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Nanos(u64);

impl PartialSchema for Nanos {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .maximum(Some(i64::MAX))
            .description(Some("Whole nanoseconds; 0: as the daemon thinks best."))
            .into()
    }
}

impl ToSchema for Nanos {}

impl Nanos {
    /// No span given.
    pub const ZERO: Nanos = Nanos(0);

    /// `n` seconds.
    pub const fn from_secs(n: u64) -> Self {
        Nanos(n.saturating_mul(1_000_000_000))
    }

    /// The span as std has it.
    pub const fn to_std(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The span, or `fallback` if none was given.
    pub fn or(self, fallback: Duration) -> Duration {
        if self.0 == 0 { fallback } else { self.to_std() }
    }

    /// Whether none was given.
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl From<Duration> for Nanos {
    fn from(span: Duration) -> Self {
        let longest = i64::MAX.unsigned_abs();
        Nanos(u64::try_from(span.as_nanos()).unwrap_or(longest).min(longest))
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let span = i64::deserialize(deserializer)?;
        u64::try_from(span).map(Nanos).map_err(|_| {
            D::Error::custom("a duration is a whole number of nanoseconds, not below 0")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_nanoseconds_and_zero_leaves_the_choice() {
        let read = |text| serde_json::from_str::<Nanos>(text);
        assert_eq!(read("90000000000").unwrap().to_std(), Duration::from_secs(90));
        assert_eq!(read("0").unwrap().or(Duration::from_secs(5)), Duration::from_secs(5));
        assert!(read("null").is_err());
        assert!(read("-1").is_err());
        assert!(read("1.5").is_err());
        assert!(read("\"90s\"").is_err());
        assert_eq!(serde_json::to_string(&Nanos::from_secs(2)).unwrap(), "2000000000");
    }
}
