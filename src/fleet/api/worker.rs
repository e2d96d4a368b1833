//! Row `k8sd/worker/info`: what a worker is given for its token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Sensitive, is_false};

/// `POST k8sd/worker/info`, with the headers `Worker-Name` and `Worker-Token`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerInfoRequest {
    /// The worker's IP address, or `host:port` of its API.
    #[serde(default)]
    #[schema(required, min_length = 1)]
    pub address: String,
    /// Ours: a certificate request in PEM. Its key stays with the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
}

/// What a worker needs. Fields of Kubernetes' components, which we do not run, are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInfo {
    /// The fleet's authority, PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// The same, for clients.
    #[serde(rename = "client-ca", default, skip_serializing_if = "String::is_empty")]
    pub client_ca: String,
    /// Client URLs of the voters: what stands behind the worker.
    pub api_servers: Vec<String>,
    /// Of Kubernetes.
    #[serde(default)]
    pub kubelet_client_cert: String,
    /// Of Kubernetes.
    #[serde(default)]
    pub kubelet_client_key: Sensitive,
    /// Of Kubernetes.
    #[serde(default)]
    pub kube_proxy_client_cert: String,
    /// Of Kubernetes.
    #[serde(default)]
    pub kube_proxy_client_key: Sensitive,
    /// Addresses of pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// Addresses of services.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// The DNS service's address.
    #[serde(rename = "clusterDNS", default, skip_serializing_if = "String::is_empty")]
    pub cluster_dns: String,
    /// The DNS domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_domain: String,
    /// The cloud provider.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cloud_provider: String,
    /// Of Kubernetes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubelet_crt: String,
    /// Of Kubernetes.
    #[serde(default, skip_serializing_if = "Sensitive::is_empty")]
    pub kubelet_key: Sensitive,
    /// Of the origin; empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub k8sd_public_key: String,
    /// Of the config.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Of the config.
    #[serde(rename = "kube-proxy-enabled", default, skip_serializing_if = "is_false")]
    pub kube_proxy_enabled: bool,
    /// Ours: the certificate for [`WorkerInfoRequest::csr`], PEM.
    #[serde(rename = "client-certificate", default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// Ours: the fleet's UUID.
    #[serde(rename = "cluster-uid", default, skip_serializing_if = "String::is_empty")]
    pub cluster_uid: String,
    /// Ours: the id that the worker was given, in hexadecimal.
    #[serde(rename = "node-id", default, skip_serializing_if = "String::is_empty")]
    pub node_id: String,
}
