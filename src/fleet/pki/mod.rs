//! The fleet's certificates: who signs them, what stands in them, and where a node keeps its own.
//!
//! ```text
//!   Authority ── the fleet's; its key sealed in the state (`rotation`) or supplied, or kept elsewhere
//!      │ sign(Request, Wanted)        a request brings a key; what the certificate says is ours to decide
//!      v
//!   Bundle ── authorities + one pair for each CertificateName ── Folder (pki/) ──> TLS sides, at the next handshake
//!      ^
//!      ├─ renewal: plan, run, update      status: what runs out when
//!      └─ due: what has to be made anew, by the authorities and the hour, and what the node reports of itself
//!
//!   rotation:  announce (trusted everywhere) ──> promote (signs) ── leaves signed anew ──> retire (the old one)
//! ```
//!
//! | name | shown by | to | for |
//! |---|---|---|---|
//! | `server` | the member's client port | clients | servers |
//! | `peer` | the member's peer port, and when it dials one | members | both |
//! | `client` | the node | other nodes' API, client ports | clients |
//! | `member-api` | the API on its TCP port | whoever speaks `/1.0/` | servers |
//!
//! A certificate's organisation says what its holder is to the fleet: see [`Organisation`]. Only the control plane speaks
//! on peer ports, whoever dials; the common name of a worker is no user of etcd's.
//!
//! **Invariant:** what a signed certificate says comes from whoever admitted the node, never from its request alone.
//! **Invariant:** a private key leaves its node in no message; it stands in files of mode 0600 and in [`super::secret`].
//! **Invariant:** nothing here looks at a clock: the time is given.

mod authority;
mod bundle;
mod due;
mod error;
mod folder;
mod names;
mod renewal;
mod request;
mod rotation;
mod status;

#[cfg(test)]
mod due_test;
#[cfg(test)]
mod folder_test;
#[cfg(test)]
mod reload_test;
#[cfg(test)]
mod renewal_test;
#[cfg(test)]
mod rotation_test;
#[cfg(test)]
mod signing_test;

pub use self::authority::{AUTHORITY_SECONDS, Authority, LEAF_SECONDS, Validity};
pub use self::bundle::{Bundle, Pair};
pub use self::due::{Due, REPORT, Trusted};
pub use self::error::PkiError;
pub use self::folder::Folder;
pub use self::names::{CertificateName, Organisation, host_of};
pub use self::renewal::{Plan, Plans, Update};
pub use self::request::{Pending, Request, Wanted};
pub use self::rotation::{Authorities, NodeTrust, Rotation, Turn};
pub use self::status::{AuthorityStatus, CertificateStatus, Status};
