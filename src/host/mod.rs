//! Floor 5, host.
