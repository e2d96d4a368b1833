//! Rows `k8sd/certs-status`, `k8sd/refresh-certs/…` and their cluster-api twins.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sensitive;
use super::null_is_default;

/// `GET k8sd/certs-status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CertificatesStatus {
    /// `server`, `peer`, `client` and `member-api` of the node that answers.
    pub certificates: Vec<CertificateStatus>,
    /// What signed them.
    pub certificate_authorities: Vec<CertificateAuthorityStatus>,
    /// While one authority of the fleet takes another's place. Not of the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
}

/// How far the change of the fleet's authority is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RotationStatus {
    /// `announced`: the new one is to be trusted by every node; `promoted`: it signs, and every certificate is to be made
    /// anew.
    pub state: String,
    /// Why it is not further.
    pub reason: String,
    /// Names of the nodes that have not reported to have done it.
    pub waits_for: Vec<String>,
}

/// One certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateStatus {
    /// Its name.
    pub name: String,
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub expires: String,
    /// Common name of who signed it.
    pub certificate_authority: String,
    /// Whether it was handed in, and is none of ours to renew.
    pub externally_managed: bool,
}

/// One authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateAuthorityStatus {
    /// Its name: `ca`.
    pub name: String,
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub expires: String,
    /// Whether its key is kept elsewhere.
    pub externally_managed: bool,
}

/// `POST k8sd/refresh-certs/plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshPlanRequest {
    /// Names; none: all of this node. `ca` alone: the fleet's authority.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub certificates: Vec<String>,
}

/// What is to be refreshed, under a number that the run must show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RefreshPlan {
    /// The number; `seconds` is the origin's name for it.
    #[serde(rename = "seconds")]
    pub seed: i64,
    /// Requests that somebody else has to sign: none with us.
    pub certificate_signing_requests: Vec<String>,
}

/// `POST k8sd/refresh-certs/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RefreshRunRequest {
    /// Names; none: all.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub certificates: Vec<String>,
    /// The plan's number.
    #[serde(default)]
    pub seed: i64,
    /// How long the new certificates are to be good; 0: as long as the daemon thinks right.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub expiration_seconds: i64,
    /// Further names and addresses for the certificates that others connect to.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub extra_sans: Vec<String>,
}

/// When the new certificates end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RefreshRunAnswer {
    /// Seconds since 1970, under the origin's name.
    pub expiration_seconds: i64,
}

/// `POST x/capi/certificates-expiry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExpiryAnswer {
    /// RFC 3339: the first of this node's certificates that ends.
    #[schema(format = "date-time")]
    pub expiry_date: String,
}

/// A request with nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NothingAsked {}

macro_rules! pairs {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<Sensitive>,)*
        }

        impl $name {
            /// The fields that were given, by their names on the wire, with their PEM.
            pub fn given(&self) -> Vec<(String, &Sensitive)> {
                let mut given = Vec::new();
                $(if let Some(pem) = &self.$field {
                    given.push((stringify!($field).replace('_', "-"), pem));
                })*
                given
            }
        }
    };
}

pairs! {
    /// `POST k8sd/refresh-certs/update`: certificates and keys in PEM, each in its pair. Ours are `server`, `peer`,
    /// `client` and `member-api`; those of Kubernetes' components are known by name, and refused by it.
    RefreshUpdateRequest {
        /// etcd's client port.
        server_crt,
        /// Its key.
        server_key,
        /// Between members.
        peer_crt,
        /// Its key.
        peer_key,
        /// This node as a client of others.
        client_crt,
        /// Its key.
        client_key,
        /// The `/1.0/` API.
        member_api_crt,
        /// Its key.
        member_api_key,
        /// Of Kubernetes.
        front_proxy_client_crt,
        /// Of Kubernetes.
        front_proxy_client_key,
        /// Of Kubernetes.
        apiserver_kubelet_client_crt,
        /// Of Kubernetes.
        apiserver_kubelet_client_key,
        /// Of Kubernetes.
        admin_client_crt,
        /// Of Kubernetes.
        admin_client_key,
        /// Of Kubernetes.
        kube_proxy_client_crt,
        /// Of Kubernetes.
        kube_proxy_client_key,
        /// Of Kubernetes.
        kube_scheduler_client_crt,
        /// Of Kubernetes.
        kube_scheduler_client_key,
        /// Of Kubernetes.
        kube_controller_manager_client_crt,
        /// Of Kubernetes.
        kube_controller_manager_client_key,
        /// Of Kubernetes.
        apiserver_crt,
        /// Of Kubernetes.
        apiserver_key,
        /// Of Kubernetes.
        kubelet_crt,
        /// Of Kubernetes.
        kubelet_key,
        /// Of Kubernetes.
        kubelet_client_crt,
        /// Of Kubernetes.
        kubelet_client_key,
    }
}

impl RefreshUpdateRequest {
    /// Our certificates, by name.
    pub const OURS: [&'static str; 4] = ["server", "peer", "client", "member-api"];

    /// Certificate and key of one of ours, as far as they were given.
    pub fn pair(&self, name: &str) -> (Option<&Sensitive>, Option<&Sensitive>) {
        let field = |suffix: &str| {
            let wanted = format!("{name}-{suffix}");
            self.given().into_iter().find(|(field, _)| *field == wanted).map(|(_, pem)| pem)
        };
        (field("crt"), field("key"))
    }

    /// The fields that were given and are not of our certificates.
    pub fn not_ours(&self) -> Vec<String> {
        let ours = |field: &str| {
            field.rsplit_once('-').is_some_and(|(name, _)| Self::OURS.contains(&name))
        };
        self.given().into_iter().map(|(field, _)| field).filter(|field| !ours(field)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_name_and_those_of_kubernetes_are_told_apart() {
        let request: RefreshUpdateRequest = serde_json::from_str(
            r#"{"member-api-crt":"C","member-api-key":"K","kubelet-crt":"X","client-key":"Y"}"#,
        )
        .unwrap();
        let (certificate, key) = request.pair("member-api");
        assert_eq!(certificate.map(Sensitive::reveal), Some("C"));
        assert_eq!(key.map(Sensitive::reveal), Some("K"));
        assert_eq!(request.pair("client").0, None);
        assert_eq!(request.not_ours(), ["kubelet-crt"]);
    }
}
