//! The store with a real journal and state machine above it, and whatever below.

mod base_crashes;
mod compaction;
mod defrags;
mod fixtures;
mod forced;
mod install_crashes;
mod installs;
mod reads;
mod restarts;
mod rig;
