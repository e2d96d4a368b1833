//! From the text of `cluster.kat` to a [`ClusterConfiguration`], or to everything that is wrong with it.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::config::{Backup, ClusterConfiguration};
use super::fields::{Fault, Faults, Fields};

/// What `apiVersion` says, if it says anything.
const API_VERSION: &str = "kat.dws.rip/v1alpha1";

/// The one kind that concerns us.
const OURS: &str = "ClusterConfiguration";

/// The others that may stand in the same file: they are somebody else's.
const OTHERS: [&str; 6] =
    ["Workload", "VirtualLoadBalancer", "JobDefinition", "BuildDefinition", "Namespace", "Node"];

/// Etcd's shortest lease, and a day.
const LEASE_TTL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(86_400));

/// Backups more often than that would be made of one another's time.
const BACKUP_INTERVAL: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(365 * 86_400));

const BACKUPS_MAX: u32 = 10_000;

/// A file is no cluster's configuration: everything that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct BadConfiguration(pub Vec<Fault>);

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

impl ClusterConfiguration {
    /// Reads a file's text: one document of kind `ClusterConfiguration`, and whatever else of KAT's kinds.
    pub fn read(text: &str) -> Result<ClusterConfiguration, BadConfiguration> {
        let mut faults = Faults::default();
        let read = documents(text, &mut faults).and_then(|all| one(all, &mut faults));
        let config = read.and_then(|document| configuration(document, &mut faults));
        match (config, faults.list()) {
            (Some(config), faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(BadConfiguration(faults)),
        }
    }
}

fn documents(text: &str, faults: &mut Faults) -> Option<Vec<Value>> {
    match serde_saphyr::from_multiple::<Value>(text) {
        Ok(documents) => Some(documents),
        Err(why) => {
            // Without the picture of the place that the other words go with.
            let why = why.without_snippet().to_string();
            let why = why.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
            faults.add("", format!("this is no YAML: {why}"));
            None
        }
    }
}

/// The one document that is ours, and where it stands.
fn one(all: Vec<Value>, faults: &mut Faults) -> Option<Fields> {
    let several = all.len() > 1;
    let mut found: Vec<Fields> = Vec::new();
    for (number, document) in all.into_iter().enumerate() {
        let at = if several { format!("document {}: ", number + 1) } else { String::new() };
        let Some(mut fields) = Fields::of(&at, document, faults) else { continue };
        match fields.text("kind", faults) {
            Some(kind) if kind == OURS => found.push(fields),
            Some(kind) if OTHERS.contains(&kind.as_str()) => {}
            Some(kind) => {
                faults.add(
                    fields.at("kind"),
                    format!("{kind:?} is no kind that is known: {OURS} is"),
                );
            }
            None => faults.add(fields.at("kind"), format!("is missing: {OURS} is needed")),
        }
    }
    if found.len() > 1 {
        faults.add(
            "",
            format!("there are {} documents of kind {OURS}, and one is needed", found.len()),
        );
        return None;
    }
    if found.is_empty() && faults.is_empty() {
        faults.add("", format!("there is no document of kind {OURS}"));
    }
    found.pop()
}

fn configuration(mut document: Fields, faults: &mut Faults) -> Option<ClusterConfiguration> {
    if let Some(version) = document.text("apiVersion", faults)
        && version != API_VERSION
    {
        let text = format!("{version:?} is not known: {API_VERSION} is");
        faults.add(document.at("apiVersion"), text);
    }
    let name = document.mapping("metadata", faults).and_then(|metadata| name(metadata, faults));
    let spec = document.mapping("spec", faults);
    document.end(faults);
    let (mut spec, name) = (spec?, name.unwrap_or_default());
    let mut config = ClusterConfiguration {
        cluster_cidr: spec.network("clusterCIDR", faults),
        service_cidr: spec.network("serviceCIDR", faults),
        agent_port: spec.port("agentPort", 6401, faults),
        api_port: spec.port("apiPort", 6400, faults),
        client_port: spec.port("clientPort", 2379, faults),
        peer_port: spec.port("peerPort", 2380, faults),
        plain_client_port: None,
        data_dir: spec
            .folder("dataDir", faults)
            .unwrap_or_else(|| PathBuf::from("/var/lib").join(&name)),
        lease_ttl: spec.span("leaseTTL", Duration::from_secs(15), LEASE_TTL, faults),
        backup: backup(&mut spec, faults),
        name,
    };
    let plain = spec.port_or_none("plainClientPort", config.client_port, faults);
    config.plain_client_port = plain;
    check_together(&config, &spec, faults);
    spec.end(faults);
    Some(config)
}

fn name(mut metadata: Fields, faults: &mut Faults) -> Option<String> {
    if !metadata.has("name") {
        faults.add(metadata.at("name"), "is missing");
    }
    let name = metadata.text("name", faults);
    if let Some(why) = name.as_deref().and_then(bad_name) {
        faults.add(metadata.at("name"), why);
    }
    metadata.end(faults);
    name
}

/// A name is part of keys and paths.
fn bad_name(name: &str) -> Option<String> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let within = |c: char| ends(c) || c == '-';
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    let fits = name.len() <= 63
        && name.chars().all(within)
        && name.starts_with(ends)
        && name.ends_with(ends);
    (!fits).then(|| {
        format!("{name:?} is no name: up to 63 of a to z, 0 to 9 and -, which neither begins nor ends it, are")
    })
}

fn backup(spec: &mut Fields, faults: &mut Faults) -> Option<Backup> {
    let path = spec.folder("backupPath", faults);
    let every = spec.span("backupInterval", Duration::from_secs(30 * 60), BACKUP_INTERVAL, faults);
    let kept = spec.count("backupsKept", 8, BACKUPS_MAX, faults);
    path.map(|path| Backup { path, every, kept })
}

/// What must fit together.
fn check_together(config: &ClusterConfiguration, spec: &Fields, faults: &mut Faults) {
    if let (Some(cluster), Some(service)) = (&config.cluster_cidr, &config.service_cidr)
        && overlap(cluster, service)
    {
        let text = format!("{service} overlaps {}, which is {cluster}", spec.at("clusterCIDR"));
        faults.add(spec.at("serviceCIDR"), text);
    }
    let mut ports = vec![
        ("agentPort", config.agent_port),
        ("apiPort", config.api_port),
        ("clientPort", config.client_port),
        ("peerPort", config.peer_port),
    ];
    // The client port may speak both.
    let plain = config.plain_client_port.filter(|port| *port != config.client_port);
    ports.extend(plain.map(|port| ("plainClientPort", port)));
    for (at, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..at].iter().find(|(_, other)| other == port) {
            faults.add(spec.at(name), format!("{port} is {} already", spec.at(other)));
        }
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
#[path = "read_test.rs"]
mod tests;
