//! Floor 7, speak.

pub mod leader_guard;
pub mod lease;
pub mod pb;
pub mod watch;
