//! `/debug/vars` as Go's expvar prints it, and why there is no `/debug/pprof`.

use http::StatusCode;

use super::{Answer, Probe, error, with_type};

/// Facts of this member, one a line (etcd `server/etcdserver/api/etcdhttp/debug.go`).
pub(super) fn vars(probe: &dyn Probe) -> Answer {
    let lines: Vec<String> =
        probe.vars().into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
    with_type(StatusCode::OK, "application/json; charset=utf-8", text)
}

/// It was asked for with `--enable-pprof`, and cannot be.
pub(in crate::service) fn no_pprof() -> Answer {
    let text = "pprof profiles the Go runtime, and there is none in this process: use perf(1)";
    error(StatusCode::NOT_IMPLEMENTED, text.to_owned())
}
