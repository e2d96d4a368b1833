//! The config's defaults, checks and changes, in the words of the table that they come from (requirements 2.5).

use super::bootstrap::BootstrapConfig;
use super::config::SetConfigRequest;
use super::stored::{ClusterConfig, Ports};
use crate::fleet::error::FleetError;

fn bootstrap(json: &str) -> Result<ClusterConfig, FleetError> {
    let given: BootstrapConfig = serde_json::from_str(json).expect(json);
    ClusterConfig::from_bootstrap(&given, Ports::default())
}

fn change(json: &str) -> SetConfigRequest {
    serde_json::from_str(json).expect(json)
}

#[test]
fn a_config_that_says_nothing_has_the_defaults_of_the_origin() {
    let config = bootstrap("{}").unwrap();
    let told: serde_json::Value = serde_json::from_slice(&config.to_bytes()).unwrap();
    let want: serde_json::Value = serde_json::from_str(
        r#"{
            "network": {"enabled": false, "pod-cidr": "10.1.0.0/16", "service-cidr": "10.152.183.0/24"},
            "apiserver": {"secure-port": 6443, "authorization-mode": "Node,RBAC"},
            "datastore": {"type": "etcd", "etcd-port": 2379, "etcd-peer-port": 2380},
            "kubelet": {"cluster-domain": "cluster.local"},
            "dns": {"enabled": false, "upstream-nameservers": ["/etc/resolv.conf"]},
            "ingress": {"enabled": false, "default-tls-secret": "", "enable-proxy-protocol": false},
            "load-balancer": {"enabled": false, "cidrs": [], "l2-mode": true, "l2-interfaces": [], "bgp-mode": false,
                "bgp-local-asn": 0, "bgp-peer-address": "", "bgp-peer-asn": 0, "bgp-peer-port": 0},
            "local-storage": {"enabled": false, "local-path": "/var/snap/k8s/common/rawfile-storage",
                "reclaim-policy": "Delete", "default": true},
            "gateway": {"enabled": false},
            "metrics-server": {"enabled": true}
        }"#,
    )
    .unwrap();
    assert_eq!(told, want);
    assert_eq!(ClusterConfig::from_bytes(&config.to_bytes()).unwrap(), config);
}

#[test]
fn what_a_bootstrap_gives_stands_and_the_daemons_ports_fill_the_gaps() {
    let given: BootstrapConfig = serde_json::from_str(
        r#"{"pod-cidr":"10.8.0.0/16,fd00:1::/64","service-cidr":"10.9.0.0/24,fd00:2::/108","disable-rbac":true,
            "secure-port":16443,"etcd-peer-port":12380,"control-plane-taints":["a=b:NoSchedule"],
            "cluster-config":{"network":{"enabled":true},"gateway":{"enabled":true},"annotations":{"a":"1"}}}"#,
    )
    .unwrap();
    let config = ClusterConfig::from_bootstrap(&given, Ports { client: 12379, peer: 1 }).unwrap();
    assert_eq!(config.datastore.etcd_port, Some(12379));
    assert_eq!(config.datastore.etcd_peer_port, Some(12380));
    assert_eq!(config.api_server.secure_port, Some(16443));
    assert_eq!(config.api_server.authorization_mode.as_deref(), Some("AlwaysAllow"));
    assert_eq!(config.gateway.enabled, Some(true));
    let answer = config.answer();
    assert_eq!(answer.pod_cidr.as_deref(), Some("10.8.0.0/16,fd00:1::/64"));
    assert_eq!(answer.status.annotations.unwrap()["a"], "1");
}

#[test]
fn a_config_that_does_not_fit_together_is_refused_with_its_reason() {
    for (given, reason) in [
        (r#"{"pod-cidr":"10.1.0.0"}"#, "invalid pod CIDR"),
        (r#"{"pod-cidr":"10.1.0.0/16,10.2.0.0/16"}"#, "one of IPv4 and one of IPv6"),
        (r#"{"pod-cidr":"10.1.0.0/16,fd00::/64,10.2.0.0/16"}"#, "1 or 2 CIDRs, but found 3"),
        (r#"{"service-cidr":"10.1.7.0/24"}"#, "overlap"),
        (r#"{"service-cidr":"10.9.0.0/24,fd00::/107"}"#, "cannot be larger than /108"),
        (r#"{"cluster-config":{"gateway":{"enabled":true}}}"#, "gateway requires network"),
        (r#"{"cluster-config":{"ingress":{"enabled":true}}}"#, "ingress requires network"),
        (
            r#"{"cluster-config":{"load-balancer":{"cidrs":["10.0.0.1"]}}}"#,
            "invalid CIDR \"10.0.0.1\"",
        ),
        (
            r#"{"cluster-config":{"load-balancer":{"cidrs":["10.0.0.0/24","10.1.0.9-10.1.0.7"]}}}"#,
            "greater than the stop IP",
        ),
        (r#"{"cluster-config":{"load-balancer":{"bgp-mode":true}}}"#, "bgp-local-asn must be set"),
        (
            r#"{"cluster-config":{"load-balancer":{"bgp-mode":true,"bgp-local-asn":1,"bgp-peer-asn":2,
                "bgp-peer-address":"10.0.0.1"}}}"#,
            "bgp-peer-port must be set",
        ),
        (
            r#"{"cluster-config":{"local-storage":{"reclaim-policy":"Recycle"}}}"#,
            "one of: Retain, Delete",
        ),
        (r#"{"cluster-config":{"dns":{"service-ip":"dns.local"}}}"#, "valid IP address"),
        (r#"{"datastore-type":"external"}"#, "this daemon is the datastore"),
        (r#"{"datastore-servers":["https://10.0.0.1:2379"]}"#, "not ours: datastore-servers"),
        (r#"{"kubelet-crt":"PEM"}"#, "not ours: kubelet-crt"),
    ] {
        let refused = bootstrap(given).expect_err(given);
        assert!(matches!(refused, FleetError::Invalid(_)), "{given}: {refused:?}");
        assert!(refused.to_string().contains(reason), "{given}: {refused}");
    }
}

#[test]
fn a_change_leaves_alone_what_it_does_not_name() {
    let config = bootstrap(r#"{"cluster-config":{"annotations":{"a":"1","b":"2"}}}"#).unwrap();
    let next = config
        .patched(&change(
            r#"{"config":{"dns":{"enabled":true,"service-ip":null},"annotations":{"b":"-","c":"3"}},
                "datastore":{"type":"etcd"}}"#,
        ))
        .unwrap();
    assert_eq!(next.dns.enabled, Some(true));
    assert_eq!(next.dns.upstream_nameservers, config.dns.upstream_nameservers);
    assert_eq!(next.metrics_server.enabled, Some(true));
    let annotations = next.annotations.clone().unwrap();
    assert_eq!(
        annotations.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())]
    );
    assert_eq!(next.patched(&change("{}")).unwrap(), next);
}

#[test]
fn fields_that_are_for_ever_refuse_to_change_by_name() {
    let config = bootstrap(
        r#"{"control-plane-taints":["a"],"cluster-config":{"dns":{"enabled":true,"service-ip":"10.152.183.10"},
            "local-storage":{"enabled":true}}}"#,
    )
    .unwrap();
    for (asked, name) in [
        (r#"{"datastore":{"type":"external"}}"#, "datastore type"),
        (r#"{"config":{"dns":{"service-ip":"10.152.183.11"}}}"#, "kubelet cluster DNS"),
        (r#"{"config":{"local-storage":{"local-path":"/x"}}}"#, "local storage path"),
        (
            r#"{"config":{"local-storage":{"reclaim-policy":"Retain"}}}"#,
            "local storage reclaim policy",
        ),
    ] {
        assert_eq!(config.patched(&change(asked)), Err(FleetError::Immutable(name)), "{asked}");
    }
    assert_eq!(
        FleetError::Immutable("pod CIDR").to_string(),
        "prevented update of pod CIDR: value cannot change"
    );
    // The same value is no change, and a feature that goes off lets its fields go.
    config.patched(&change(r#"{"config":{"dns":{"service-ip":"10.152.183.10"}}}"#)).unwrap();
    config
        .patched(&change(r#"{"config":{"dns":{"enabled":false,"service-ip":"10.152.183.11"}}}"#))
        .unwrap();

    let mut other = config.clone();
    other.network.pod_cidr = Some("10.7.0.0/16".to_owned());
    assert_eq!(config.refuse_immutable(&other), Err(FleetError::Immutable("pod CIDR")));
    let mut other = config.clone();
    other.datastore.etcd_port = Some(1);
    assert_eq!(config.refuse_immutable(&other), Err(FleetError::Immutable("etcd client port")));
    let mut other = config.clone();
    other.kubelet.control_plane_taints = None;
    assert!(config.refuse_immutable(&other).is_err());
}

#[test]
fn a_change_must_fit_what_is_there_and_names_no_other_datastore() {
    let config = bootstrap("{}").unwrap();
    let refused = config.patched(&change(r#"{"config":{"gateway":{"enabled":true}}}"#));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "updated cluster configuration is not valid: gateway requires network to be enabled"
    );
    for asked in [
        r#"{"datastore":{"servers":["https://10.0.0.1:2379"]}}"#,
        r#"{"datastore":{"client-key":"PEM"}}"#,
    ] {
        assert!(matches!(config.patched(&change(asked)), Err(FleetError::Invalid(_))), "{asked}");
    }
}

#[test]
fn what_a_later_version_wrote_outlives_a_change_by_this_one() {
    let record =
        br#"{"network":{"pod-cidr":"10.1.0.0/16","service-cidr":"10.2.0.0/16"},"later":{"x":1}}"#;
    let config = ClusterConfig::from_bytes(record).unwrap();
    let next = config.patched(&change(r#"{"config":{"dns":{"enabled":true}}}"#)).unwrap();
    assert_eq!(next.rest["later"], serde_json::json!({ "x": 1 }));
    assert!(ClusterConfig::from_bytes(b"[]").is_err());
}
