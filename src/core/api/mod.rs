//! Floor 0, the words that every floor shares.

pub mod batch;
pub mod ids;
pub mod pb;
pub mod refusal;
pub mod reply;
mod secret;
pub mod view;
