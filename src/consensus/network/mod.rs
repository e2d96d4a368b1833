//! Frames to other members.
mod transport;
pub use transport::Transport;
