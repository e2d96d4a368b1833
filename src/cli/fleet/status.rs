//! `status`, `node-status`, `nodes`: how things stand, in the words and order of the origin's `k8s status`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, typed};
use super::failure::Failure;
use super::format::Answer;
use super::table::table;
use crate::fleet::api::cluster::{
    ClusterRole, ClusterStatus, ClusterStatusAnswer, DatastoreRole, FeatureStatus, NodeStatus,
    NodeStatusAnswer,
};
use crate::support::go::duration::GoDuration;

/// How often it is looked whether a fleet is ready, or a daemon there.
const LOOK: Duration = Duration::from_millis(200);

const CLUSTER: &str = "/1.0/k8sd/cluster";

const TO_A_STRING: &str = "writing to a string";

/// `GET k8sd/cluster`.
pub(super) async fn status(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get(CLUSTER).await?;
    Ok(Answer::told(metadata, |metadata| Ok(plain_status(&told(metadata)?))))
}

/// The same, again and again until it says ready. A node that starts, joins or is asked too early gets its time.
pub(super) async fn wait_ready(api: &Api, patience: GoDuration) -> Result<Answer, Failure> {
    let mut why = "nothing was heard of it yet".to_owned();
    let seen = async {
        loop {
            match status(api).await {
                Ok(answer) if answer.metadata["status"]["ready"] == json!(true) => {
                    return Ok(answer);
                }
                Ok(_) => why = "its status says so".to_owned(),
                Err(failure) if failure.may_pass() => why = failure.to_string(),
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let seen = tokio::time::timeout(patience.to_std(), seen).await;
    seen.unwrap_or(Err(Failure::NotReady { after: patience, why }))
}

/// `GET k8sd/node`.
pub(super) async fn node(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get("/1.0/k8sd/node").await?;
    Ok(Answer::told(metadata, plain_node))
}

fn plain_node(metadata: &Value) -> Result<String, Failure> {
    let answer: NodeStatusAnswer = typed(metadata)?;
    let mut plain = String::new();
    let status = &answer.status;
    line(&mut plain, "name:", or_none(&status.name));
    line(&mut plain, "address:", or_none(&status.address));
    line(&mut plain, "cluster role:", cluster_role(status.cluster_role));
    line(&mut plain, "datastore role:", datastore_role(status.datastore_role));
    if let Some(phase) = metadata.get("phase") {
        let text = |key: &str| phase.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("reason") {
            "" => line(&mut plain, "phase:", text("name")),
            reason => line(&mut plain, "phase:", &format!("{} ({reason})", text("name"))),
        }
    }
    if !answer.taints.is_empty() {
        line(&mut plain, "taints:", &answer.taints.join(", "));
    }
    Ok(plain)
}

/// The same, again and again until a daemon answers; what kept it from that, if none does.
pub(super) async fn wait_info(api: &Api, patience: GoDuration) -> Result<Answer, Failure> {
    let mut last = None;
    let seen = async {
        loop {
            match info(api).await {
                Err(failure) if failure.may_pass() => last = Some(failure),
                seen => return seen,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(patience.to_std(), seen).await {
        Ok(seen) => seen,
        Err(_elapsed) => Err(last.unwrap_or_else(|| Failure::TimedOut {
            doing: "the request".to_owned(),
            after: patience,
        })),
    }
}

/// `GET /1.0`.
pub(super) async fn info(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get("/1.0").await?;
    Ok(Answer::told(metadata, |metadata| {
        let mut plain = String::new();
        for (name, key) in [
            ("version:", "server_version"),
            ("phase:", "phase"),
            ("name:", "name"),
            ("address:", "address"),
            ("cluster uid:", "cluster_uid"),
        ] {
            line(&mut plain, name, or_none(metadata[key].as_str().unwrap_or_default()));
        }
        Ok(plain)
    }))
}

/// The members of `GET k8sd/cluster`, with what raft and registry say of each.
pub(super) async fn nodes(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get(CLUSTER).await?;
    let part = json!({
        "members": metadata["status"]["members"],
        "membership": metadata["status"]["membership"],
    });
    Ok(Answer::told(part, |_| Ok(plain_nodes(&told(&metadata)?))))
}

/// The status without the config, which `config get` shows, and in which a newer daemon may know more than we.
fn told(metadata: &Value) -> Result<ClusterStatus, Failure> {
    let mut metadata = metadata.clone();
    if let Some(status) = metadata.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("config".to_owned(), json!({}));
    }
    let ClusterStatusAnswer { status } = typed(&metadata)?;
    Ok(status)
}

fn plain_nodes(status: &ClusterStatus) -> String {
    let known = status.membership.as_ref();
    let entry = |name: &str| known.and_then(|all| all.nodes.iter().find(|node| node.name == name));
    let leader = known.map_or("", |all| all.leader.as_str());
    let mut rows: Vec<Vec<String>> = status
        .members
        .iter()
        .map(|node| {
            let entry = entry(&node.name);
            let id = entry.map_or("", |entry| entry.id.as_str());
            let role = datastore_role(node.datastore_role);
            vec![
                node.name.clone(),
                node.address.clone(),
                cluster_role(node.cluster_role).to_owned(),
                if !id.is_empty() && id == leader {
                    format!("{role}, leader")
                } else {
                    role.to_owned()
                },
                reachable(entry.and_then(|entry| entry.reachable)).to_owned(),
                id.to_owned(),
                entry.map_or("", |entry| entry.difference.as_str()).to_owned(),
            ]
        })
        .collect();
    // Whom raft knows and the registry does not has no line among the members.
    let strangers = known.map_or(&[][..], |all| &all.nodes);
    for node in strangers {
        if status.members.iter().any(|member| member.name == node.name) {
            continue;
        }
        let role = datastore_role(node.raft).to_owned();
        rows.push(vec![
            or_none(&node.name).to_owned(),
            String::new(),
            cluster_role(node.registry).to_owned(),
            role,
            reachable(node.reachable).to_owned(),
            node.id.clone(),
            node.difference.clone(),
        ]);
    }
    table(&["NAME", "ADDRESS", "ROLE", "DATASTORE", "REACHABLE", "ID", "DIFFERENCE"], rows)
}

/// Nobody watches whom raft does not list.
fn reachable(told: Option<bool>) -> &'static str {
    match told {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    }
}

/// Words and order are the origin's; workers, differences and whom the node cannot reach are ours, and only shown where
/// there are any.
fn plain_status(status: &ClusterStatus) -> String {
    let mut out = String::new();
    line(&mut out, "cluster status:", if status.ready { "ready" } else { "not ready" });
    let (workers, members): (Vec<&NodeStatus>, Vec<&NodeStatus>) =
        status.members.iter().partition(|node| node.cluster_role == Some(ClusterRole::Worker));
    let told =
        |node: &&NodeStatus| format!("{} ({})", node.address, datastore_role(node.datastore_role));
    line(&mut out, "control plane nodes:", &joined(members.iter().map(told)));
    if !workers.is_empty() {
        let told = |node: &&NodeStatus| format!("{} ({})", node.address, node.name);
        line(&mut out, "worker nodes:", &joined(workers.iter().map(told)));
    }
    let voters =
        members.iter().filter(|node| node.datastore_role == Some(DatastoreRole::Voter)).count();
    line(&mut out, "high availability:", if voters > 2 { "yes" } else { "no" });
    let datastore = status.datastore.kind.as_str();
    line(&mut out, "datastore:", if datastore.is_empty() { "disabled" } else { datastore });
    for (name, feature) in [
        ("network:", &status.network),
        ("dns:", &status.dns),
        ("ingress:", &status.ingress),
        ("load-balancer:", &status.load_balancer),
        ("local-storage:", &status.local_storage),
        ("gateway:", &status.gateway),
        ("metrics-server:", &status.metrics_server),
    ] {
        line(&mut out, name, feature_words(feature));
    }
    for (name, feature) in &status.added_features {
        line(&mut out, &format!("{name}:"), feature_words(feature));
    }
    for node in status.membership.iter().flat_map(|membership| &membership.nodes) {
        let who = if node.name.is_empty() { &node.id } else { &node.name };
        if node.reachable == Some(false) {
            line(&mut out, "not reachable:", who);
        }
        if !node.difference.is_empty() {
            line(&mut out, "difference:", &format!("{who}: {}", node.difference));
        }
    }
    out
}

fn feature_words(feature: &FeatureStatus) -> &str {
    match (feature.message.as_str(), feature.enabled) {
        ("", true) => "enabled",
        ("", false) => "disabled",
        (message, _) => message,
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    writeln!(out, "{name:<25} {value}").expect(TO_A_STRING);
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

pub(super) fn cluster_role(role: Option<ClusterRole>) -> &'static str {
    match role {
        Some(ClusterRole::ControlPlane) => "control-plane",
        Some(ClusterRole::Worker) => "worker",
        Some(ClusterRole::Unknown) => "unknown",
        None => "none",
    }
}

fn datastore_role(role: Option<DatastoreRole>) -> &'static str {
    match role {
        Some(DatastoreRole::Voter) => "voter",
        Some(DatastoreRole::StandBy) => "stand-by",
        Some(DatastoreRole::Spare) => "spare",
        Some(DatastoreRole::Pending) => "PENDING",
        Some(DatastoreRole::Unknown) => "unknown",
        None => "none",
    }
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
