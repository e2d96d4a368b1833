//! Who asks, and what they may ask.
//!
//! ```text
//!   unix socket (0600) ──────────────────────────────────────────> trusted
//!   TLS, certificate of the control plane or of an administrator ─> trusted
//!   TLS, any other or none ──> only what is open, or a token's in a header
//! ```

use http::HeaderMap;

use crate::fleet::api::Sensitive;
use crate::fleet::error::FleetError;
use crate::fleet::management::Management;
use crate::fleet::pki::Organisation;
use crate::support::tls::PeerIdentity;

/// Certificates with one of these organisations are trusted.
const TRUSTED: [Organisation; 2] = [Organisation::ControlPlane, Organisation::Admin];

/// Which listener a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The unix socket, which only the daemon's user may open.
    Socket,
    /// A port.
    Port,
}

/// Who asks, by the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Over the unix socket.
    Socket,
    /// A trusted certificate of this common name.
    Trusted(String),
    /// A certificate of the fleet that is not trusted, as of a worker.
    Known(String),
    /// Nobody in particular.
    Anonymous,
}

impl Caller {
    /// Who came by `door`.
    pub(super) fn new(door: Door, identity: Option<&PeerIdentity>) -> Self {
        match (door, identity) {
            (Door::Socket, _) => Caller::Socket,
            (Door::Port, None) => Caller::Anonymous,
            (Door::Port, Some(identity)) => {
                let name = identity.common_name.clone().unwrap_or_default();
                if TRUSTED.iter().any(|organisation| identity.belongs_to(organisation.as_str())) {
                    Caller::Trusted(name)
                } else {
                    Caller::Known(name)
                }
            }
        }
    }

    /// Whether everything may be asked.
    pub(super) fn is_trusted(&self) -> bool {
        match self {
            Caller::Socket | Caller::Trusted(_) => true,
            Caller::Known(_) | Caller::Anonymous => false,
        }
    }

    /// The name in the certificate, if there is one.
    pub(super) fn certificate_name(&self) -> Option<&str> {
        match self {
            Caller::Trusted(name) | Caller::Known(name) => Some(name),
            Caller::Socket | Caller::Anonymous => None,
        }
    }

    fn actor(&self) -> String {
        match self {
            Caller::Socket => "unix".to_owned(),
            Caller::Trusted(name) | Caller::Known(name) => format!("certificate:{name}"),
            Caller::Anonymous => "anonymous".to_owned(),
        }
    }
}

/// What a row asks of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    Open,
    /// The unix socket, or a trusted certificate.
    Trusted,
    /// The header `capi-auth-token`.
    Capi,
    /// The header `node-token`.
    Node,
    /// The headers `Worker-Name` and `Worker-Token`, which the node looks at.
    Worker,
    /// A token in the body, which the node looks at.
    JoinToken,
    /// Any certificate of the fleet.
    Certificate,
}

impl Access {
    /// Lets in, or refuses; in whose name the audit log has it.
    pub(super) async fn admit(
        self,
        caller: &Caller,
        headers: &HeaderMap,
        node: &dyn Management,
    ) -> Result<String, FleetError> {
        match self {
            Access::Open | Access::JoinToken => Ok(caller.actor()),
            Access::Trusted if caller.is_trusted() => Ok(caller.actor()),
            Access::Trusted => Err(FleetError::Forbidden("not authorized".to_owned())),
            Access::Certificate => match caller.certificate_name() {
                Some(_) => Ok(caller.actor()),
                None => Err(FleetError::Forbidden("not authorized".to_owned())),
            },
            Access::Capi => {
                let token = header(headers, "capi-auth-token")?;
                counts(node.check_capi_token(&token).await?, "capi-auth-token", "capi")
            }
            Access::Node => {
                let token = header(headers, "node-token")?;
                counts(node.check_node_token(&token).await?, "node-token", "node-token")
            }
            Access::Worker => {
                header(headers, "worker-token")?;
                let name = header(headers, "worker-name")?;
                Ok(format!("worker:{}", name.reveal()))
            }
        }
    }

    /// Whether somebody may ask who has shown nothing that was looked at before the call.
    pub(super) fn is_unproven(self) -> bool {
        match self {
            Access::Open | Access::Worker | Access::JoinToken => true,
            Access::Trusted | Access::Capi | Access::Node | Access::Certificate => false,
        }
    }
}

fn counts(counts: bool, name: &str, actor: &str) -> Result<String, FleetError> {
    if counts {
        Ok(actor.to_owned())
    } else {
        Err(FleetError::Unauthorized(format!("invalid {name}")))
    }
}

/// A header's text; missing, empty or no text at all: [`FleetError::Unauthorized`].
pub(super) fn header(headers: &HeaderMap, name: &str) -> Result<Sensitive, FleetError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.is_empty() || values.next().is_some() {
        return Err(FleetError::Unauthorized(format!("missing header {name}")));
    }
    Ok(Sensitive::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: Option<&str>, organisations: &[&str]) -> PeerIdentity {
        PeerIdentity {
            common_name: name.map(str::to_owned),
            organisations: organisations.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn the_socket_and_certificates_of_the_control_plane_are_trusted() {
        assert!(Caller::new(Door::Socket, None).is_trusted());
        for organisation in TRUSTED {
            let node = identity(Some("n1"), &[organisation.as_str()]);
            let caller = Caller::new(Door::Port, Some(&node));
            assert!(caller.is_trusted());
            assert_eq!(caller.actor(), "certificate:n1");
        }
    }

    #[test]
    fn a_workers_certificate_and_none_at_all_are_not() {
        for stranger in [
            Some(identity(Some("w1"), &["quorate:worker"])),
            Some(identity(Some("n1"), &[])),
            Some(identity(None, &["quorate:control-plane-2"])),
            None,
        ] {
            assert!(!Caller::new(Door::Port, stranger.as_ref()).is_trusted(), "{stranger:?}");
        }
    }

    #[test]
    fn a_header_counts_once_and_with_a_text() {
        let mut headers = HeaderMap::new();
        assert!(header(&headers, "node-token").is_err());
        headers.insert("node-token", "a".parse().unwrap());
        assert_eq!(header(&headers, "node-token").unwrap().reveal(), "a");
        headers.append("node-token", "b".parse().unwrap());
        assert!(header(&headers, "node-token").is_err());
    }
}
