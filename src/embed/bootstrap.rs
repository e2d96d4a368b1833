//! Who a member is at its first start: its name and URLs in the initial cluster, checked in etcd's words
//! (etcd `server/config/config.go`, `VerifyBootstrap`; `client/pkg/types/urlsmap.go`).

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;

use super::config::Config;
use crate::support::go::quote::{quote, quote_list};
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
    if let Some(difference) = difference(&config.member.advertise_peer, own) {
        return Err(unequal(config, own, &difference));
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

/// How two lists of URLs differ, host names resolved; `None` if they do not.
fn difference(advertised: &[Url], listed: &[Url]) -> Option<String> {
    let quoted = |urls: &[Url]| quote_list(&texts(urls));
    if advertised.len() != listed.len() {
        return Some(format!("len({}) != len({})", quoted(advertised), quoted(listed)));
    }
    let sorted = |urls: &[Url], change: fn(&Url) -> Url| {
        let mut urls: Vec<Url> = urls.iter().map(change).collect();
        urls.sort_by_key(ToString::to_string);
        urls
    };
    if sorted(advertised, Url::clone) == sorted(listed, Url::clone) {
        return None;
    }
    let pairs = sorted(advertised, resolved).into_iter().zip(sorted(listed, resolved));
    let (one, other) = pairs.into_iter().find(|(one, other)| one != other)?;
    let (one, other) = (quote(&one.to_string()), quote(&other.to_string()));
    Some(format!("resolved urls: {one} != {other}"))
}

/// The URL with its host's first address; `localhost`, and what nobody knows, stay as they are.
fn resolved(url: &Url) -> Url {
    let known = !url.is_unix() && url.hostname() != "localhost";
    let address = known.then(|| url.host.to_socket_addrs().ok()?.next()).flatten();
    Url { host: address.map_or_else(|| url.host.clone(), |a| a.to_string()), ..url.clone() }
}

/// etcd names what is missing on one side before it says how the lists differ.
fn unequal(config: &Config, own: &[Url], difference: &str) -> String {
    let name = &config.member.name;
    let (listed, advertised) = (texts(own), texts(&config.member.advertise_peer));
    let pairs = |urls: Vec<&String>| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
    };
    let missing: Vec<&String> = listed.iter().filter(|url| !advertised.contains(url)).collect();
    if !missing.is_empty() {
        return format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({difference})",
            pairs(missing),
            advertised.join(",")
        );
    }
    let missing: Vec<&String> = advertised.iter().filter(|url| !listed.contains(url)).collect();
    let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
    format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing.join(","),
        pairs(advertised.iter().collect())
    )
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
            refused(|c| c.member.advertise_peer = parse_list("http://127.0.0.9:1").unwrap()),
            "--initial-cluster has default=http://localhost:2380 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.9:1 (resolved urls: \"http://127.0.0.9:1\" != \
             \"http://localhost:2380\")"
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
