//! Go's spelling of values, which etcd's flags, messages and logs are made of.

pub mod duration;
pub mod number;
pub mod quote;
