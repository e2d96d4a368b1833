//! Every metric of `/metrics`: name, kind and labels, after members were lost and brought up again.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, Member, eventually};
use crate::paths::{Asked, ask};
use crate::seen::{Kind, Seen};

/// Values so large, and so many of them, that a log that keeps little has let go of the first ones.
const VALUE_BYTES: usize = 40_000;
const VALUES: usize = 60;

/// These show once something has failed, which a run may see or not.
pub(crate) const BY_CHANCE: [&str; 4] = [
    "etcd_network_disconnected_peers_total",
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_send_failures",
    "etcd_network_server_stream_failures_total",
];

/// Every metric that any member showed.
#[derive(Default)]
pub(crate) struct Metrics(BTreeMap<String, Found>);

impl Metrics {
    pub(crate) async fn take(&mut self, member: &Member) {
        let text = eventually("metrics are there", async || scrape(member).await).await;
        read(&text, &mut self.0);
    }

    pub(crate) fn note(self, seen: &mut Seen) {
        let certain = self.0.into_iter().filter(|(name, _)| !BY_CHANCE.contains(&name.as_str()));
        for (name, Found { kind, labels }) in certain {
            let labels: Vec<String> = labels.into_iter().collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            seen.add(Kind::Metric, &name, format!("{kind}{labels}"));
        }
    }
}

/// Kills a follower, writes more than logs keep, starts it again, and has it brought up by a whole state.
pub(crate) async fn walk(cluster: &mut Cluster, metrics: &mut Metrics) {
    let leader = cluster.leader().await;
    let follower = (leader + 1) % cluster.members.len();
    cluster.members[follower].kill();
    for n in 0..VALUES {
        write(&cluster.members[leader], n).await;
    }
    cluster.members[follower].start();
    cluster.members[follower].serves().await;
    eventually("a whole state was sent", async || {
        // Whoever leads by now.
        for member in &cluster.members {
            let text = scrape(member).await?;
            if text.lines().any(|line| line.starts_with("etcd_network_snapshot_send_success{")) {
                return Some(());
            }
        }
        None
    })
    .await;
    for member in &cluster.members {
        metrics.take(member).await;
    }
}

async fn scrape(member: &Member) -> Option<String> {
    Some(ask(&member.client, &Asked::get("/metrics")).await?.body)
}

/// Through the gateway: in base64 `AAAA` are three bytes.
async fn write(member: &Member, n: usize) {
    let body = format!(r#"{{"key":"{n:04}","value":"{}"}}"#, "AAAA".repeat(VALUE_BYTES / 3));
    let put = Asked::post("/v3/kv/put", body);
    eventually("a write is taken", async || {
        ask(&member.client, &put).await.filter(|answer| answer.status == 200).map(|_| ())
    })
    .await;
}

#[derive(Default)]
struct Found {
    kind: String,
    labels: BTreeSet<String>,
}

/// Names, kinds and label names of Prometheus's text.
fn read(text: &str, found: &mut BTreeMap<String, Found>) {
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            kind.clone_into(&mut found.entry(name.to_owned()).or_default().kind);
        } else if let Some((series, labels)) =
            line.split_once('{').filter(|_| !line.starts_with('#'))
        {
            let whole = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| series.strip_suffix(end))
                .filter(|name| found.contains_key(*name));
            let Some(metric) = found.get_mut(whole.unwrap_or(series)) else { continue };
            // Values are in quotes, and none that is shown here holds `="`.
            let parts: Vec<&str> = labels.split("=\"").collect();
            let names =
                parts[..parts.len() - 1].iter().filter_map(|part| part.rsplit(['"', ',']).next());
            let names = names.filter(|name| !["le", "quantile"].contains(name));
            metric.labels.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn kinds_and_labels_are_read() {
    let mut found = BTreeMap::new();
    let text = "# HELP a {b=\"c\"}\n# TYPE a counter\na{one=\"x,y\",two=\"\"} 1\n\
                # TYPE h histogram\nh_bucket{op=\"Put\",le=\"+Inf\"} 1\nh_sum{op=\"Put\"} 0\n# TYPE g gauge\ng 1\n";
    read(text, &mut found);
    let shown = found.iter().map(|(name, f)| (name.as_str(), f.kind.as_str(), f.labels.len()));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [("a", "counter", 2), ("g", "gauge", 0), ("h", "histogram", 1)]
    );
}
