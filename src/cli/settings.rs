//! From flags to [`Config`]: one assignment a flag.

use super::table::{Standing, rows};
use crate::embed::gates::decided;
use crate::embed::{
    ClusterSettings, Config, DEFAULT_INITIAL_CLUSTER, DiscoverySettings, HOLDER_WAIT, LogSettings,
    MemberSettings, SecuritySettings,
};
use crate::support::flags::FlagSet;
use crate::support::tls::TlsSettings;

/// Every flag of the table, at its default.
pub(super) fn defaults() -> FlagSet {
    let flags = rows().map(super::table::Row::spec);
    let old = super::table::EXPERIMENTAL.iter().map(|(name, twin)| twin.spec(name));
    FlagSet::new(flags.chain(old))
}

/// What the flags say. `from_file` leaves out the rules that etcd has for the command line alone.
pub(super) fn config(flags: &FlagSet, from_file: bool) -> Config {
    let bootstrap_elsewhere = !flags.text("discovery-srv").is_empty()
        || (!from_file && !flags.text("discovery-srv-name").is_empty())
        || !flags.texts("discovery-endpoints").is_empty();
    // A file may name the default without meaning it.
    let told = flags.is_set("initial-cluster")
        && !(from_file && flags.text("initial-cluster") == DEFAULT_INITIAL_CLUSTER);
    let initial_cluster = match bootstrap_elsewhere && !told {
        true => String::new(),
        false => flags.text("initial-cluster"),
    };
    Config {
        cluster: ClusterSettings { initial_cluster, ..cluster(flags) },
        member: member(flags, from_file),
        discovery: discovery(flags),
        security: security(flags, from_file),
        log: LogSettings {
            inherit: false,
            logger: flags.text("logger"),
            level: flags.text("log-level"),
            format: flags.text("log-format"),
            outputs: flags.texts("log-outputs"),
            rotate: flags.bool("enable-log-rotation"),
            rotation: flags.text("log-rotation-config-json"),
        },
    }
}

fn cluster(flags: &FlagSet) -> ClusterSettings {
    ClusterSettings {
        initial_cluster: String::new(),
        initial_state: flags.text("initial-cluster-state"),
        token: flags.text("initial-cluster-token"),
        heartbeat_ms: flags.uint("heartbeat-interval"),
        election_ms: flags.uint("election-timeout"),
        early_first_election: flags.bool("initial-election-tick-advance"),
        pre_vote: flags.bool("pre-vote"),
        strict_reconfig_check: flags.bool("strict-reconfig-check"),
        learners_max: flags.int("max-learners"),
        txn_ops_max: flags.uint("max-txn-ops"),
        request_bytes_max: flags.uint("max-request-bytes"),
        quota_bytes: flags.int("quota-backend-bytes"),
        auto_compaction_mode: flags.text("auto-compaction-mode"),
        auto_compaction_retention: flags.text("auto-compaction-retention"),
        snapshot_count: flags.uint("snapshot-count"),
        snapshot_catchup_entries: flags.uint("snapshot-catchup-entries"),
        compact_hash_check: flags.duration("compact-hash-check-time"),
        auth_token: flags.text("auth-token"),
        auth_token_ttl_s: flags.uint("auth-token-ttl"),
        bcrypt_cost: flags.uint("bcrypt-cost"),
        feature_gates: decided(&flags.text("feature-gates")),
    }
}

fn member(flags: &FlagSet, from_file: bool) -> MemberSettings {
    let silent_advertise =
        !from_file && flags.is_set("listen-client-urls") && !flags.is_set("advertise-client-urls");
    let advertise_client = (!silent_advertise).then(|| flags.urls("advertise-client-urls"));
    MemberSettings {
        holder_wait: HOLDER_WAIT,
        journal_segment_bytes: flags.uint("journal-segment-bytes"),
        base_after_bytes: flags.uint("base-after-bytes"),
        name: flags.text("name"),
        data_dir: flags.text("data-dir"),
        listen_peer: flags.urls("listen-peer-urls"),
        listen_client: flags.urls("listen-client-urls"),
        listen_client_http: flags.urls("listen-client-http-urls"),
        listen_metrics: flags.urls("listen-metrics-urls"),
        advertise_peer: flags.urls("initial-advertise-peer-urls"),
        advertise_client,
        reuse_port: flags.bool("socket-reuse-port"),
        concurrent_streams_max: u32::try_from(flags.uint("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        keepalive_interval: flags.duration("grpc-keepalive-interval"),
        keepalive_timeout: flags.duration("grpc-keepalive-timeout"),
        cors: flags.texts("cors"),
        host_whitelist: flags.texts("host-whitelist"),
        grpc_gateway: flags.bool("enable-grpc-gateway"),
        extensive_metrics: flags.text("metrics") == "extensive",
        watch_progress_interval: flags.duration("watch-progress-notify-interval"),
        corrupt_check: flags.duration("corrupt-check-time"),
        compaction_batch_limit: u64::try_from(flags.int("compaction-batch-limit")).unwrap_or(0),
        compaction_rest: flags
            .is_set("compaction-sleep-interval")
            .then(|| flags.duration("compaction-sleep-interval")),
        bootstrap_defrag_megabytes: flags.uint("bootstrap-defrag-threshold-megabytes"),
        enable_pprof: flags.bool("enable-pprof"),
        force_new_cluster: flags.bool("force-new-cluster"),
        http2_debug: false,
        warn_apply: flags.duration("warning-apply-duration"),
        warn_unary: flags.duration("warning-unary-request-duration"),
    }
}

fn discovery(flags: &FlagSet) -> DiscoverySettings {
    DiscoverySettings {
        srv_domain: flags.text("discovery-srv"),
        srv_name: flags.text("discovery-srv-name"),
        token: flags.text("discovery-token"),
        endpoints: flags.texts("discovery-endpoints"),
        dial_timeout: flags.duration("discovery-dial-timeout"),
        request_timeout: flags.duration("discovery-request-timeout"),
        keepalive_time: flags.duration("discovery-keepalive-time"),
        keepalive_timeout: flags.duration("discovery-keepalive-timeout"),
        insecure_transport: flags.bool("discovery-insecure-transport"),
        insecure_skip_tls_verify: flags.bool("discovery-insecure-skip-tls-verify"),
        cert_file: flags.text("discovery-cert"),
        key_file: flags.text("discovery-key"),
        trusted_ca_file: flags.text("discovery-cacert"),
        user: flags.text("discovery-user"),
        password: flags.text("discovery-password"),
    }
}

fn security(flags: &FlagSet, from_file: bool) -> SecuritySettings {
    SecuritySettings {
        client: TlsSettings {
            cert_file: flags.text("cert-file"),
            key_file: flags.text("key-file"),
            client_cert_file: flags.text("client-cert-file"),
            client_key_file: flags.text("client-key-file"),
            trusted_ca_file: flags.text("trusted-ca-file"),
            client_cert_auth: flags.bool("client-cert-auth"),
            crl_file: flags.text("client-crl-file"),
            allowed_hostnames: flags.texts("client-cert-allowed-hostname"),
            ..TlsSettings::default()
        },
        client_auto: flags.bool("auto-tls"),
        peer: TlsSettings {
            cert_file: flags.text("peer-cert-file"),
            key_file: flags.text("peer-key-file"),
            client_cert_file: flags.text("peer-client-cert-file"),
            client_key_file: flags.text("peer-client-key-file"),
            trusted_ca_file: flags.text("peer-trusted-ca-file"),
            client_cert_auth: flags.bool("peer-client-cert-auth"),
            crl_file: flags.text("peer-crl-file"),
            allowed_common_names: flags.texts("peer-cert-allowed-cn"),
            allowed_hostnames: flags.texts("peer-cert-allowed-hostname"),
            skip_client_san_verification: flags.bool("peer-skip-client-san-verification"),
            ..TlsSettings::default()
        },
        peer_auto: flags.bool("peer-auto-tls"),
        self_signed_years: match flags.uint("self-signed-cert-validity") {
            0 if from_file => 1,
            years => years,
        },
        cipher_suites: flags.texts("cipher-suites"),
        min_version: flags.text("tls-min-version"),
        max_version: flags.text("tls-max-version"),
    }
}

/// Flags that were set to something and do nothing.
pub(super) fn without_effect(flags: &FlagSet) -> Vec<&'static str> {
    let defaults = defaults();
    rows()
        .filter(|row| row.standing == Standing::NoEffect)
        .map(|row| row.name)
        .filter(|name| flags.value(name) != defaults.value(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_configs() {
        assert_eq!(config(&defaults(), false), Config::default());
        assert!(without_effect(&defaults()).is_empty());
    }

    #[test]
    fn listening_without_advertising_is_told_apart() {
        let mut flags = defaults();
        flags.set("listen-client-urls", "http://127.0.0.1:1").unwrap();
        assert_eq!(config(&flags, false).member.advertise_client, None);
        assert!(config(&flags, true).member.advertise_client.is_some());
    }

    #[test]
    fn who_discovers_the_others_has_no_initial_cluster_unless_it_is_given() {
        let mut flags = defaults();
        flags.set("discovery-endpoints", "http://a:1,http://b:1").unwrap();
        flags.set("discovery-user", "root").unwrap();
        let found = config(&flags, false);
        assert_eq!(found.cluster.initial_cluster, "");
        assert_eq!(found.discovery.endpoints, ["http://a:1", "http://b:1"]);
        assert_eq!(found.discovery.user, "root");
        flags.set("initial-cluster", DEFAULT_INITIAL_CLUSTER).unwrap();
        assert_eq!(config(&flags, false).cluster.initial_cluster, DEFAULT_INITIAL_CLUSTER);
        assert_eq!(config(&flags, true).cluster.initial_cluster, "");
        let mut flags = defaults();
        flags.set("discovery-srv", "example.com").unwrap();
        let found = config(&flags, false);
        assert_eq!(
            (found.cluster.initial_cluster, found.discovery.srv_domain.as_str()),
            (String::new(), "example.com")
        );
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let mut flags = defaults();
        flags.set("unsafe-no-fsync", "true").unwrap();
        assert_eq!(without_effect(&flags), ["unsafe-no-fsync"]);
    }
}
