//! openraft's settings, from etcd's two timings.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::error::StartError;

/// Runs `life` with openraft's chance (election timeouts) drawn from `seed`.
#[cfg(feature = "simulation")]
pub fn seeded<F: Future>(seed: u64, life: F) -> impl Future<Output = F::Output> {
    super::types::Runtime::scope(seed, life)
}

/// How a group keeps time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// etcd's election timeout T. A member campaigns 1.5 to 2 T after it last heard the leader: openraft adds a
    /// sample of T/2..T to its lease of T.
    pub election_timeout: Duration,
}

/// The settings, checked. Values other than openraft's defaults each have their reason.
pub(crate) fn config(name: String, timing: Timing) -> Result<Arc<Config>, StartError> {
    let election = millis(timing.election_timeout);
    let config = Config {
        cluster_name: name,
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: election / 2,
        election_timeout_max: election,
        quorum_loss_probe_interval: Some(2 * election),
        // A member that was cut off must not raise the term when it returns (etcd: PreVote).
        enable_pre_vote: Some(true),
        // A restarted leader would go on leading with whatever state it has; it must win an election.
        enable_leader_restore: Some(false),
        // Bases are storage's: made by bytes written, named in the journal, then purged up to.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        // Packed entries are up to a mebibyte each: bytes, not their count, bound a message.
        max_payload_entries: 64,
        max_append_entries: Some(64),
        install_snapshot_timeout: 600_000,
        ..Config::default()
    };
    let config = config.validate().map_err(|error| StartError::Settings(error.to_string()))?;
    Ok(Arc::new(config))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_defaults_and_slow_networks_make_valid_settings() {
        for (heartbeat, election) in [(100, 1000), (10, 50), (500, 5000), (1000, 50_000)] {
            let timing = Timing {
                heartbeat: Duration::from_millis(heartbeat),
                election_timeout: Duration::from_millis(election),
            };
            config("g0".to_owned(), timing).unwrap();
        }
    }
}
