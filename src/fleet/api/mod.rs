//! What the `/1.0/` API says and hears: the JSON types of every row, and nothing that acts.
//!
//! ```text
//!   cluster ─ bootstrap, status, tokens, join, remove      config ─ what clients see and change of it
//!   bootstrap, joining ─ what a node begins with           stored ─ the record that is kept: defaults, checks, merge
//!   certificates, auth, worker, internal                   server ─ envelope, operations, events, audit
//! ```
//!
//! Names and shapes are those of Canonical's k8s-snap-api (v2), down to which field is left out when it is empty, so
//! that its clients understand us. Requests refuse fields that they do not know; answers may grow.
//!
//! **Invariant:** a text that opens a door (token, key) is a [`Sensitive`], which is never shown by `Debug`.

pub mod auth;
pub mod bootstrap;
pub mod certificates;
pub mod cluster;
pub mod config;
mod fields;
pub mod internal;
pub mod joining;
pub mod names;
pub mod nanos;
mod pool;
pub mod sensitive;
pub mod server;
pub mod stored;
#[cfg(test)]
mod stored_test;
pub mod worker;

pub use nanos::Nanos;
pub use sensitive::Sensitive;

use serde::{Deserialize, Deserializer};

/// Whether a flag is left out of an answer, as Go's `omitempty` does.
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

/// Go's clients send `null` for what they have nothing of.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
