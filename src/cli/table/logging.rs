//! Flags of log lines, metrics, profiling and tracing.

use super::{Group, Row};
use crate::embed::DEFAULT_LOG_ROTATION;
use crate::support::flags::Kind;

const fn log(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Logging, name, kind, default)
}

const fn monitor(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Group::Monitoring, name, kind, default)
}

pub(super) const ROWS: [Row; 16] = [
    log("logger", Kind::Text, "zap")
        .help("The only logger is 'zap': structured lines as etcd writes them."),
    log("log-outputs", Kind::UniqueTexts, "default")
        .help("Where lines go: 'default' (which is stderr), 'stderr', 'stdout', 'systemd/journal' or files."),
    log("log-level", Kind::Text, "info")
        .help("The least level written: debug, info, warn, error, dpanic, panic or fatal."),
    log("log-format", Kind::Text, "json").help("How lines are written: json or console."),
    log("enable-log-rotation", Kind::Bool, "false")
        .help("Move the log file aside when it is full. --log-outputs must name one file."),
    log("log-rotation-config-json", Kind::Text, DEFAULT_LOG_ROTATION)
        .help("When a log file is full, and which of those moved aside are kept: MiB, days, number."),
    log("warning-unary-request-duration", Kind::Duration, "300ms")
        .help("A request that takes longer is logged."),
    monitor("enable-pprof", Kind::Bool, "false")
        .help("/debug/pprof then says that there is no Go runtime to profile."),
    monitor("metrics", Kind::Text, "basic")
        .help("'extensive' adds a histogram of the time of every gRPC method."),
    monitor("listen-metrics-urls", Kind::Urls { allowed: &[""] }, "")
        .help("Further URLs that serve only metrics and health."),
    monitor("enable-distributed-tracing", Kind::Bool, "false")
        .no_effect()
        .help("No effect: there are no OpenTelemetry traces."),
    monitor("distributed-tracing-address", Kind::Text, "localhost:4317")
        .silent()
        .help("Where traces would go."),
    monitor("distributed-tracing-service-name", Kind::Text, "etcd")
        .silent()
        .help("Under which name traces would go."),
    monitor("distributed-tracing-instance-id", Kind::Text, "")
        .silent()
        .help("Under which instance traces would go."),
    monitor("distributed-tracing-sampling-rate", Kind::Int, "0")
        .silent()
        .help("How many of a million spans would be traced."),
    monitor("version", Kind::Bool, "false")
        .key(super::Key::None)
        .help("Print the version and exit."),
];
