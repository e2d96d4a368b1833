//! Tests of the floor as a whole; those of one file stand in it.

mod auth;
mod fleet;
mod hash_kv;
mod member;
mod members;
mod properties;
mod refusals;
mod scenario;
mod strategies;
