//! `grpc_server_*`: how often each method was called, how it ended, how many messages went each way.

use std::collections::HashMap;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::methods::{Flow, Method, counted, uncounted};
use crate::support::metrics::Metrics;

/// The codes, by number, as grpc-prometheus writes them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Counters of all methods.
#[derive(Debug)]
pub(crate) struct GrpcCounts {
    methods: HashMap<String, MethodCounts>,
    requests: IntCounterVec,
    /// Bytes of messages that clients sent.
    pub(crate) received_bytes: IntCounter,
    /// Bytes of messages that clients got.
    pub(crate) sent_bytes: IntCounter,
}

/// Counters of one method.
#[derive(Clone, Debug)]
pub(crate) struct MethodCounts {
    /// How its messages flow.
    pub(crate) flow: Flow,
    /// Its full name, for the log.
    pub(crate) path: String,
    labels: [&'static str; 3],
    started: IntCounter,
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
    handled: IntCounterVec,
    seconds: Option<HistogramVec>,
}

impl GrpcCounts {
    /// Registers them all; `extensive` adds the histogram of times.
    pub(crate) fn new(metrics: &Metrics, extensive: bool) -> GrpcCounts {
        let three = ["grpc_type", "grpc_service", "grpc_method"];
        let four = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
        let started = metrics.counters(
            "grpc_server_started_total",
            "Total number of RPCs started on the server.",
            &three,
        );
        let received = metrics.counters(
            "grpc_server_msg_received_total",
            "Total number of RPC stream messages received on the server.",
            &three,
        );
        let sent = metrics.counters(
            "grpc_server_msg_sent_total",
            "Total number of gRPC stream messages sent by the server.",
            &three,
        );
        let handled = metrics.counters(
            "grpc_server_handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            &four,
        );
        let seconds = extensive.then(|| handling_seconds(metrics, &three));
        let mut methods = HashMap::new();
        for (method, shown) in counted().map(|m| (m, true)).chain(uncounted().map(|m| (m, false))) {
            let Method { service, name, flow } = method;
            let labels = [flow.word(), service, name];
            if shown {
                for code in CODES {
                    handled.with_label_values(&[labels[0], labels[1], labels[2], code]);
                }
            }
            let path = format!("/{service}/{name}");
            let counts = MethodCounts {
                flow,
                path: path.clone(),
                labels,
                started: started.with_label_values(&labels),
                received: received.with_label_values(&labels),
                sent: sent.with_label_values(&labels),
                handled: handled.clone(),
                seconds: seconds.clone(),
            };
            methods.insert(path, counts);
        }
        GrpcCounts {
            methods,
            requests: metrics.counters(
                "etcd_server_client_requests_total",
                "The total number of client requests per client version.",
                &["type", "client_api_version"],
            ),
            received_bytes: metrics.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
            ),
            sent_bytes: metrics.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.",
            ),
        }
    }

    /// The counters of `/service/Method`, if etcd has such a method.
    pub(crate) fn method(&self, path: &str) -> Option<&MethodCounts> {
        self.methods.get(path)
    }

    /// Counts a request by the version of the client's API.
    pub(crate) fn request(&self, flow: Flow, version: &str) {
        let kind = match flow {
            Flow::Unary => "unary",
            Flow::ServerStream | Flow::BidiStream => "stream",
        };
        self.requests.with_label_values(&[kind, version]).inc();
    }
}

fn handling_seconds(metrics: &Metrics, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(
        "grpc_server_handling_seconds",
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by \
         the server.",
    );
    let seconds = HistogramVec::new(options, labels).expect("the name stands here once");
    metrics.add(seconds.clone());
    seconds
}

impl MethodCounts {
    pub(crate) fn start(&self) {
        self.started.inc();
    }

    /// The call ended with this code after so many seconds.
    pub(crate) fn end(&self, code: tonic::Code, seconds: f64) {
        let [flow, service, name] = self.labels;
        let code = CODES.get(code as usize).copied().unwrap_or("Unknown");
        self.handled.with_label_values(&[flow, service, name, code]).inc();
        if let Some(histogram) = &self.seconds {
            histogram.with_label_values(&self.labels).observe(seconds);
        }
    }
}
