//! What a node that joins may say of itself: `config` of `POST k8sd/cluster/join`, as YAML or JSON.

use super::Sensitive;
use super::bootstrap::pair;
use super::fields::config_fields;
use crate::fleet::error::FleetError;

config_fields! {
    /// What a node of the control plane may say of itself.
    ControlPlaneJoinConfig {
        ours {
            /// Further names and addresses for the certificates that others connect to.
            extra_sans: Vec<String>,
            /// This node's certificate on the client port, PEM; signed by the fleet if not given.
            etcd_server_crt: Sensitive,
            /// Its key.
            etcd_server_key: Sensitive,
            /// This node's certificate among members, PEM; signed by the fleet if not given.
            etcd_peer_crt: Sensitive,
            /// Its key.
            etcd_peer_key: Sensitive,
            /// Nothing is tuned by this daemon in any case.
            disable_system_tuning: bool,
        }
        not_ours {
            front_proxy_client_crt,
            front_proxy_client_key,
            admin_client_crt,
            admin_client_key,
            kube_proxy_client_crt,
            kube_proxy_client_key,
            kube_scheduler_client_crt,
            kube_scheduler_client_key,
            kube_controller_manager_client_crt,
            kube_controller_manager_client_key,
            apiserver_crt,
            apiserver_key,
            kubelet_crt,
            kubelet_key,
            kubelet_client_crt,
            kubelet_client_key,
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

config_fields! {
    /// What a worker may say of itself: nothing that is ours.
    WorkerJoinConfig {
        ours {
            /// Nothing is tuned by this daemon in any case.
            disable_system_tuning: bool,
        }
        not_ours {
            kubelet_crt,
            kubelet_key,
            kubelet_client_crt,
            kubelet_client_key,
            kube_proxy_client_crt,
            kube_proxy_client_key,
            extra_node_config_files,
            extra_node_kube_proxy_args,
            extra_node_kubelet_args,
            extra_node_containerd_args,
            extra_node_k8s_apiserver_proxy_args,
            extra_node_containerd_config,
            containerd_base_dir,
        }
    }
}

impl ControlPlaneJoinConfig {
    /// Reads YAML or JSON, strictly; nothing at all is a config that says nothing.
    ///
    /// Refused as [`FleetError::Invalid`]: what is neither, unknown fields, and fields that are not ours.
    pub fn parse(text: &Sensitive) -> Result<Self, FleetError> {
        let config: Self = parse(text)?;
        config.refuse_not_ours()?;
        Ok(config)
    }

    /// The node's certificate on the client port that was handed in: certificate and key, PEM.
    pub fn supplied_server(&self) -> Result<Option<(&Sensitive, &Sensitive)>, FleetError> {
        pair("etcd-server", self.etcd_server_crt.as_ref(), self.etcd_server_key.as_ref())
    }

    /// The node's certificate among members that was handed in.
    pub fn supplied_peer(&self) -> Result<Option<(&Sensitive, &Sensitive)>, FleetError> {
        pair("etcd-peer", self.etcd_peer_crt.as_ref(), self.etcd_peer_key.as_ref())
    }
}

impl WorkerJoinConfig {
    /// As [`ControlPlaneJoinConfig::parse`].
    pub fn parse(text: &Sensitive) -> Result<Self, FleetError> {
        let config: Self = parse(text)?;
        config.refuse_not_ours()?;
        Ok(config)
    }
}

/// The reason names the place and not the text, in which keys may stand.
fn parse<T: Default + serde::de::DeserializeOwned>(text: &Sensitive) -> Result<T, FleetError> {
    if text.reveal().trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text.reveal()).map_err(|why| {
        let place = why.location().map_or_else(String::new, |at| {
            format!(" at line {} column {}", at.line(), at.column())
        });
        FleetError::Invalid(format!(
            "failed to parse request config: not a join config, or with fields that it does not have{place}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_config_is_read_from_yaml_json_or_nothing() {
        let read = |text: &str| ControlPlaneJoinConfig::parse(&Sensitive::from(text));
        assert_eq!(read("").unwrap(), ControlPlaneJoinConfig::default());
        let wanted = Some(vec!["n1.example".to_owned()]);
        assert_eq!(read("extra-sans:\n- n1.example\n").unwrap().extra_sans, wanted);
        assert_eq!(read(r#"{"extra-sans":["n1.example"]}"#).unwrap().extra_sans, wanted);
    }

    #[test]
    fn what_a_join_config_does_not_have_is_refused_without_repeating_it() {
        let read = |text: &str| ControlPlaneJoinConfig::parse(&Sensitive::from(text));
        for bad in
            ["unknown: SECRET", "- SECRET", "etcd-server-key: [SECRET]", "kubelet-key: SECRET"]
        {
            let why = read(bad).expect_err(bad).to_string();
            assert!(!why.contains("SECRET"), "{why}");
        }
        assert!(WorkerJoinConfig::parse(&Sensitive::from("extra-sans: [a]")).is_err());
    }
}
