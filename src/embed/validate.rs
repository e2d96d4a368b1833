//! Which settings do not go together, in etcd's words (etcd `server/embed/config.go`, `Validate`).

use std::net::IpAddr;

use super::config::{Config, DEFAULT_NAME, LogSettings};
use super::gates::is_on;
use super::secure::version_fault;
use crate::host::DiskSizes;
use crate::keyspace::{AutoCompaction, request_bytes_max};
use crate::support::go::duration::GoDuration;
use crate::support::go::quote::quote;
use crate::support::telemetry::{Format, Output, Rotation, Severity};
use crate::support::urls::{Url, split_host_port, texts};

/// `--advertise-client-urls` is missing. Told apart from the others because the command line says more about it.
pub const ADVERTISE_MISSING: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// The journal of systemd, among `--log-outputs`.
const JOURNAL: &str = "systemd/journal";

const ELECTION_MS_MAX: u64 = 50_000;

/// The log's settings, read.
pub(super) struct LogPlan {
    pub(super) level: Severity,
    pub(super) format: Format,
    pub(super) outputs: Vec<Output>,
}

/// Reads the log's settings; etcd does this before it looks at anything else.
pub(super) fn log_plan(config: &Config) -> Result<LogPlan, String> {
    let log = &config.log;
    match log.logger.as_str() {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
        other => return Err(format!("unknown logger option {}", quote(other))),
    }
    if log.outputs.len() > 1 && log.outputs.iter().any(|o| o == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".to_owned());
    }
    let rotation = if log.rotate { Some(rotation(log)?) } else { None };
    let outputs = outputs(log, rotation.as_ref())?;
    let level = Severity::parse(&log.level)
        .ok_or_else(|| format!("unrecognized level: {}", quote(&log.level)))?;
    let format = match log.format.as_str() {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => {
            return Err(format!("unknown log format: {other}, supported values json, console"));
        }
    };
    Ok(LogPlan { level, format, outputs })
}

fn outputs(log: &LogSettings, rotation: Option<&Rotation>) -> Result<Vec<Output>, String> {
    let mut outputs = Vec::new();
    for output in &log.outputs {
        outputs.push(match (output.as_str(), rotation) {
            ("default" | "stderr" | "", _) => Output::Stderr,
            ("stdout", _) => Output::Stdout,
            (JOURNAL, _) => Output::Journald,
            (path, Some(rotation)) => Output::Rotating(path.to_owned(), rotation.clone()),
            (path, None) => Output::File(path.to_owned()),
        });
    }
    if outputs.is_empty() {
        outputs.push(Output::Stderr);
    }
    if outputs.contains(&Output::Journald) {
        if outputs.len() > 1 {
            return Err(format!(
                "running with systemd/journal but other '--log-outputs' values ({}) are configured \
                 with 'default'; override 'default' value with something else",
                quoted(&log.outputs)
            ));
        }
        return Ok(vec![Output::Journald]);
    }
    Ok(outputs)
}

/// A list of strings as Go's `%q` writes it.
fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))
}

/// Exactly one file can be rotated (etcd `server/embed/config_logging.go`, `setupLogRotation`).
fn rotation(log: &LogSettings) -> Result<Rotation, String> {
    let plain = |output: &&String| !matches!(output.as_str(), "default" | "stderr" | "stdout");
    let files = log.outputs.iter().filter(plain).count();
    if files > 1 || (files == 0 && log.outputs.len() == 1) {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is \
                    defined"
            .to_owned());
    }
    Rotation::parse(&log.rotation)
}

/// Every fault, in the order in which etcd looks for them; none if the settings can be started with.
/// Warnings go to the log as it looks.
pub(super) fn faults(config: &Config) -> Vec<String> {
    let member = &config.member;
    let mut faults = Vec::new();
    faults.extend(bind_fault(&member.listen_peer));
    faults.extend(bind_fault(&member.listen_client));
    faults.extend(bind_fault(&member.listen_client_http));
    if faults.is_empty() && member.listen_client_http.is_empty() {
        tracing::warn!(
            "Running http and grpc server on single port. This is not recommended for production."
        );
    }
    faults.extend(bind_fault(&member.listen_metrics));
    faults.extend(advertise_faults(config));
    faults.extend(config.discovery.faults(&config.cluster.initial_cluster));
    faults.extend(timing_faults(config));
    if member.advertise_client.is_none() {
        faults.push(ADVERTISE_MISSING.to_owned());
    }
    faults.extend(compaction_fault(config));
    faults.extend(gate_fault(config));
    faults.extend(request_fault(config));
    if config.cluster.compact_hash_check.0 <= 0 {
        let set = config.cluster.compact_hash_check;
        faults.push(format!("--compact-hash-check-time must be >0 (set to {set})"));
    }
    if faults.is_empty() && member.name == DEFAULT_NAME {
        tracing::warn!(
            name = member.name,
            "it isn't recommended to use default name, please set a value for --name. Note that etcd \
             might run into issue when multiple members have the same default name"
        );
    }
    faults.extend(version_fault(&config.security));
    faults
}

/// A request is one entry of the journal, and that has a longest one.
fn request_fault(config: &Config) -> Option<String> {
    let asked = config.cluster.request_bytes_max;
    let sizes = DiskSizes {
        segment_bytes: config.member.journal_segment_bytes,
        base_after_bytes: config.member.base_after_bytes,
    };
    let most = request_bytes_max(sizes.entry_bytes_max()) as u64;
    let text = || {
        format!(
            "--max-request-bytes {asked} is more than journal segments of {} bytes can take: at most \
             {most}; lower it, or raise --journal-segment-bytes",
            sizes.segment()
        )
    };
    (asked > most).then(text)
}

/// Listening is on addresses, never on names that may move.
fn bind_fault(urls: &[Url]) -> Option<String> {
    urls.iter().filter(|url| !url.is_unix()).find_map(|url| match split_host_port(&url.host) {
        Err(why) => Some(why),
        Ok((host, _)) if host == "localhost" || host.parse::<IpAddr>().is_ok() => None,
        Ok(_) => Some(format!("expected IP in URL for binding ({url})")),
    })
}

fn host_fault(urls: &[Url]) -> Option<String> {
    urls.iter().filter(|url| !url.is_unix()).find_map(|url| match split_host_port(&url.host) {
        Err(why) => Some(why),
        Ok((host, _)) if host.is_empty() => Some(format!("unexpected empty host ({url})")),
        Ok(_) => None,
    })
}

fn advertise_faults(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let peers = &config.member.advertise_peer;
    if let Some(why) = host_fault(peers) {
        let listed = quote(&texts(peers).join(","));
        faults
            .push(format!("--initial-advertise-peer-urls {listed} must be \"host:port\" ({why})"));
    }
    let clients = config.member.advertise_client.as_deref().unwrap_or_default();
    if let Some(why) = host_fault(clients) {
        let listed = quote(&texts(clients).join(","));
        faults.push(format!(
            "--advertise-client-urls {listed} must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
        ));
    }
    let state = &config.cluster.initial_state;
    if state != "new" && state != "existing" {
        faults.push(format!("unexpected clusterState {}", quote(state)));
    }
    faults
}

fn timing_faults(config: &Config) -> Vec<String> {
    let (heartbeat, election) = (config.cluster.heartbeat_ms, config.cluster.election_ms);
    let mut faults = Vec::new();
    if heartbeat == 0 {
        faults.push(format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)"));
    }
    if election == 0 {
        faults.push(format!("--election-timeout must be >0 (set to {election}ms)"));
    }
    if heartbeat.saturating_mul(5) > election {
        faults.push(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MS_MAX {
        faults.push(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_MS_MAX}ms"
        ));
    }
    faults
}

fn compaction_fault(config: &Config) -> Option<String> {
    match config.cluster.auto_compaction_mode.as_str() {
        "revision" | "periodic" => None,
        "" => Some("undefined auto-compaction-mode".to_owned()),
        other => Some(format!("unknown auto-compaction-mode {}", quote(other))),
    }
}

fn gate_fault(config: &Config) -> Option<String> {
    let gates = &config.cluster.feature_gates;
    let checkpoint = is_on(gates, "LeaseCheckpoint");
    let persist = is_on(gates, "LeaseCheckpointPersist");
    if checkpoint && !persist {
        tracing::warn!(
            "Detected that checkpointing is enabled without persistence. Consider enabling feature \
             gate LeaseCheckpointPersist"
        );
    }
    (persist && !checkpoint).then(|| {
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
            .to_owned()
    })
}

/// Listeners that cannot be. etcd only finds these when it starts.
pub(super) fn listener_faults(config: &Config) -> Vec<String> {
    let member = &config.member;
    let mut faults = Vec::new();
    for url in &member.listen_client_http {
        if member.listen_client.iter().any(|client| client.host == url.host) {
            faults.push(format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same \
                 url {url}"
            ));
        }
    }
    faults
}

/// `--auto-compaction-*`, read; a fault here is only told once the listeners are up, as in etcd.
pub(super) fn auto_compaction(config: &Config) -> Result<Option<AutoCompaction>, String> {
    let retention = match config.cluster.auto_compaction_retention.as_str() {
        "" => "0",
        text => text,
    };
    let revisions = config.cluster.auto_compaction_mode == "revision";
    let amount = match retention.parse::<i64>() {
        Ok(hours) if hours >= 0 && !revisions => GoDuration::from_secs(hours.saturating_mul(3600)),
        Ok(count) if count >= 0 => GoDuration(count),
        _ => GoDuration::parse(retention).ok_or_else(|| {
            format!("error parsing CompactionRetention: {}", GoDuration::complaint(retention))
        })?,
    };
    Ok(match amount.0 {
        ..=0 => None,
        count if revisions => Some(AutoCompaction::Revision(count)),
        _ => Some(AutoCompaction::Periodic(amount.to_std())),
    })
}
