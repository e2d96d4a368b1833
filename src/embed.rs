//! Floor 8, start: a server inside another program.
