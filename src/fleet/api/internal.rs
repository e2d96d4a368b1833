//! `/internal/…`: between nodes, no part of `/1.0/`. Versioned by a number in each body.
//!
//! ```text
//!   joiner ── POST /internal/join {version, uid, secret, csrs …} ──> any node of the control plane
//!          <── {version, id, members, ca, certificates, fleet_key, config} ──
//!   worker ── POST /internal/trust {version, id, report} ──> {ca, can_sign, apis}      by its client certificate
//!   worker ── POST /internal/renew {version, id, csr} ──> {certificate}                likewise
//!   node   ── POST /internal/leave {version, id} ──>   undoes a join, or says good-bye; by its client certificate
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Sensitive;
use crate::fleet::pki::Trusted;

/// The version of these bodies.
pub const VERSION: u32 = 1;

/// Names of the certificates that a node holds.
pub const CERTIFICATES: [&str; 4] = ["server", "peer", "client", "member-api"];

/// A node asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinAsk {
    /// [`VERSION`].
    pub version: u32,
    /// The fleet that the token is of.
    pub uid: String,
    /// The token's secret.
    pub secret: Sensitive,
    /// The node's name.
    pub name: String,
    /// `host:port` of its API.
    pub address: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
    /// Its client URLs.
    pub client_urls: Vec<String>,
    /// Certificate requests in PEM, by the names in [`CERTIFICATES`].
    pub csrs: BTreeMap<String, String>,
}

/// A node is let in: everything that it needs to start its member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAdmission {
    /// [`VERSION`].
    pub version: u32,
    /// Its member id, in hexadecimal.
    pub id: String,
    /// The cluster id, in hexadecimal.
    pub cluster_id: String,
    /// Every member, itself among them.
    pub members: Vec<JoinMember>,
    /// The fleet's authorities, PEM.
    pub ca: String,
    /// Its certificates in PEM, by name.
    pub certificates: BTreeMap<String, String>,
    /// The fleet key, base64.
    pub fleet_key: Sensitive,
    /// The fleet's config, as it is kept.
    pub config: serde_json::Value,
}

/// One member of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinMember {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its name; empty if it has not published one yet.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// A worker reports its certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustAsk {
    /// [`VERSION`].
    pub version: u32,
    /// Its id in the registry, in hexadecimal.
    pub id: String,
    /// Whom it trusts, and what its certificates lead to.
    pub report: Trusted,
}

/// What a worker has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The fleet's authorities, PEM; the one that signs first.
    pub ca: String,
    /// Whether the fleet can sign: else certificates are made elsewhere.
    pub can_sign: bool,
    /// `host:port` of the APIs of nodes that hold replicas.
    pub apis: Vec<String>,
}

/// A worker asks for a certificate in place of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewAsk {
    /// [`VERSION`].
    pub version: u32,
    /// Its id in the registry, in hexadecimal.
    pub id: String,
    /// A certificate request, PEM.
    pub csr: String,
    /// How long it is to be valid, if not for as long as others; never for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// PEM, with what leads from it to the authority.
    pub certificate: String,
}

/// A node wants to be taken out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveAsk {
    /// [`VERSION`].
    pub version: u32,
    /// Its member id, in hexadecimal.
    pub id: String,
    /// For the log.
    #[serde(default)]
    pub reason: String,
}
