//! Mechanisms that belong to no floor and know none.

pub mod aside;
pub mod authority;
pub mod clock;
pub mod dial;
pub mod durable;
pub(crate) mod failpoints;
pub mod flags;
pub mod go;
pub mod http_client;
pub mod listen;
pub mod metrics;
pub mod shutdown;
pub mod spawn;
pub mod srv;
pub mod telemetry;
pub mod tls;
pub mod urls;
pub mod yaml;
