//! Configs with fields of ours and fields that are only known by name.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What somebody said in a field that is not ours. May hold a key, so it is not shown.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Foreign(Value);

impl Foreign {
    /// Whether it says nothing, as Go has it.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not ours]")
    }
}

/// Writes a struct whose fields may all be left out, on the wire by their names with `-`; those after `not_ours` are
/// read, so that files of the origin are judged strictly, and refused when they say something.
macro_rules! config_fields {
    (
        $(#[$doc:meta])*
        $name:ident {
            ours { $($(#[$our_meta:meta])* $our:ident: $our_kind:ty,)* }
            not_ours { $($not:ident,)* }
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$our_meta])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $our: Option<$our_kind>,)*
            $(
            /// Of Kubernetes: known, and refused.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schema(value_type = Option<serde_json::Value>)]
            pub $not: Option<$crate::fleet::api::fields::Foreign>,)*
        }

        impl $name {
            /// The fields that were given and belong to components that this daemon does not run.
            pub fn not_ours(&self) -> Vec<String> {
                let mut given = Vec::new();
                $(if self.$not.as_ref().is_some_and(|value| !value.is_empty()) {
                    given.push(stringify!($not).replace('_', "-"));
                })*
                given
            }

            /// Refuses them as [`FleetError::Invalid`](crate::fleet::error::FleetError::Invalid).
            pub fn refuse_not_ours(&self) -> Result<(), crate::fleet::error::FleetError> {
                let given = self.not_ours();
                if given.is_empty() {
                    return Ok(());
                }
                Err(crate::fleet::error::FleetError::Invalid(format!(
                    "not ours: {}: this daemon runs no component of Kubernetes and no other datastore",
                    given.join(", ")
                )))
            }
        }
    };
}

pub(super) use config_fields;
