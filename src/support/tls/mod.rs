//! TLS, for clients and between members.
//!
//! **Invariant:** who a certificate names is told to the services in one way alone: a [`PeerIdentity`] in the
//! extensions of each request.

mod identity;

pub use self::identity::PeerIdentity;
