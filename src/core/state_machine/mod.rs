//! Floor 1, the decisions.
