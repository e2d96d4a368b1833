//! Who asks, and what they may: the serving half of authentication. The users and roles themselves, and what they
//! permit, are replicated and stand in the state machine.
//!
//! ```text
//!   service ── Credentials (token, name in the certificate) ──> Gate::admit ──> a Keyspace that speaks for this client
//!                                                                                   |
//!     a write:  who is it, as of now? ── Command.user, auth_revision ── the log ── checked by apply
//!     a read:   the state is new enough ── who is it, as of now? ── checked here ── read ── still the same revision?
//!     login:    password checked (off the runtime) ── the log ── every member files the token
//! ```
//!
//! **Invariant:** credentials are looked at when a call needs to know who asks, not when it comes in: after a
//! linearizable read's round, so that a token that was revoked before the call is revoked for it.
//! **Invariant:** what apply decides about a write is binding; checks here are for what never enters the log.
//! **Invariant:** passwords and tokens are in no log entry, log line or `Debug`; the log has their hashes.
//!
//! Behaviour: etcd `server/auth/store.go`, `server/etcdserver/v3_server.go`, `api/v3rpc/auth.go`.

mod authority;
mod calls;
mod checks;
mod gate;
mod jwt;
mod passwords;
mod settings;
mod simple;

pub use self::gate::{Credentials, Gate};
pub use self::jwt::KeyError;
pub use self::settings::{AuthSettings, SigningKey, TokenKind, TokenOptionError};

pub(crate) use self::authority::Authority;
pub(crate) use self::checks::Permit;
pub(crate) use self::gate::Asker;
