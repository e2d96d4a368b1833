//! Floor 2, keep.

pub mod device;
pub mod journal;
