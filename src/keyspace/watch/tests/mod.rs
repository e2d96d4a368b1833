//! The hub against a store double that remembers everything that ever happened.

mod compaction;
pub(crate) mod double;
mod reference;
mod scale;
mod shapes;
mod slow;
