//! Texts that open doors.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

/// A token, a key in PEM, or a text that may hold one. On the wire a plain string; shown as `[redacted]`, and wiped from
/// memory when it goes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Sensitive(String);

impl Sensitive {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Sensitive(text.into())
    }

    /// The text itself, for whoever has to compare, parse or send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Sensitive {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Sensitive {
    fn from(text: String) -> Self {
        Sensitive(text)
    }
}

impl From<&str> for Sensitive {
    fn from(text: &str) -> Self {
        Sensitive(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensitive_text_goes_over_the_wire_and_not_into_a_log() {
        let token: Sensitive = serde_json::from_str("\"token::abc\"").unwrap();
        assert_eq!(token.reveal(), "token::abc");
        assert_eq!(format!("{token:?}"), "[redacted]");
        assert_eq!(serde_json::to_string(&token).unwrap(), "\"token::abc\"");
    }
}
