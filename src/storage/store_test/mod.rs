//! The store with a real journal and state machine above it, and whatever below.

mod base_crashes;
mod compaction;
mod fixtures;
mod reads;
mod restarts;
mod rig;
