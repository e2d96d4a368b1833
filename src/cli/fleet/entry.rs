//! How a node comes into a fleet and out of it: `bootstrap`, `join-cluster`, `get-join-token`, `remove-node`.

use std::io;

use serde_json::{Map, Value};

use super::api::{Api, typed};
use super::failure::Failure;
use super::format::Answer;
use super::line::{Entry, JoinCluster, JoinToken, Removal};
use super::words::{content, is_stdin};
use crate::fleet::api::cluster::{
    JoinRequest, JoinTokenRequest, NodeStatus, RemoveRequest, TokenAnswer,
};
use crate::fleet::api::{Nanos, Sensitive};
use crate::support::yaml;

/// `POST k8sd/cluster`. The file is sent as it is, so that the node alone says what may stand in it.
pub(super) async fn bootstrap(api: &Api, entry: Entry) -> Result<Answer, Failure> {
    let config = match &entry.file {
        Some(path) => {
            let name = path.display();
            match yaml::parse(&content(path, &mut io::stdin())?) {
                Ok(Value::Object(config)) => config,
                Ok(Value::Null) => Map::new(),
                Ok(_) => return Err(Failure::usage(format!("{name}: settings are a mapping"))),
                Err(why) => return Err(Failure::usage(format!("{name}: {why}"))),
            }
        }
        None => Map::new(),
    };
    let body = serde_json::json!({
        "name": entry.name.unwrap_or_default(),
        "address": entry.address.unwrap_or_default(),
        "config": config,
        "timeout": api.timeout(),
    });
    let metadata = api.post("/1.0/k8sd/cluster", &body).await?;
    Ok(Answer::told(metadata, |metadata| {
        let node: NodeStatus = typed(metadata)?;
        Ok(format!("Bootstrapped a new fleet: this node is {} at {}.\n", node.name, node.address))
    }))
}

/// `POST k8sd/cluster/join`.
pub(super) async fn join(api: &Api, join: JoinCluster) -> Result<Answer, Failure> {
    let JoinCluster { token, entry } = join;
    if token.is_stdin() && entry.file.as_deref().is_some_and(is_stdin) {
        return Err(Failure::usage("standard input cannot be both the token and the settings"));
    }
    let token = token.read(&mut io::stdin())?;
    let config = match &entry.file {
        Some(path) => Sensitive::new(content(path, &mut io::stdin())?),
        None => Sensitive::default(),
    };
    let name = entry.name.unwrap_or_default();
    let request = JoinRequest {
        name: name.clone(),
        address: entry.address.unwrap_or_default(),
        token,
        config,
        timeout: api.timeout(),
    };
    let metadata = api.post("/1.0/k8sd/cluster/join", &request).await?;
    Ok(match name.as_str() {
        "" => Answer::said(metadata, "This node has joined the fleet.\n"),
        name => Answer::said(metadata, format!("This node has joined the fleet as {name}.\n")),
    })
}

/// `POST k8sd/cluster/tokens`; the token stands alone on its line.
pub(super) async fn join_token(api: &Api, join: JoinToken) -> Result<Answer, Failure> {
    let metadata = api.post("/1.0/k8sd/cluster/tokens", &token_request(join)).await?;
    Ok(bare_token(metadata))
}

pub(super) fn token_request(join: JoinToken) -> JoinTokenRequest {
    let ttl = Nanos::from(join.expires_in.to_std());
    JoinTokenRequest { name: join.name.unwrap_or_default(), worker: join.worker, ttl }
}

/// What was answered, the token alone for people and pipes.
pub(super) fn bare_token(metadata: Value) -> Answer {
    Answer::told(metadata, |metadata| {
        Ok(format!("{}\n", typed::<TokenAnswer>(metadata)?.token.reveal()))
    })
}

/// `POST k8sd/cluster/remove`.
pub(super) async fn remove(api: &Api, remove: Removal) -> Result<Answer, Failure> {
    let name = remove.name.clone();
    let metadata = api.post("/1.0/k8sd/cluster/remove", &remove_request(api, remove)).await?;
    Ok(Answer::said(metadata, format!("Removed {name} from the fleet.\n")))
}

pub(super) fn remove_request(api: &Api, remove: Removal) -> RemoveRequest {
    RemoveRequest { name: remove.name, force: remove.force, timeout: api.timeout() }
}
