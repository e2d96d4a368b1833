//! The config as it is kept: `/k8sd/config/v1alpha2`, one JSON record that every client may read.
//!
//! ```text
//!   BootstrapConfig ── from_bootstrap ──> ClusterConfig ── user_facing ──> what the API tells
//!                      defaults, checks      │    ▲
//!                                            └ patched by SetConfigRequest: absent stays, some fields are for ever
//! ```
//!
//! **Invariant:** nothing in here is secret. Certificates and keys are kept elsewhere.
//!
//! Defaults, checks and texts follow k8sd (`types/cluster_config_*.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bootstrap::BootstrapConfig;
use super::config::{
    ConfigAnswer, DnsConfig, GatewayConfig, IngressConfig, LoadBalancerConfig, LocalStorageConfig,
    MetricsServerConfig, NetworkConfig, SetConfigRequest, UserFacingClusterConfig,
    UserFacingDatastoreConfig,
};
use super::pool;
use crate::fleet::error::FleetError;

/// The key that the record stands under.
pub const CONFIG_KEY: &str = "/k8sd/config/v1alpha2";

/// The smallest IPv6 network of services, by its prefix: Kubernetes allocates from a bitmap.
const SERVICE_PREFIX_V6_MIN: u8 = 108;

/// The fleet's config. Fields that a later version adds are kept by `rest` when this one writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ClusterConfig {
    /// Network.
    pub network: StoredNetwork,
    /// Kubernetes' API server, for those who run one on us.
    #[serde(rename = "apiserver")]
    pub api_server: StoredApiServer,
    /// Ourselves.
    pub datastore: StoredDatastore,
    /// What kubelets are told.
    pub kubelet: StoredKubelet,
    /// DNS.
    pub dns: StoredDns,
    /// Ingress.
    pub ingress: IngressConfig,
    /// Load balancer.
    pub load_balancer: LoadBalancerConfig,
    /// Local storage.
    pub local_storage: LocalStorageConfig,
    /// Gateway.
    pub gateway: GatewayConfig,
    /// Metrics server.
    pub metrics_server: MetricsServerConfig,
    /// Texts by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

macro_rules! stored {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub struct $name {
            $($(#[$field_doc])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$kind>,)*
        }
    };
}

stored! {
    /// Network.
    StoredNetwork {
        /// Whether it is wanted.
        enabled: bool,
        /// For ever.
        pod_cidr: String,
        /// For ever.
        service_cidr: String,
        /// Whether kube-proxy is wanted.
        kube_proxy_enabled: bool,
    }
}

stored! {
    /// Kubernetes' API server.
    StoredApiServer {
        /// For ever.
        secure_port: u16,
        /// `Node,RBAC` or `AlwaysAllow`.
        authorization_mode: String,
    }
}

stored! {
    /// Ourselves.
    StoredDatastore {
        /// `etcd`, for ever.
        #[serde(rename = "type")]
        kind: String,
        /// For ever.
        etcd_port: u16,
        /// For ever.
        etcd_peer_port: u16,
    }
}

stored! {
    /// What kubelets are told.
    StoredKubelet {
        /// The DNS service's address.
        cluster_dns: String,
        /// The DNS domain.
        cluster_domain: String,
        /// The cloud provider.
        cloud_provider: String,
        /// For ever.
        control_plane_taints: Vec<String>,
    }
}

stored! {
    /// DNS.
    StoredDns {
        /// Whether it is wanted.
        enabled: bool,
        /// Who is asked for names of elsewhere.
        upstream_nameservers: Vec<String>,
    }
}

/// The ports that the daemon was told, where the bootstrap config says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// Among members.
    pub peer: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Ports { client: 2379, peer: 2380 }
    }
}

impl ClusterConfig {
    /// The config that a fleet begins with: what was given, defaults for the rest, and checked.
    ///
    /// Refused as [`FleetError::Invalid`]: fields that are not ours, an external datastore, and what
    /// [`validate`](Self::validate) refuses.
    pub fn from_bootstrap(given: &BootstrapConfig, ports: Ports) -> Result<Self, FleetError> {
        given.refuse_not_ours()?;
        let seen = given.cluster_config.clone().unwrap_or_default();
        let mut config = Self::default().with(&seen);
        config.network.pod_cidr = some_text(&given.pod_cidr);
        config.network.service_cidr = some_text(&given.service_cidr);
        config.api_server.secure_port = given.secure_port.filter(|port| *port != 0);
        if given.disable_rbac == Some(true) {
            config.api_server.authorization_mode = Some("AlwaysAllow".to_owned());
        }
        match some_text(&given.datastore_type).as_deref() {
            None | Some("etcd") => config.datastore.kind = Some("etcd".to_owned()),
            Some(other) => {
                return Err(invalid(format!(
                    "datastore-type {other:?}: this daemon is the datastore; only \"etcd\" is there"
                )));
            }
        }
        let port = |given: Option<u16>, told: u16| given.filter(|port| *port != 0).or(Some(told));
        config.datastore.etcd_port = port(given.etcd_port, ports.client);
        config.datastore.etcd_peer_port = port(given.etcd_peer_port, ports.peer);
        config.kubelet.control_plane_taints.clone_from(&given.control_plane_taints);
        config.fill_defaults();
        config.validate()?;
        Ok(config)
    }

    /// Puts what `seen` gives over what is there, without asking whether it may change.
    pub(super) fn with(&self, seen: &UserFacingClusterConfig) -> Self {
        let mut config = self.clone();
        config.network.enabled = seen.network.enabled.or(self.network.enabled);
        config.network.kube_proxy_enabled =
            seen.network.kube_proxy_enabled.or(self.network.kube_proxy_enabled);
        let mut dns = self.user_facing().dns;
        dns.put(&seen.dns);
        config.dns.enabled = dns.enabled;
        config.dns.upstream_nameservers = dns.upstream_nameservers;
        config.kubelet.cluster_domain = dns.cluster_domain;
        config.kubelet.cluster_dns = dns.service_ip;
        if seen.cloud_provider.is_some() {
            config.kubelet.cloud_provider.clone_from(&seen.cloud_provider);
        }
        config.ingress.put(&seen.ingress);
        config.load_balancer.put(&seen.load_balancer);
        config.local_storage.put(&seen.local_storage);
        config.gateway.put(&seen.gateway);
        config.metrics_server.put(&seen.metrics_server);
        if let Some(changes) = &seen.annotations {
            let kept = config.annotations.get_or_insert_default();
            for (name, text) in changes {
                if text == "-" {
                    kept.remove(name);
                } else {
                    kept.insert(name.clone(), text.clone());
                }
            }
        }
        config
    }

    fn fill_defaults(&mut self) {
        fn text(field: &mut Option<String>, default: &str) {
            if field.as_deref().is_none_or(str::is_empty) {
                *field = Some(default.to_owned());
            }
        }
        text(&mut self.network.pod_cidr, "10.1.0.0/16");
        text(&mut self.network.service_cidr, "10.152.183.0/24");
        text(&mut self.api_server.authorization_mode, "Node,RBAC");
        text(&mut self.kubelet.cluster_domain, "cluster.local");
        text(&mut self.local_storage.local_path, "/var/snap/k8s/common/rawfile-storage");
        text(&mut self.local_storage.reclaim_policy, "Delete");
        self.api_server.secure_port.get_or_insert(6443);
        self.network.enabled.get_or_insert(false);
        self.dns.enabled.get_or_insert(false);
        if self.dns.upstream_nameservers.as_ref().is_none_or(Vec::is_empty) {
            self.dns.upstream_nameservers = Some(vec!["/etc/resolv.conf".to_owned()]);
        }
        self.local_storage.enabled.get_or_insert(false);
        self.local_storage.default.get_or_insert(true);
        let balancer = &mut self.load_balancer;
        balancer.enabled.get_or_insert(false);
        balancer.cidrs.get_or_insert_default();
        balancer.l2_mode.get_or_insert(true);
        balancer.l2_interfaces.get_or_insert_default();
        balancer.bgp_mode.get_or_insert(false);
        balancer.bgp_local_asn.get_or_insert(0);
        balancer.bgp_peer_address.get_or_insert_default();
        balancer.bgp_peer_asn.get_or_insert(0);
        balancer.bgp_peer_port.get_or_insert(0);
        self.ingress.enabled.get_or_insert(false);
        self.ingress.default_tls_secret.get_or_insert_default();
        self.ingress.enable_proxy_protocol.get_or_insert(false);
        self.gateway.enabled.get_or_insert(false);
        self.metrics_server.enabled.get_or_insert(true);
    }

    /// Refuses as [`FleetError::Invalid`] what does not fit together.
    pub fn validate(&self) -> Result<(), FleetError> {
        let pods = networks("pod", self.network.pod_cidr.as_deref().unwrap_or_default())?;
        let services =
            networks("service", self.network.service_cidr.as_deref().unwrap_or_default())?;
        for pod in &pods {
            if let Some(service) = services.iter().find(|service| overlap(pod, service)) {
                return Err(invalid(format!(
                    "invalid cidr configuration: pod CIDR \"{pod}\" and service CIDR \"{service}\" overlap"
                )));
            }
        }
        for service in &services {
            if matches!(service, IpNet::V6(_)) && service.prefix_len() < SERVICE_PREFIX_V6_MIN {
                return Err(invalid(format!(
                    "invalid service CIDR: service CIDR \"{service}\" cannot be larger than /108"
                )));
            }
        }
        if self.network.enabled != Some(true) {
            for (name, enabled) in
                [("gateway", self.gateway.enabled), ("ingress", self.ingress.enabled)]
            {
                if enabled == Some(true) {
                    return Err(invalid(format!("{name} requires network to be enabled")));
                }
            }
        }
        self.validate_load_balancer()?;
        match self.local_storage.reclaim_policy.as_deref() {
            None | Some("" | "Retain" | "Delete") => {}
            Some(_) => {
                return Err(invalid("local-storage.reclaim-policy must be one of: Retain, Delete"));
            }
        }
        let path = self.local_storage.local_path.as_deref().unwrap_or_default();
        if self.local_storage.enabled == Some(true) && path.is_empty() {
            return Err(invalid(
                "local-storage.local-path must be set when local-storage is enabled",
            ));
        }
        match self.kubelet.cluster_dns.as_deref() {
            None | Some("") => Ok(()),
            Some(address) if address.parse::<IpAddr>().is_ok() => Ok(()),
            Some(_) => Err(invalid("dns.service-ip must be a valid IP address")),
        }
    }

    fn validate_load_balancer(&self) -> Result<(), FleetError> {
        let balancer = &self.load_balancer;
        if let Some(fault) = balancer.cidrs.iter().flatten().find_map(|entry| pool::fault(entry)) {
            return Err(invalid(fault));
        }
        if balancer.bgp_mode != Some(true) {
            return Ok(());
        }
        for (field, given) in [
            ("bgp-local-asn", balancer.bgp_local_asn.is_some_and(|asn| asn != 0)),
            ("bgp-peer-address", balancer.bgp_peer_address.as_ref().is_some_and(|a| !a.is_empty())),
            ("bgp-peer-port", balancer.bgp_peer_port.is_some_and(|port| port != 0)),
            ("bgp-peer-asn", balancer.bgp_peer_asn.is_some_and(|asn| asn != 0)),
        ] {
            if !given {
                return Err(invalid(format!(
                    "load-balancer.{field} must be set when load-balancer.bgp-mode is enabled"
                )));
            }
        }
        Ok(())
    }

    /// What clients see of it.
    pub fn user_facing(&self) -> UserFacingClusterConfig {
        UserFacingClusterConfig {
            network: NetworkConfig {
                enabled: self.network.enabled,
                kube_proxy_enabled: self.network.kube_proxy_enabled,
            },
            dns: DnsConfig {
                enabled: self.dns.enabled,
                cluster_domain: self.kubelet.cluster_domain.clone(),
                service_ip: self.kubelet.cluster_dns.clone(),
                upstream_nameservers: self.dns.upstream_nameservers.clone(),
            },
            ingress: self.ingress.clone(),
            load_balancer: self.load_balancer.clone(),
            local_storage: self.local_storage.clone(),
            gateway: self.gateway.clone(),
            metrics_server: self.metrics_server.clone(),
            cloud_provider: self.kubelet.cloud_provider.clone(),
            annotations: self.annotations.clone(),
        }
    }

    /// `GET k8sd/cluster/config`.
    pub fn answer(&self) -> ConfigAnswer {
        ConfigAnswer {
            status: self.user_facing(),
            datastore: UserFacingDatastoreConfig {
                kind: self.datastore.kind.clone(),
                ..UserFacingDatastoreConfig::default()
            },
            pod_cidr: self.network.pod_cidr.clone(),
            service_cidr: self.network.service_cidr.clone(),
        }
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and plain values")
    }

    /// Reads the record; what is no config is a fault of whoever wrote it: [`FleetError::Internal`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FleetError> {
        serde_json::from_slice(bytes).map_err(|why| {
            FleetError::Internal(format!("the record {CONFIG_KEY} is damaged: {why}"))
        })
    }

    /// This config changed as `change` says: what is absent stays.
    ///
    /// Refused as [`FleetError::Immutable`]: a change of what is for ever, or for as long as its feature is on. As
    /// [`FleetError::Invalid`]: fields of an external datastore, and what [`validate`](Self::validate) refuses.
    pub fn patched(&self, change: &SetConfigRequest) -> Result<Self, FleetError> {
        let datastore = &change.datastore;
        let given = |text: &Option<super::Sensitive>| text.as_ref().is_some_and(|t| !t.is_empty());
        if datastore.servers.as_ref().is_some_and(|servers| !servers.is_empty())
            || given(&datastore.ca_crt)
            || given(&datastore.client_crt)
            || given(&datastore.client_key)
        {
            return Err(invalid(
                "datastore: servers and certificates are for an external one, and this daemon is the datastore",
            ));
        }
        let mut patched = self.with(&change.config);
        let mut seen = self.answer().datastore;
        seen.put(datastore);
        patched.datastore.kind = seen.kind;
        self.refuse_immutable(&patched)?;
        patched
            .validate()
            .map_err(|why| invalid(format!("updated cluster configuration is not valid: {why}")))?;
        Ok(patched)
    }

    /// Refuses what may not differ between this config and `next`. What was not set yet may be set.
    pub fn refuse_immutable(&self, next: &Self) -> Result<(), FleetError> {
        fn changed<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
            old.is_some() && old != new
        }
        let stays_on =
            |old: Option<bool>, new: Option<bool>| old == Some(true) && new == Some(true);
        let storage_on = stays_on(self.local_storage.enabled, next.local_storage.enabled);
        let dns_on = stays_on(self.dns.enabled, next.dns.enabled);
        let (old, new) = (&self.local_storage, &next.local_storage);
        let taints =
            changed(&self.kubelet.control_plane_taints, &next.kubelet.control_plane_taints);
        for (name, prevented) in [
            ("datastore type", changed(&self.datastore.kind, &next.datastore.kind)),
            ("pod CIDR", changed(&self.network.pod_cidr, &next.network.pod_cidr)),
            ("service CIDR", changed(&self.network.service_cidr, &next.network.service_cidr)),
            (
                "kubelet cluster DNS",
                dns_on && changed(&self.kubelet.cluster_dns, &next.kubelet.cluster_dns),
            ),
            ("local storage path", storage_on && changed(&old.local_path, &new.local_path)),
            (
                "local storage reclaim policy",
                storage_on && changed(&old.reclaim_policy, &new.reclaim_policy),
            ),
            ("control-plane register with taints", taints),
            (
                "kube-apiserver secure port",
                changed(&self.api_server.secure_port, &next.api_server.secure_port),
            ),
            ("etcd client port", changed(&self.datastore.etcd_port, &next.datastore.etcd_port)),
            (
                "etcd peer port",
                changed(&self.datastore.etcd_peer_port, &next.datastore.etcd_peer_port),
            ),
        ] {
            if prevented {
                return Err(FleetError::Immutable(name));
            }
        }
        Ok(())
    }
}

fn invalid(text: impl Into<String>) -> FleetError {
    FleetError::Invalid(text.into())
}

fn some_text(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// One or two networks, of different families.
fn networks(whose: &str, text: &str) -> Result<Vec<IpNet>, FleetError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > 2 {
        return Err(invalid(format!(
            "invalid {whose} CIDR: must contain 1 or 2 CIDRs, but found {} instead",
            parts.len()
        )));
    }
    let mut networks = Vec::new();
    for part in parts {
        let network = part.parse::<IpNet>().map_err(|why| {
            invalid(format!("invalid {whose} CIDR: {part:?} is not a valid CIDR: {why}"))
        })?;
        networks.push(network.trunc());
    }
    if let [IpNet::V4(_), IpNet::V4(_)] | [IpNet::V6(_), IpNet::V6(_)] = networks.as_slice() {
        return Err(invalid(format!(
            "invalid {whose} CIDR: two CIDRs are one of IPv4 and one of IPv6"
        )));
    }
    Ok(networks)
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}
