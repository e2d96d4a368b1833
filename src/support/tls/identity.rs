//! Who the other side of a connection is, by its certificate.

/// What the verified certificate of the other side says of it. Stands in the extensions of every request on a
/// connection that had one, and is absent from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The subject's common name: the user when no token is sent. Empty if it has none: as in etcd that is a user whom
    /// nobody knows, not nobody; so is who has a name and speaks for others. Never there without `--client-cert-auth`, because
    /// then common names are no users, also where `--trusted-ca-file` demands certificates.
    pub common_name: Option<String>,
    /// The subject's organisations: what it is to whoever signed its certificate. Told also where common names are no
    /// users.
    pub organisations: Vec<String>,
}

impl PeerIdentity {
    /// Whether one of its organisations is this one.
    pub fn belongs_to(&self, organisation: &str) -> bool {
        self.organisations.iter().any(|own| own == organisation)
    }
}

/// Stands in the extensions of every request that came over TLS, and of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted;
