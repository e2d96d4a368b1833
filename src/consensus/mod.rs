//! Floor 3, agree: one raft group, from a proposal to the applied entry.

mod network;

pub use network::Transport;
