//! `/health`, `/livez`, `/readyz` (etcd `server/etcdserver/api/etcdhttp/health.go`).

use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use quorate_core::api::pb::etcdserverpb::AlarmType;

use super::query::values;
use super::{Answer, Probe, error, plain};
use crate::service::metrics::ServerMetrics;
use crate::support::go::quote::quote;

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, probe: &dyn Probe) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let corrupt =
                    probe.alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt);
                if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
            }
            Check::SerializableRead => probe.read(true).await,
            Check::LinearizableRead => probe.read(false).await,
            Check::NonLearner if probe.is_learner() => Err("not supported for learner".to_owned()),
            Check::NonLearner => Ok(()),
        }
    }
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// What a path asks for.
#[derive(Debug)]
pub(super) struct Asked {
    path: String,
    kind: &'static str,
    checks: Vec<Check>,
    /// A path that names one check knows no exclusions.
    all: bool,
}

/// The checks of `/livez`, `/readyz`, or of one below them.
pub(super) fn find(path: &str) -> Option<Asked> {
    let (kind, checks, rest) = if let Some(rest) = path.strip_prefix("/livez") {
        ("livez", &LIVEZ[..], rest)
    } else {
        ("readyz", &READYZ[..], path.strip_prefix("/readyz")?)
    };
    let checks: Vec<Check> = match rest.strip_prefix('/') {
        None if rest.is_empty() => checks.to_vec(),
        None => return None,
        Some(name) => vec![*checks.iter().find(|check| check.name() == name)?],
    };
    Some(Asked { path: path.to_owned(), kind, checks, all: rest.is_empty() })
}

/// Runs what was asked for.
pub(super) async fn check(
    probe: &dyn Probe,
    metrics: &ServerMetrics,
    asked: &Asked,
    uri: &Uri,
) -> Answer {
    let excluded = if asked.all { exclusions(uri) } else { Vec::new() };
    let missing: Vec<String> = excluded
        .iter()
        .filter(|name| !asked.checks.iter().any(|check| check.name() == name.as_str()))
        .map(|name| quote(name))
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        tracing::warn!("missing-health-checks" = missing, "some health checks cannot be excluded");
    }
    let mut report = String::new();
    let mut failed = false;
    for check in &asked.checks {
        let name = check.name();
        if excluded.iter().any(|excluded| excluded == name) {
            continue;
        }
        let outcome = check.run(probe).await;
        let word = if outcome.is_ok() { "success" } else { "error" };
        metrics.check_result.with_label_values(&[asked.kind, name]).set(outcome.is_ok().into());
        metrics.checks.with_label_values(&[asked.kind, name, word]).inc();
        match outcome {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                failed = true;
                report.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    if failed {
        let path = &asked.path;
        tracing::error!(path, reason = report, "status-code" = 503, "Health check error");
        return error(StatusCode::SERVICE_UNAVAILABLE, report);
    }
    if values(uri.query(), "verbose").is_empty() {
        report.clear();
    }
    report.push_str("ok\n");
    let mut answer = plain(StatusCode::OK, report);
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// `/health`: alarms, then the leader, then a read.
pub(super) async fn health(probe: &dyn Probe, metrics: &ServerMetrics, uri: &Uri) -> Answer {
    let serializable =
        values(uri.query(), "serializable").first().is_some_and(|value| value == "true");
    let reason = unhealthy(probe, serializable, &exclusions(uri)).await;
    let Some(reason) = reason else {
        metrics.health_success.inc();
        return plain(StatusCode::OK, told(true, ""));
    };
    metrics.health_failures.inc();
    let output = told(false, &reason);
    tracing::warn!(output, "status-code" = 503, "/health error");
    error(StatusCode::SERVICE_UNAVAILABLE, output)
}

async fn unhealthy(probe: &dyn Probe, serializable: bool, excluded: &[String]) -> Option<String> {
    let alarms = probe.alarms();
    let standing = alarms
        .iter()
        .map(|alarm| alarm.alarm())
        .find(|alarm| !excluded.iter().any(|name| name == alarm.as_str_name()));
    match standing {
        Some(AlarmType::Nospace) => return Some("ALARM NOSPACE".to_owned()),
        Some(AlarmType::Corrupt) => return Some("ALARM CORRUPT".to_owned()),
        Some(AlarmType::None) => return Some("ALARM UNKNOWN".to_owned()),
        None => {}
    }
    if !serializable && !probe.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    probe.read(serializable).await.err().map(|why| format!("RANGE ERROR:{why}"))
}

pub(in crate::service) fn told(healthy: bool, reason: &str) -> String {
    let reason = serde_json::Value::String(reason.to_owned());
    format!("{{\"health\":\"{healthy}\",\"reason\":{reason}}}")
}

fn exclusions(uri: &Uri) -> Vec<String> {
    values(uri.query(), "exclude").into_iter().filter(|name| !name.is_empty()).collect()
}
