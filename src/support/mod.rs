//! Mechanisms that belong to no floor.
