//! The seam to other members.
/// Carries frames.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {}
