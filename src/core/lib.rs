//! Quorate's words and decisions.
//!
//! ```text
//!   state_machine   decides: one committed entry in, replies + batch + lease changes out
//!        |
//!       api         words: ids, commands, refusals, events, the protobuf messages
//! ```
//!
//! **Invariant:** nothing here does io, reads a clock, draws a random number, starts a thread or iterates a
//! hash map: the same entries give the same results on every member (docs/ARCHITECTURE.md, section 2).

pub mod api;
pub mod state_machine;
