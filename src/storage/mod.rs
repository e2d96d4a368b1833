//! Floor 2, keep.

pub mod device;
pub mod directory;
pub mod identity;
pub mod journal;
mod lock;
