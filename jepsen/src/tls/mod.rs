//! Authorities and certificates made on the spot, members that show them, and clients that look at what is shown.
//!
//! ```text
//!   Authority ── sign ──> Made ──> Folder (files that a member reads) ──> Secured member
//!        └── revoke ──> list          └──> Dialer: a connection, and whose certificate was shown on it
//! ```
//!
//! **Invariant:** no session is resumed and no connection shared: each dial is a handshake of its own.

mod authority;
mod dial;
mod members;

pub(crate) use self::authority::{Authority, Made, Wanted};
pub(crate) use self::dial::{Dialer, Speaks, Trusting, address_of, ask_plainly};
pub(crate) use self::members::{Folder, Secured};
