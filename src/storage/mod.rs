//! Floor 2, keep.
