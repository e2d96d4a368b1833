//! Three whole members on a simulated network, disks, clocks and chance.
//!
//! ```text
//!   seed --> run: start three --> clients (registers, unique keys, leases) --> History --> checkers
//!                      ^                                                          |
//!                   Nemesis: cuts, power, clocks, transfers            Watchman: leaders, hashes, failures
//! ```
//!
//! What holds whatever happens: one leader a term; equal logs where both are committed; the same hash at the same
//! applied index; no acknowledged write lost, none applied twice; registers linearizable; no lease ended early; no
//! member fails; and once all is healed, everybody serves.

pub mod checker;
pub mod clients;
pub mod member;
pub mod nemesis;
pub mod net;
pub mod run;
pub mod watchman;
