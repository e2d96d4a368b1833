//! Floor 7, speak.

pub mod pb;
