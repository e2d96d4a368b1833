//! What a fleet begins with: `config` of `POST k8sd/cluster`, and the file of `quorate bootstrap --file`.
//!
//! The origin's fields are all known, so that its files are read strictly. Those for Kubernetes' components, which this
//! daemon does not run, are named by [`BootstrapConfig::not_ours`], and refused.

use super::Sensitive;
use super::config::UserFacingClusterConfig;
use super::fields::config_fields;
use crate::fleet::error::FleetError;

config_fields! {
    /// What a fleet begins with; everything may be left out.
    BootstrapConfig {
        ours {
            /// The config that clients see.
            cluster_config: UserFacingClusterConfig,
            /// Kept, and told by `GET k8sd/node`.
            control_plane_taints: Vec<String>,
            /// One or two networks with a comma between them; `10.1.0.0/16` if not given.
            pod_cidr: String,
            /// The same for services; `10.152.183.0/24` if not given.
            service_cidr: String,
            /// Authorization `AlwaysAllow` instead of `Node,RBAC`.
            disable_rbac: bool,
            /// Nothing is tuned by this daemon in any case.
            disable_system_tuning: bool,
            /// 6443 if not given.
            #[schema(maximum = 65535)]
            secure_port: u16,
            /// `etcd`; `external` is refused: this daemon is the datastore.
            datastore_type: String,
            /// The client port; as the daemon was told, else 2379.
            #[schema(maximum = 65535)]
            etcd_port: u16,
            /// The peer port; as the daemon was told, else 2380.
            #[schema(maximum = 65535)]
            etcd_peer_port: u16,
            /// The fleet's authority in PEM; another name for `ca-crt`.
            etcd_ca_crt: Sensitive,
            /// Its key.
            etcd_ca_key: Sensitive,
            /// This node's certificate on the client port, PEM; made if not given.
            etcd_server_crt: Sensitive,
            /// Its key.
            etcd_server_key: Sensitive,
            /// This node's certificate among members, PEM; made if not given.
            etcd_peer_crt: Sensitive,
            /// Its key.
            etcd_peer_key: Sensitive,
            /// Further names and addresses for the certificates that others connect to.
            extra_sans: Vec<String>,
            /// The fleet's authority in PEM; made if not given.
            ca_crt: Sensitive,
            /// Its key.
            ca_key: Sensitive,
        }
        not_ours {
            datastore_ca_crt,
            datastore_client_crt,
            datastore_client_key,
            etcd_apiserver_client_crt,
            etcd_apiserver_client_key,
            client_ca_crt,
            client_ca_key,
            front_proxy_ca_crt,
            front_proxy_ca_key,
            front_proxy_client_crt,
            front_proxy_client_key,
            apiserver_kubelet_client_crt,
            apiserver_kubelet_client_key,
            admin_client_crt,
            admin_client_key,
            kube_proxy_client_crt,
            kube_proxy_client_key,
            kube_scheduler_client_crt,
            kube_scheduler_client_key,
            kube_controller_manager_client_crt,
            kube_controller_manager_client_key,
            service_account_key,
            apiserver_crt,
            apiserver_key,
            kubelet_crt,
            kubelet_key,
            kubelet_client_crt,
            kubelet_client_key,
            datastore_servers,
            extra_node_config_files,
            extra_node_kube_apiserver_args,
            extra_node_kube_controller_manager_args,
            extra_node_kube_scheduler_args,
            extra_node_kube_proxy_args,
            extra_node_kubelet_args,
            extra_node_containerd_args,
            extra_node_etcd_args,
            extra_node_containerd_config,
            containerd_base_dir,
        }
    }
}

impl BootstrapConfig {
    /// The authority that was handed in: certificate and key, PEM.
    ///
    /// Refused as [`FleetError::Invalid`]: one without the other, and two different ones under both names.
    pub fn supplied_ca(&self) -> Result<Option<(&Sensitive, &Sensitive)>, FleetError> {
        let plain = pair("ca", self.ca_crt.as_ref(), self.ca_key.as_ref())?;
        let etcd = pair("etcd-ca", self.etcd_ca_crt.as_ref(), self.etcd_ca_key.as_ref())?;
        match (plain, etcd) {
            (Some(plain), Some(etcd)) if plain != etcd => Err(FleetError::Invalid(
                "ca-crt and etcd-ca-crt are two names of one authority, and differ".to_owned(),
            )),
            (plain, etcd) => Ok(plain.or(etcd)),
        }
    }

    /// The node's certificate `server` or `peer` that was handed in, as in [`supplied_ca`](Self::supplied_ca).
    pub fn supplied_server(&self) -> Result<Option<(&Sensitive, &Sensitive)>, FleetError> {
        pair("etcd-server", self.etcd_server_crt.as_ref(), self.etcd_server_key.as_ref())
    }

    /// See [`supplied_server`](Self::supplied_server).
    pub fn supplied_peer(&self) -> Result<Option<(&Sensitive, &Sensitive)>, FleetError> {
        pair("etcd-peer", self.etcd_peer_crt.as_ref(), self.etcd_peer_key.as_ref())
    }
}

/// Both of a pair, or neither. An empty text counts as not given, as in the origin.
pub(super) fn pair<'a>(
    name: &str,
    certificate: Option<&'a Sensitive>,
    key: Option<&'a Sensitive>,
) -> Result<Option<(&'a Sensitive, &'a Sensitive)>, FleetError> {
    let given = |text: Option<&'a Sensitive>| text.filter(|text| !text.is_empty());
    match (given(certificate), given(key)) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(FleetError::Invalid(format!("{name}-crt needs {name}-key"))),
        (None, Some(_)) => Err(FleetError::Invalid(format!("{name}-key needs {name}-crt"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> BootstrapConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_authority_has_a_certificate_and_a_key_under_either_name() {
        assert_eq!(read("{}").supplied_ca(), Ok(None));
        let plain = read(r#"{"ca-crt":"C","ca-key":"K"}"#);
        assert_eq!(plain.supplied_ca().unwrap().unwrap().0.reveal(), "C");
        let etcd = read(r#"{"etcd-ca-crt":"C","etcd-ca-key":"K"}"#);
        assert_eq!(etcd.supplied_ca().unwrap(), plain.supplied_ca().unwrap());
        for bad in [
            r#"{"ca-crt":"C"}"#,
            r#"{"ca-key":"K"}"#,
            r#"{"ca-crt":"C","ca-key":"K","etcd-ca-crt":"D","etcd-ca-key":"K"}"#,
        ] {
            assert!(matches!(read(bad).supplied_ca(), Err(FleetError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn fields_of_kubernetes_are_known_and_told_by_name() {
        let config = read(
            r#"{"pod-cidr":"10.0.0.0/8","extra-node-kubelet-args":{"--v":"2"},"kubelet-key":"PEM"}"#,
        );
        assert_eq!(config.not_ours(), ["kubelet-key", "extra-node-kubelet-args"]);
        assert!(!format!("{config:?}").contains("PEM"), "{config:?}");
        assert!(serde_json::from_str::<BootstrapConfig>(r#"{"pod-cidrs":""}"#).is_err());
    }
}
