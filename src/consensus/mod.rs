//! Floor 3, agree.
