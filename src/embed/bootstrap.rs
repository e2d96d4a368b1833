//! Who a member is at its first start: its name and URLs in the initial cluster, checked in etcd's words
//! (etcd `server/config/config.go`, `VerifyBootstrap`; `client/pkg/types/urlsmap.go`).

use std::collections::BTreeMap;

use super::config::Config;
use crate::support::go::quote::quote;
use crate::support::urls::{Url, parse_list, texts};

/// The first members by name, each with its sorted peer URLs.
pub(super) type InitialCluster = BTreeMap<String, Vec<Url>>;

/// Reads `name=url,name=url`; one name may stand several times.
pub(super) fn parse(text: &str) -> Result<InitialCluster, String> {
    let mut named: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        named.entry(name.to_owned()).or_default().push(url);
    }
    named
        .into_iter()
        .map(|(name, urls)| Ok((name, parse_list(&urls.join(","))?)))
        .collect::<Result<_, String>>()
        .map_err(|why| format!("error setting up initial cluster: {why}"))
}

/// Refuses an initial cluster that does not hold this member as it describes itself.
pub(super) fn check(config: &Config, cluster: &InitialCluster) -> Result<(), String> {
    let name = &config.member.name;
    let Some(own) = cluster.get(name) else {
        return Err(format!(
            "couldn't find local name {} in the initial cluster configuration",
            quote(name)
        ));
    };
    let (listed, advertised) = (texts(own), texts(&config.member.advertise_peer));
    let pairs = |urls: Vec<&String>| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
    };
    let missing: Vec<&String> = listed.iter().filter(|url| !advertised.contains(url)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
            pairs(missing),
            advertised.join(",")
        ));
    }
    let missing: Vec<&String> = advertised.iter().filter(|url| !listed.contains(url)).collect();
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            missing.join(","),
            pairs(advertised.iter().collect())
        ));
    }
    let mut all: Vec<&Url> = cluster.values().flatten().collect();
    let count = all.len();
    all.sort();
    all.dedup();
    if all.len() < count {
        return Err(format!("initial cluster {} has duplicate url", print(cluster)));
    }
    if config.cluster.initial_state == "existing" {
        return Err(
            "--initial-cluster-state=existing is not supported yet: a member can only begin a \
                    cluster of its own"
                .to_owned(),
        );
    }
    if cluster.len() > 1 {
        return Err(
            "--initial-cluster with several members is not supported yet: a member can only \
                    begin a cluster of its own"
                .to_owned(),
        );
    }
    Ok(())
}

/// `name=url` pairs, sorted.
pub(super) fn print(cluster: &InitialCluster) -> String {
    let mut pairs: Vec<String> = cluster
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let cluster = parse(&config.cluster.initial_cluster).unwrap();
        check(&config, &cluster).unwrap_err()
    }

    #[test]
    fn an_initial_cluster_that_is_not_ours_is_refused_in_etcds_words() {
        assert_eq!(
            refused(|c| c.member.name = "x".to_owned()),
            "couldn't find local name \"x\" in the initial cluster configuration"
        );
        assert_eq!(
            refused(|c| c.member.advertise_peer = parse_list("http://a:1").unwrap()),
            "--initial-cluster has default=http://localhost:2380 but missing from \
             --initial-advertise-peer-urls=http://a:1"
        );
        assert_eq!(
            refused(|c| {
                c.member.advertise_peer = parse_list("http://a:1,http://localhost:2380").unwrap();
            }),
            "--initial-advertise-peer-urls has http://a:1 but missing from \
             --initial-cluster=default=http://a:1,default=http://localhost:2380"
        );
        assert_eq!(
            refused(|c| c.cluster.initial_cluster.push_str(",b=http://localhost:2380")),
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
        );
        let config = Config::default();
        let cluster = parse(&config.cluster.initial_cluster).unwrap();
        assert_eq!(check(&config, &cluster), Ok(()));
        assert_eq!(print(&cluster), "default=http://localhost:2380");
    }
}
