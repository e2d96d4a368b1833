//! What a server is started with: what all members must agree on apart from what may differ.
//!
//! ```text
//!   Config (fields, etcd's defaults) ── build ──> Built (checked, with a logger) ── Server::spawn ──> handle
//! ```
//!
//! **Invariant:** no port is bound and no file opened before [`super::Server::spawn`], log files aside.

use std::collections::BTreeMap;
use std::time::Duration;

use super::discovery::DiscoverySettings;
use crate::support::go::duration::GoDuration;
use crate::support::tls::TlsSettings;
use crate::support::urls::{Url, parse_list};

/// How long a start waits for another process to leave the data directory.
pub const HOLDER_WAIT: Duration = Duration::from_secs(10);

/// A server's settings; [`Config::default`] has etcd's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What every member of the cluster must be started with alike.
    pub cluster: ClusterSettings,
    /// What is this member's own.
    pub member: MemberSettings,
    /// How the other first members are found, where the initial cluster does not list them.
    pub discovery: DiscoverySettings,
    /// Certificates, of clients and of peers.
    pub security: SecuritySettings,
    /// Where log lines go.
    pub log: LogSettings,
}

/// Settings that all members must agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// The first members, as `name=url,name=url`; empty where they are discovered.
    pub initial_cluster: String,
    /// `new` or `existing`.
    pub initial_state: String,
    /// Tells clusters apart that were begun with the same members.
    pub token: String,
    /// `--heartbeat-interval` in milliseconds.
    pub heartbeat_ms: u64,
    /// `--election-timeout` in milliseconds.
    pub election_ms: u64,
    /// `--initial-election-tick-advance`.
    pub early_first_election: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub learners_max: i64,
    /// `--max-txn-ops`.
    pub txn_ops_max: u64,
    /// `--max-request-bytes`.
    pub request_bytes_max: u64,
    /// `--quota-backend-bytes`: 0 is 2 GiB, below 0 is none.
    pub quota_bytes: i64,
    /// `periodic` or `revision`.
    pub auto_compaction_mode: String,
    /// A duration, or a number of hours or revisions; `0` is never.
    pub auto_compaction_retention: String,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub snapshot_catchup_entries: u64,
    /// `--compact-hash-check-time`.
    pub compact_hash_check: GoDuration,
    /// `--auth-token`: `simple`, or `jwt` with its options.
    pub auth_token: String,
    /// `--auth-token-ttl` in seconds.
    pub auth_token_ttl_s: u64,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u64,
    /// Feature gates that were decided, by name.
    pub feature_gates: BTreeMap<String, bool>,
}

/// Settings of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberSettings {
    /// How long a start waits for another process to leave the data directory.
    pub holder_wait: Duration,
    /// `--journal-segment-bytes`.
    pub journal_segment_bytes: u64,
    /// `--base-after-bytes`.
    pub base_after_bytes: u64,
    /// `--name`.
    pub name: String,
    /// `--data-dir`; empty for `<name>.etcd`.
    pub data_dir: String,
    /// `--listen-peer-urls`.
    pub listen_peer: Vec<Url>,
    /// `--listen-client-urls`.
    pub listen_client: Vec<Url>,
    /// `--listen-client-http-urls`; when there are any, the client URLs serve gRPC alone.
    pub listen_client_http: Vec<Url>,
    /// `--listen-metrics-urls`.
    pub listen_metrics: Vec<Url>,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peer: Vec<Url>,
    /// `--advertise-client-urls`; `None` when listening was set and this was not, which is refused.
    pub advertise_client: Option<Vec<Url>>,
    /// `--socket-reuse-port`.
    pub reuse_port: bool,
    /// `--max-concurrent-streams`.
    pub concurrent_streams_max: u32,
    /// `--grpc-keepalive-interval`; zero for none.
    pub keepalive_interval: GoDuration,
    /// `--grpc-keepalive-timeout`.
    pub keepalive_timeout: GoDuration,
    /// `--cors`; `*` or nothing for all.
    pub cors: Vec<String>,
    /// `--host-whitelist`; `*` or nothing for all.
    pub host_whitelist: Vec<String>,
    /// `--enable-grpc-gateway`.
    pub grpc_gateway: bool,
    /// `--metrics=extensive`.
    pub extensive_metrics: bool,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_interval: GoDuration,
    /// `--corrupt-check-time`; zero for never.
    pub corrupt_check: GoDuration,
    /// `--compaction-batch-limit`; zero for etcd's default.
    pub compaction_batch_limit: u64,
    /// `--compaction-sleep-interval`, if it was set.
    pub compaction_rest: Option<GoDuration>,
    /// `--bootstrap-defrag-threshold-megabytes`; zero for never.
    pub bootstrap_defrag_megabytes: u64,
    /// `--enable-pprof`.
    pub enable_pprof: bool,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `GODEBUG=http2debug=1`: header fields of HTTP/2 requests are written to stderr.
    pub http2_debug: bool,
    /// `--warning-apply-duration`.
    pub warn_apply: GoDuration,
    /// `--warning-unary-request-duration`; zero for etcd's 300 ms.
    pub warn_unary: GoDuration,
}

/// TLS of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct SecuritySettings {
    /// For clients and metrics.
    pub client: TlsSettings,
    /// `--auto-tls`.
    pub client_auto: bool,
    /// For members, who connect and are dialled.
    pub peer: TlsSettings,
    /// `--peer-auto-tls`.
    pub peer_auto: bool,
    /// `--self-signed-cert-validity`, in years.
    pub self_signed_years: u64,
    /// `--cipher-suites`, by Go's names; empty for all.
    pub cipher_suites: Vec<String>,
    /// `--tls-min-version`; empty for TLS1.2.
    pub min_version: String,
    /// `--tls-max-version`; empty for the newest.
    pub max_version: String,
}

impl Default for SecuritySettings {
    fn default() -> Self {
        SecuritySettings {
            client: TlsSettings::default(),
            client_auto: false,
            peer: TlsSettings::default(),
            peer_auto: false,
            self_signed_years: 1,
            cipher_suites: Vec::new(),
            min_version: "TLS1.2".to_owned(),
            max_version: String::new(),
        }
    }
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// Speak to the tracing subscriber of whoever embeds us, and leave the rest of these alone.
    pub inherit: bool,
    /// `--logger`: only `zap`.
    pub logger: String,
    /// `--log-level`.
    pub level: String,
    /// `--log-format`.
    pub format: String,
    /// `--log-outputs`.
    pub outputs: Vec<String>,
    /// `--enable-log-rotation`.
    pub rotate: bool,
    /// `--log-rotation-config-json`.
    pub rotation: String,
}

/// `--log-rotation-config-json` if it is not set.
pub const DEFAULT_LOG_ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

fn urls(text: &str) -> Vec<Url> {
    parse_list(text).expect("etcd's default URLs are URLs")
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            initial_cluster: DEFAULT_INITIAL_CLUSTER.to_owned(),
            initial_state: "new".to_owned(),
            token: "etcd-cluster".to_owned(),
            heartbeat_ms: 100,
            election_ms: 1000,
            early_first_election: true,
            pre_vote: true,
            strict_reconfig_check: true,
            learners_max: 1,
            txn_ops_max: 128,
            request_bytes_max: 3 * 512 * 1024,
            quota_bytes: 0,
            auto_compaction_mode: "periodic".to_owned(),
            auto_compaction_retention: "0".to_owned(),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            compact_hash_check: GoDuration::from_secs(60),
            auth_token: "simple".to_owned(),
            auth_token_ttl_s: 300,
            bcrypt_cost: 10,
            feature_gates: BTreeMap::new(),
        }
    }
}

/// The initial cluster of a member that was told nothing.
pub const DEFAULT_INITIAL_CLUSTER: &str = "default=http://localhost:2380";

/// The name of a member that was told none.
pub const DEFAULT_NAME: &str = "default";

impl Default for MemberSettings {
    fn default() -> Self {
        MemberSettings {
            holder_wait: HOLDER_WAIT,
            journal_segment_bytes: 64 << 20,
            base_after_bytes: 64 << 20,
            name: DEFAULT_NAME.to_owned(),
            data_dir: String::new(),
            listen_peer: urls("http://localhost:2380"),
            listen_client: urls("http://localhost:2379"),
            listen_client_http: Vec::new(),
            listen_metrics: Vec::new(),
            advertise_peer: urls("http://localhost:2380"),
            advertise_client: Some(urls("http://localhost:2379")),
            reuse_port: false,
            concurrent_streams_max: u32::MAX,
            keepalive_interval: GoDuration::from_secs(7200),
            keepalive_timeout: GoDuration::from_secs(20),
            cors: vec!["*".to_owned()],
            host_whitelist: vec!["*".to_owned()],
            grpc_gateway: true,
            extensive_metrics: false,
            watch_progress_interval: GoDuration::from_secs(600),
            corrupt_check: GoDuration::from_secs(0),
            compaction_batch_limit: 1000,
            compaction_rest: None,
            bootstrap_defrag_megabytes: 0,
            enable_pprof: false,
            force_new_cluster: false,
            http2_debug: false,
            warn_apply: GoDuration::from_millis(100),
            warn_unary: GoDuration::from_millis(300),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            inherit: false,
            logger: "zap".to_owned(),
            level: "info".to_owned(),
            format: "json".to_owned(),
            outputs: vec!["default".to_owned()],
            rotate: false,
            rotation: DEFAULT_LOG_ROTATION.to_owned(),
        }
    }
}

impl Config {
    /// `name=url` for each advertised peer URL: what the initial cluster is when only a name is given.
    pub fn initial_cluster_from_name(&self) -> String {
        let name = match self.member.name.as_str() {
            "" => DEFAULT_NAME,
            name => name,
        };
        let pairs: Vec<String> =
            self.member.advertise_peer.iter().map(|url| format!("{name}={url}")).collect();
        pairs.join(",")
    }
}
