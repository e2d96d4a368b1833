//! `config get`, `config set`: the fleet's settings, which every node has alike.
//!
//! ```text
//!   dns.enabled=true ──> {"dns": {"enabled": true}} ──> checked by the API's own type ──> PUT; the rest stays
//! ```
//!
//! A value is read as YAML; where the setting wants a text or a list, it is taken as one.

use std::io;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::failure::Failure;
use super::format::Answer;
use super::words::content;
use crate::fleet::api::config::SetConfigRequest;
use crate::support::yaml;

const PATH: &str = "/1.0/k8sd/cluster/config";

/// Texts by names that may hold dots themselves.
const ANNOTATIONS: &str = "annotations";
/// What the API has beside the config.
const DATASTORE: &str = "datastore";

/// `GET k8sd/cluster/config`, all of it or one value.
pub(super) async fn get(api: &Api, key: Option<String>) -> Result<Answer, Failure> {
    let metadata = api.get(PATH).await?;
    let tree = merged(&metadata);
    let Some(key) = key else {
        return Ok(Answer::told(metadata, |_| yaml_of(&tree)));
    };
    let mut found = &tree;
    for part in parts(&key) {
        found = found
            .get(part)
            .ok_or_else(|| Failure::failed(format!("the fleet has no setting {key}")))?;
    }
    Ok(Answer::told(found.clone(), |found| match found {
        Value::String(text) => Ok(format!("{text}\n")),
        other => yaml_of(other),
    }))
}

/// The config with what stands beside it.
fn merged(metadata: &Value) -> Value {
    let mut tree = metadata["status"].as_object().cloned().unwrap_or_default();
    for (key, value) in metadata.as_object().into_iter().flatten() {
        if key != "status" {
            tree.insert(key.clone(), value.clone());
        }
    }
    Value::Object(tree)
}

fn yaml_of(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|why| Failure::failed(format!("cannot write YAML: {why}")))
}

/// `PUT k8sd/cluster/config`.
pub(super) async fn set(
    api: &Api,
    pairs: Vec<String>,
    file: Option<std::path::PathBuf>,
) -> Result<Answer, Failure> {
    let tree = match &file {
        Some(path) => {
            let name = path.display();
            match yaml::parse(&content(path, &mut io::stdin())?) {
                Ok(Value::Object(tree)) => tree,
                Ok(_) => return Err(Failure::usage(format!("{name}: settings are a mapping"))),
                Err(why) => return Err(Failure::usage(format!("{name}: {why}"))),
            }
        }
        None => tree_of(&pairs)?,
    };
    let metadata = api.put(PATH, &request(tree)).await?;
    Ok(Answer::said(metadata, "The settings are changed.\n"))
}

fn request(mut tree: Map<String, Value>) -> Value {
    let mut request = Map::new();
    if let Some(datastore) = tree.remove(DATASTORE) {
        request.insert(DATASTORE.to_owned(), datastore);
    }
    request.insert("config".to_owned(), Value::Object(tree));
    Value::Object(request)
}

fn tree_of(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut tree = Map::new();
    for pair in pairs {
        let Some((key, text)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("{pair} is no KEY=VALUE")));
        };
        put(&mut tree, key, fitting(key, text)?)?;
    }
    Ok(tree)
}

/// The value in the form that the setting wants: the first that the API's type takes.
fn fitting(key: &str, text: &str) -> Result<Value, Failure> {
    let bare = Value::String(text.to_owned());
    let read = match text {
        "" => bare.clone(),
        text => yaml::parse(text).unwrap_or_else(|_| bare.clone()),
    };
    let list: Vec<&str> = text.split(',').filter(|item| !item.is_empty()).collect();
    let mut complaint = String::new();
    for value in [read, bare, json!(list)] {
        let mut tree = Map::new();
        put(&mut tree, key, value.clone())?;
        match SetConfigRequest::deserialize(request(tree)) {
            Ok(_) => return Ok(value),
            Err(why) if complaint.is_empty() => complaint = why.to_string(),
            Err(_) => {}
        }
    }
    Err(Failure::usage(format!("{key}: {complaint}")))
}

fn parts(key: &str) -> Vec<&str> {
    match key.split_once('.') {
        Some((ANNOTATIONS, name)) => vec![ANNOTATIONS, name],
        _ => key.split('.').collect(),
    }
}

fn put(tree: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Failure> {
    let parts = parts(key);
    let (last, inner) = parts.split_last().expect("a split has one part at least");
    let mut map = tree;
    for part in inner {
        map =
            map.entry(*part).or_insert_with(|| json!({})).as_object_mut().ok_or_else(|| {
                Failure::usage(format!("{key}: {part} is given a value of its own"))
            })?;
    }
    map.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::api::config::UserFacingClusterConfig;

    fn set_of(pairs: &[&str]) -> Result<Value, String> {
        let pairs: Vec<String> = pairs.iter().map(|&pair| pair.to_owned()).collect();
        tree_of(&pairs).map(request).map_err(|why| why.to_string())
    }

    #[test]
    fn values_take_the_form_that_their_setting_wants() {
        let request = set_of(&[
            "dns.enabled=true",
            "dns.cluster-domain=1.5",
            "dns.upstream-nameservers=1.1.1.1,8.8.8.8",
            "load-balancer.cidrs=[10.0.0.0/24]",
            "load-balancer.bgp-local-asn=64512",
            "local-storage.reclaim-policy=Retain",
            "annotations.k8sd/v1alpha1.x=true",
            "cloud-provider=",
        ]);
        let want = json!({"config": {
            "dns": {
                "enabled": true, "cluster-domain": "1.5",
                "upstream-nameservers": ["1.1.1.1", "8.8.8.8"]
            },
            "load-balancer": {"cidrs": ["10.0.0.0/24"], "bgp-local-asn": 64512},
            "local-storage": {"reclaim-policy": "Retain"},
            "annotations": {"k8sd/v1alpha1.x": "true"},
            "cloud-provider": "",
        }});
        assert_eq!(request.unwrap(), want);
        let datastore = set_of(&["datastore.type=etcd"]).unwrap();
        assert_eq!(datastore, json!({"config": {}, "datastore": {"type": "etcd"}}));
    }

    #[test]
    fn what_no_setting_is_or_wants_is_refused_by_its_key() {
        for (pair, why) in [
            ("dns.enabled", "dns.enabled is no KEY=VALUE"),
            ("=x", "=x is no KEY=VALUE"),
            ("dns.nope=1", "dns.nope: unknown field `nope`"),
            ("nope=1", "nope: unknown field `nope`"),
            (
                "dns.enabled=maybe",
                "dns.enabled: invalid type: string \"maybe\", expected a boolean",
            ),
        ] {
            let said = set_of(&[pair]).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
    }

    #[test]
    fn every_setting_of_the_api_has_a_key() {
        let all = serde_json::to_value(UserFacingClusterConfig::default()).unwrap();
        for section in all.as_object().unwrap().keys() {
            let why = set_of(&[&format!("{section}.no-such-thing=1")]).unwrap_err();
            assert!(why.contains("no-such-thing"), "{why}");
        }
    }
}
