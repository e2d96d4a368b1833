//! Floor 0, the words that every floor shares.

pub mod batch;
pub mod ids;
pub mod pb;
pub mod refusal;
pub mod reply;
pub mod view;
