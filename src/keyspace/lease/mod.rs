//! Leases of whoever leads: deadlines in memory, and the proposals that end leases.
//!
//! ```text
//!   sink of the keyspace ── applied(at, changes) ─►┐
//!   leadership           ── leads(term) ──────────►│  Lessor: deadlines of one term
//!   keep-alive           ── renew(id) ────────────►│     │ every 100 ms (run)
//!   time to live, leases ── read ─────────────────►┘     ▼
//!                                        confirm leadership ─► LeaseExpiry{term, ids}     ┐ Leadership,
//!                                                              LeaseCheckpoint{remaining} ┘ proposed to the log
//! ```
//!
//! Which leases exist is a replicated fact and stands in the state machine; when they end is decided here, by the
//! leader alone, and becomes a fact when the `LeaseExpiry` is applied. A keep-alive moves a deadline in memory and
//! writes nothing.
//!
//! **Invariant:** deadlines exist only for a term that this member leads and whose first entry it has applied; they
//! begin with the full TTL (or the checkpointed rest) plus one election timeout, because the leader before may have
//! honoured a keep-alive that we never saw. Once a quorum has told since when it is silent, that is the moment from
//! which the TTL counts, and half an election timeout on top: so long after asking a quorum a promise may be made.
//! **Invariant:** nothing expires early: a lease is proposed for expiry only after its deadline, and after this member
//! was confirmed as the leader of the term; the term goes with the proposal, and applying refuses another term's.
//! **Invariant:** a lease past its deadline is not renewed: the renewal waits until the lease has ended or leadership
//! is lost.
//!
//! Behaviour: etcd `server/lease/lessor.go`, `server/etcdserver/v3_server.go`.

mod counters;
mod deadlines;
mod lessor;
mod seams;
mod silence;
mod ticker;
mod ttl;

pub use counters::LeaseCounters;
pub use lessor::{Lessor, LessorOptions, RenewError, TimeToLive};
pub use seams::{Leadership, LeaseFact, LeaseFacts, NotLeader, ProposalFailed};
pub(super) use silence::{last_promise, tell};
pub use ttl::{admit_grant, min_ttl_seconds};

#[cfg(test)]
mod tests;
