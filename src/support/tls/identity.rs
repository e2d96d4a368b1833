//! Who the other side of a connection is, by its certificate.

/// What the verified certificate of the other side says of it. Stands in the extensions of every request on a
/// connection that had one, and is absent from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The subject's common name; with `--client-cert-auth`, the user when no token is sent.
    pub common_name: Option<String>,
}

/// Stands in the extensions of every request that came over TLS, and of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted;
