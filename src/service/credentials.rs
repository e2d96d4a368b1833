//! What a gRPC request says of its client (etcd `server/auth/store.go`, `AuthInfoFromCtx`, `AuthInfoFromTLS`).
//!
//! | where | what |
//! |---|---|
//! | metadata `token`, else `authorization` | a token, maybe behind `Bearer ` |
//! | metadata `grpcgateway-accept` | the JSON gateway asks for somebody else: no certificate counts |
//! | extension [`PeerIdentity`] | the name in the client's certificate |

use http::header::{AUTHORIZATION, HeaderName};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::status::status;
use crate::keyspace::Keyspace;
use crate::keyspace::auth::{Credentials, Gate};
use crate::support::tls::PeerIdentity;

/// Names that need not be read again with each call.
static TOKEN: HeaderName = HeaderName::from_static("token");
static FROM_GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// The keyspace for who sent `request`.
pub(crate) fn admit<T>(gate: &Gate, request: &Request<T>) -> Result<Keyspace, Status> {
    admit_by(gate, request.metadata(), request.extensions())
}

/// The same for a request whose message has been taken out.
pub(crate) fn admit_by(
    gate: &Gate,
    metadata: &MetadataMap,
    extensions: &Extensions,
) -> Result<Keyspace, Status> {
    gate.admit(&credentials(metadata, extensions)).map_err(|why| status(&why))
}

fn credentials<'a>(metadata: &'a MetadataMap, extensions: &'a Extensions) -> Credentials<'a> {
    let headers = metadata.as_ref();
    let token = headers.get(&TOKEN).or_else(|| headers.get(&AUTHORIZATION));
    // What is not text is no token of ours; an empty one is refused as such, where auth is on.
    let token = token.map(|token| token.to_str().unwrap_or_default());
    Credentials {
        token: token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token)),
        common_name: extensions.get::<PeerIdentity>().and_then(|peer| peer.common_name.as_deref()),
        from_gateway: headers.contains_key(&FROM_GATEWAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> (Option<String>, bool) {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.insert(*name, value.parse().unwrap());
        }
        let nothing = Extensions::new();
        let shown = credentials(&metadata, &nothing);
        (shown.token.map(str::to_owned), shown.from_gateway)
    }

    #[test]
    fn tokens_come_by_two_names_and_may_bear_a_prefix() {
        let some = |token: &str| (Some(token.to_owned()), false);
        assert_eq!(of(&[]), (None, false));
        assert_eq!(of(&[("token", "a.1")]), some("a.1"));
        assert_eq!(of(&[("authorization", "a.1")]), some("a.1"));
        assert_eq!(of(&[("authorization", "Bearer a.1")]), some("a.1"));
        assert_eq!(of(&[("token", "Bearer a.1")]), some("a.1"));
        assert_eq!(of(&[("authorization", "b.2"), ("token", "a.1")]), some("a.1"));
        assert_eq!(of(&[("token", "")]), some(""));
        assert_eq!(of(&[("grpcgateway-accept", "*/*")]), (None, true));
    }

    #[test]
    fn the_name_in_a_certificate_comes_with_the_connection() {
        let mut extensions = Extensions::new();
        let identity =
            PeerIdentity { common_name: Some("ann".to_owned()), ..PeerIdentity::default() };
        extensions.insert(identity);
        let metadata = MetadataMap::new();
        assert_eq!(credentials(&metadata, &extensions).common_name, Some("ann"));
    }
}
