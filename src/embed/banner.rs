//! The lines that say how a server was started; operators and tests read their fields.

use quorate_core::api::ids::MemberId;

use super::config::Config;
use crate::service::version;
use crate::support::go::duration::GoDuration;
use crate::support::spawn::cores;
use crate::support::urls::texts;

/// The quota when none was set.
const DEFAULT_QUOTA_BYTES: i64 = 2 << 30;

fn milliseconds(n: u64) -> String {
    GoDuration::from_millis(i64::try_from(n).unwrap_or(i64::MAX / 1_000_000)).to_string()
}

/// Every setting, before anything is opened.
pub(super) fn starting(config: &Config, restarted: bool, initial_cluster: &str) {
    let (cluster, member) = (&config.cluster, &config.member);
    let gates: Vec<String> =
        cluster.feature_gates.iter().map(|(gate, on)| format!("{gate}={on}")).collect();
    let quota = match cluster.quota_bytes {
        0 => DEFAULT_QUOTA_BYTES,
        set => set,
    };
    // A callsite of tracing takes 32 fields: the rest goes in a second line of the same name.
    tracing::info!(
        "etcd-version" = version::ETCD_VERSION,
        "quorate-version" = version::OWN_VERSION,
        "git-sha" = version::COMMIT,
        "go-os" = std::env::consts::OS,
        "go-arch" = version::architecture(),
        "max-cpu-available" = cores(),
        "member-initialized" = restarted,
        name = member.name,
        "data-dir" = member.data_dir,
        "member-dir" = format!("{}/member", member.data_dir),
        "heartbeat-interval" = milliseconds(cluster.heartbeat_ms),
        "election-timeout" = milliseconds(cluster.election_ms),
        "initial-election-tick-advance" = cluster.early_first_election,
        "snapshot-count" = cluster.snapshot_count,
        "snapshot-catchup-entries" = cluster.snapshot_catchup_entries,
        "initial-advertise-peer-urls" = ?texts(&member.advertise_peer),
        "listen-peer-urls" = ?texts(&member.listen_peer),
        "advertise-client-urls" = ?texts(member.advertise_client.as_deref().unwrap_or_default()),
        "listen-client-urls" = ?texts(&member.listen_client),
        "listen-metrics-urls" = ?texts(&member.listen_metrics),
        cors = ?member.cors,
        "host-whitelist" = ?member.host_whitelist,
        "initial-cluster" = initial_cluster,
        "initial-cluster-state" = cluster.initial_state,
        "initial-cluster-token" = cluster.token,
        "quota-backend-bytes" = quota,
        "max-request-bytes" = cluster.request_bytes_max,
        "max-concurrent-streams" = member.concurrent_streams_max,
        "pre-vote" = cluster.pre_vote,
        "feature-gates" = gates.join(","),
        "v2-deprecation" = "write-only",
        "starting an etcd server"
    );
    let discovery = &config.discovery;
    tracing::info!(
        "discovery-token" = discovery.token,
        "discovery-endpoints" = discovery.endpoints.join(","),
        "discovery-srv" = discovery.srv_domain,
        "compact-check-time-interval" = %cluster.compact_hash_check,
        "auto-compaction-mode" = cluster.auto_compaction_mode,
        "auto-compaction-retention" = cluster.auto_compaction_retention,
        "max-learners" = cluster.learners_max,
        "force-new-cluster" = member.force_new_cluster,
        "warning-unary-request-duration" = %member.warn_unary,
        "watch-progress-notify-interval" = %member.watch_progress_interval,
        "starting an etcd server: further settings"
    );
}

/// Who serves where.
pub(super) fn serving(config: &Config, id: MemberId) {
    let member = &config.member;
    tracing::info!(
        "local-member-id" = %id,
        "initial-advertise-peer-urls" = ?texts(&member.advertise_peer),
        "listen-peer-urls" = ?texts(&member.listen_peer),
        "advertise-client-urls" = ?texts(member.advertise_client.as_deref().unwrap_or_default()),
        "listen-client-urls" = ?texts(&member.listen_client),
        "listen-metrics-urls" = ?texts(&member.listen_metrics),
        "now serving peer/client/metrics"
    );
}
