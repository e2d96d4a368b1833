//! Mechanisms that belong to no floor and know none.

pub mod clock;
pub mod spawn;
