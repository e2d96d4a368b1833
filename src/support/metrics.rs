//! A metrics registry of one server, and what of it repeats: buckets, and the process's own figures.
//!
//! Each server has its own [`prometheus::Registry`]; nothing is registered process-wide.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::clock::unix_micros;

/// One server's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

const ONCE: &str = "a name of the metrics table stands there once";

impl Metrics {
    /// A counter from zero.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(ONCE);
        self.add(counter.clone());
        counter
    }

    /// Counters told apart by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.add(counters.clone());
        counters
    }

    /// A gauge at zero.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(ONCE);
        self.add(gauge.clone());
        gauge
    }

    /// Gauges told apart by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.add(gauges.clone());
        gauges
    }

    /// Anything else that collects.
    pub fn add(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect(ONCE);
    }

    /// Everything, in Prometheus's text format.
    pub fn text(&self) -> String {
        with_gos_bounds(
            &TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default(),
        )
    }
}

/// Upper bounds of buckets are labels, so they are compared as text by whoever asks for one: spelled as Go does it, with
/// an exponent from a million on (`strconv.FormatFloat(bound, 'g', -1, 64)`).
fn with_gos_bounds(text: &str) -> String {
    const BOUND: &str = "le=\"";
    let mut parts = text.split(BOUND);
    let mut out = String::with_capacity(text.len());
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        out.push_str(BOUND);
        let (bound, rest) = part.split_once('"').unwrap_or((part, ""));
        match bound.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 1e6 => {
                let spelled = format!("{number:e}");
                let (digits, exponent) = spelled.split_once('e').unwrap_or((bound, "0"));
                out.push_str(&format!("{digits}e+{exponent:0>2}"));
            }
            Ok(_) | Err(_) => out.push_str(bound),
        }
        out.push('"');
        out.push_str(rest);
    }
    out
}

/// A histogram with `count` buckets from `start`, each `factor` times the one before; registered by whoever wants.
pub fn histogram(name: &str, help: &str, (start, factor, count): (f64, f64, usize)) -> Histogram {
    let buckets = prometheus::exponential_buckets(start, factor, count).expect(ONCE);
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect(ONCE)
}

/// The same, told apart by labels.
pub fn histograms(
    name: &str,
    help: &str,
    labels: &[&str],
    (start, factor, count): (f64, f64, usize),
) -> HistogramVec {
    let buckets = prometheus::exponential_buckets(start, factor, count).expect(ONCE);
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect(ONCE)
}

/// What `/proc/self` says: memory, CPU, descriptors, start.
#[derive(Debug)]
pub struct ProcessFigures {
    started: f64,
    resident: Gauge,
    virtual_size: Gauge,
    cpu: Counter,
    open_files: Gauge,
    max_files: Gauge,
    start_time: Gauge,
    used_files: Gauge,
    limit_files: Gauge,
    memory_max: Gauge,
    network_in: Counter,
    network_out: Counter,
}

impl Default for ProcessFigures {
    fn default() -> Self {
        let gauge = |name: &str, help: &str| Gauge::new(name, help).expect(ONCE);
        let counter = |name: &str, help: &str| Counter::new(name, help).expect(ONCE);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        let started = (unix_micros() / 1_000_000) as f64;
        ProcessFigures {
            started,
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_size: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            cpu: counter(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            ),
            open_files: gauge("process_open_fds", "Number of open file descriptors."),
            max_files: gauge("process_max_fds", "Maximum number of open file descriptors."),
            start_time: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            used_files: gauge("os_fd_used", "The number of used file descriptors."),
            limit_files: gauge("os_fd_limit", "The file descriptor limit."),
            memory_max: gauge(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            ),
            network_in: counter(
                "process_network_receive_bytes_total",
                "Number of bytes received by the process over the network.",
            ),
            network_out: counter(
                "process_network_transmit_bytes_total",
                "Number of bytes sent by the process over the network.",
            ),
        }
    }
}

/// Bytes of a page and ticks of a second on every Linux that runs us (x86-64, arm64).
const PAGE_BYTES: f64 = 4096.0;
const TICKS_A_SECOND: f64 = 100.0;

impl ProcessFigures {
    fn read(&self) {
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The command's name, in parentheses, may hold spaces: fields are counted behind it.
            let fields: Vec<f64> = stat
                .rsplit_once(") ")
                .map(|(_, rest)| rest)
                .unwrap_or_default()
                .split(' ')
                .map(|field| field.trim().parse().unwrap_or(0.0))
                .collect();
            let at = |n: usize| fields.get(n).copied().unwrap_or(0.0);
            self.cpu.reset();
            self.cpu.inc_by((at(11) + at(12)) / TICKS_A_SECOND);
            self.virtual_size.set(at(20));
            self.resident.set(at(21) * PAGE_BYTES);
        }
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let open = f64::from(u32::try_from(open).unwrap_or(u32::MAX));
        self.open_files.set(open);
        self.used_files.set(open);
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            let soft = soft_limit(&limits, "Max open files");
            self.max_files.set(soft);
            self.limit_files.set(soft);
            self.memory_max.set(soft_limit(&limits, "Max address space"));
        }
        // Of the whole network namespace: the kernel counts for no process alone. Prometheus's own collector reads it.
        if let Ok(counted) = std::fs::read_to_string("/proc/self/net/netstat") {
            let (received, sent) = octets(&counted).unwrap_or_default();
            self.network_in.reset();
            self.network_in.inc_by(received);
            self.network_out.reset();
            self.network_out.inc_by(sent);
        }
        self.start_time.set(self.started);
    }

    fn parts(&self) -> [&dyn Collector; 11] {
        [
            &self.resident,
            &self.virtual_size,
            &self.cpu,
            &self.open_files,
            &self.max_files,
            &self.start_time,
            &self.used_files,
            &self.limit_files,
            &self.memory_max,
            &self.network_in,
            &self.network_out,
        ]
    }
}

/// How many descriptors this process may have open.
pub fn file_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_limit(&limits, "Max open files") as u64
}

/// The soft limit of that name; what is unlimited is as much as there can be, in Prometheus's words.
fn soft_limit(limits: &str, name: &str) -> f64 {
    let found = limits.lines().find_map(|line| line.strip_prefix(name));
    match found.and_then(|rest| rest.split_whitespace().next()) {
        Some("unlimited") => u64::MAX as f64,
        Some(number) => number.parse().unwrap_or(0.0),
        None => 0.0,
    }
}

/// Bytes that came in and went out by IP, of the line pair `IpExt` of `/proc/self/net/netstat`.
fn octets(text: &str) -> Option<(f64, f64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted| {
        let place = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(place)?.parse().ok()
    };
    Some((find("InOctets")?, find("OutOctets")?))
}

impl Collector for ProcessFigures {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.parts().iter().flat_map(|part| part.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_registries_are_strangers_and_the_process_is_read() {
        let (one, two) = (Metrics::default(), Metrics::default());
        one.counter("a_total", "a").inc();
        two.counter("a_total", "a");
        two.add(ProcessFigures::default());
        assert!(one.text().contains("a_total 1"));
        let text = two.text();
        assert!(text.contains("a_total 0"));
        let resident = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .unwrap();
        assert!(resident.parse::<f64>().unwrap() > 0.0);
    }

    #[test]
    fn bounds_of_buckets_are_spelled_as_go_spells_them() {
        let metrics = Metrics::default();
        metrics.add(histogram("ttl", "of leases", (0.5, 2.0, 25)));
        metrics.gauge("plain", "a figure stays as it is: le=1048576").set(1_048_576);
        let text = metrics.text();
        let wanted = ["\"0.5\"", "\"524288\"", "\"1.048576e+06\"", "\"8.388608e+06\"", "\"+Inf\""];
        for bound in wanted {
            assert!(text.contains(&format!("ttl_bucket{{le={bound}}} 0")), "{bound}: {text}");
        }
        assert!(text.contains("plain 1048576\n") && text.contains("ttl_sum 0"), "{text}");
        assert_eq!(with_gos_bounds("a{le=\"1e10\"} 1"), "a{le=\"1e+10\"} 1");
    }

    #[test]
    fn octets_and_limits_are_found_by_their_names() {
        let text =
            "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 9 70 80\n";
        assert_eq!(octets(text), Some((70.0, 80.0)));
        assert_eq!(octets("IpExt: InOctets\n"), None);
        let limits = "Max address space         unlimited   unlimited  bytes\nMax open files   1024   4096   files\n";
        assert_eq!(soft_limit(limits, "Max open files"), 1024.0);
        assert_eq!(soft_limit(limits, "Max address space"), 18_446_744_073_709_552_000.0);
    }
}
