//! Rows `k8sd/cluster/config`: the config that clients see, and change by leaving out what is to stay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sensitive;

/// `GET k8sd/cluster/config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigAnswer {
    /// The config; the origin's name for it.
    pub status: UserFacingClusterConfig,
    /// What keeps the data.
    pub datastore: UserFacingDatastoreConfig,
    /// For addresses of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// For addresses of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<String>,
}

/// `PUT k8sd/cluster/config`: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetConfigRequest {
    /// Changes of the config.
    #[serde(default)]
    pub config: UserFacingClusterConfig,
    /// Changes of the datastore's; its type cannot change.
    #[serde(default)]
    pub datastore: UserFacingDatastoreConfig,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$kind>,)*
        }

        impl $name {
            /// Puts what `change` gives over what is there.
            pub(super) fn put(&mut self, change: &Self) {
                $(if change.$field.is_some() {
                    self.$field.clone_from(&change.$field);
                })*
            }
        }
    };
}

/// The config that clients see. In a request, `null` and absent mean: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct UserFacingClusterConfig {
    /// The network feature.
    pub network: NetworkConfig,
    /// The DNS feature.
    pub dns: DnsConfig,
    /// The ingress feature.
    pub ingress: IngressConfig,
    /// The load balancer feature.
    pub load_balancer: LoadBalancerConfig,
    /// The local storage feature.
    pub local_storage: LocalStorageConfig,
    /// The gateway feature.
    pub gateway: GatewayConfig,
    /// The metrics server feature.
    pub metrics_server: MetricsServerConfig,
    /// `external`, or not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_provider: Option<String>,
    /// Texts by name; in a request `-` takes one away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The network feature. `kube-proxy-enabled` is `null` when it is not given, as in the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Whether it is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether kube-proxy is wanted.
    pub kube_proxy_enabled: Option<bool>,
}

section! {
    /// The DNS feature.
    DnsConfig {
        /// Whether it is wanted.
        enabled: bool,
        /// `cluster.local` if not given.
        cluster_domain: String,
        /// An IP address.
        service_ip: String,
        /// Who is asked for names of elsewhere.
        upstream_nameservers: Vec<String>,
    }
}

section! {
    /// The ingress feature; needs the network.
    IngressConfig {
        /// Whether it is wanted.
        enabled: bool,
        /// A secret's name.
        default_tls_secret: String,
        /// Whether the proxy protocol is spoken.
        enable_proxy_protocol: bool,
    }
}

section! {
    /// The load balancer feature.
    LoadBalancerConfig {
        /// Whether it is wanted.
        enabled: bool,
        /// Where its addresses come from.
        cidrs: Vec<String>,
        /// Announced by ARP; true if not given.
        l2_mode: bool,
        /// By which interfaces; none: all.
        l2_interfaces: Vec<String>,
        /// Announced by BGP; needs the four below.
        bgp_mode: bool,
        /// Of this side.
        #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
        bgp_local_asn: u32,
        /// Of the other side.
        bgp_peer_address: String,
        /// Of the other side.
        #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
        bgp_peer_asn: u32,
        /// Of the other side.
        #[schema(maximum = 65535)]
        bgp_peer_port: u16,
    }
}

section! {
    /// The local storage feature.
    LocalStorageConfig {
        /// Whether it is wanted.
        enabled: bool,
        /// A directory.
        local_path: String,
        /// `Retain` or `Delete`.
        reclaim_policy: String,
        /// Whether it is the default class.
        default: bool,
    }
}

section! {
    /// The gateway feature; needs the network.
    GatewayConfig {
        /// Whether it is wanted.
        enabled: bool,
    }
}

section! {
    /// The metrics server feature.
    MetricsServerConfig {
        /// Whether it is wanted.
        enabled: bool,
    }
}

section! {
    /// What keeps the data. Only `etcd`, which this daemon is: the other fields belong to the origin's `external`, and
    /// are refused.
    UserFacingDatastoreConfig {
        /// `etcd`.
        #[serde(rename = "type")]
        kind: String,
        /// Of an external datastore.
        servers: Vec<String>,
        /// Of an external datastore.
        ca_crt: Sensitive,
        /// Of an external datastore.
        client_crt: Sensitive,
        /// Of an external datastore.
        client_key: Sensitive,
    }
}
