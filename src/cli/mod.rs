//! Floor 8, start: the command line.
