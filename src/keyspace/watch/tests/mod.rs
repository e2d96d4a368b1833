//! The hub against a store double that remembers everything that ever happened.

mod compaction;
mod double;
mod reference;
mod scale;
mod shapes;
mod slow;
