//! Who a member is at its first start: its name and URLs in the initial cluster, checked in etcd's words
//! (etcd `server/config/config.go`, `VerifyBootstrap`; `client/pkg/types/urlsmap.go`).

mod join;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::api::ids::{ClusterId, MemberId};
use tokio::time::Instant;

use super::config::Config;
use super::discovery::{self, Joined, dns};
use super::server::StartError;
use crate::host::peers::remote_clusters;
use crate::keyspace::InitialMember;
use crate::keyspace::members::{cluster_id, member_id};
use crate::support::go::quote::{quote, quote_list};
use crate::support::listen::words;
use crate::support::srv::Names;
use crate::support::tls::Connector;
use crate::support::urls::{Url, parse_list, texts};

/// The first members by name, each with its sorted peer URLs.
pub(super) type InitialCluster = BTreeMap<String, Vec<Url>>;

/// How long a name is looked up again and again before it counts as unknown.
const RESOLVE_FOR: Duration = Duration::from_secs(30);

/// Between two of these.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// How long members that may run already are asked (etcd's `BootstrapTimeoutEffective`).
const ASK_FOR: Duration = Duration::from_secs(1);

/// Who a member is, and with whom it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    /// Those of the initial cluster; empty where it is not known, as at most restarts.
    pub(super) members: Vec<InitialMember>,
    /// Peer URLs of the others, where this member is added to a cluster that is there already.
    pub(super) introducers: Vec<String>,
    /// The initial cluster as printed; empty where it is not known.
    pub(super) first: String,
}

/// What tells this cluster from others with the same URLs.
fn token(config: &Config) -> &str {
    match config.discovery.asks_a_service() {
        true => &config.discovery.token,
        false => &config.cluster.token,
    }
}

/// Ids by etcd's formulas.
pub(super) fn who(config: &Config, cluster: &InitialCluster) -> Who {
    let token = token(config);
    let member = |urls: &Vec<Url>| {
        let peer_urls = texts(urls);
        InitialMember { id: member_id(&peer_urls, token), peer_urls }
    };
    let members: Vec<InitialMember> = cluster.values().map(member).collect();
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    Who {
        cluster: cluster_id(&ids),
        member: member_id(&texts(&config.member.advertise_peer), token),
        members,
        introducers: Vec::new(),
        first: print(cluster),
    }
}

/// This member was told that it joins a cluster.
fn joins(config: &Config) -> bool {
    config.cluster.initial_state == "existing"
}

/// Peer URLs of all but this member, in order.
fn others(config: &Config, cluster: &InitialCluster) -> Vec<String> {
    let others = cluster.iter().filter(|(name, _)| **name != config.member.name);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| texts(urls)).collect();
    urls.sort();
    urls
}

/// What dials the others. Members that a domain names speak for the domain, unless their authorities are listed.
pub(super) fn connector(config: &Config, connector: Connector) -> Connector {
    let domain = &config.discovery.srv_domain;
    match domain.is_empty() || !config.security.peer.trusted_ca_file.is_empty() {
        true => connector,
        false => connector.expecting(domain),
    }
}

/// A restart: what the directory says counts; the flags are only listened to where they say the same. A member that
/// was added and has not been reached by the others yet is still to be introduced.
pub(super) fn known(config: &Config, cluster: ClusterId, member: MemberId) -> Who {
    if config.discovery.asks_a_service() {
        tracing::warn!(
            "wal-dir" = format!("{}/member/journal", config.member.data_dir),
            "discovery token is ignored since cluster already initialized; valid logs are found"
        );
    }
    let told = parse(&config.cluster.initial_cluster).unwrap_or_default();
    let introducers = if joins(config) { others(config, &told) } else { Vec::new() };
    let told = who(config, &told);
    let fits = told.cluster == cluster && told.member == member;
    let members = if fits { told.members } else { Vec::new() };
    Who { cluster, member, members, introducers, first: String::new() }
}

/// The first members, as far as they are told: by the flag, by DNS, or this one alone where a service knows the others.
pub(super) async fn initial_cluster(config: &Config) -> Result<InitialCluster, String> {
    let (discovery, member) = (&config.discovery, &config.member);
    if discovery.asks_a_service() {
        return Ok([(member.name.clone(), member.advertise_peer.clone())].into());
    }
    match discovery.srv_domain.is_empty() {
        true => parse(&config.cluster.initial_cluster),
        false => dns::cluster(config, &Names::of_the_system()?).await,
    }
}

/// A first start: the flags are checked, and the others are asked whether this member has run before, or who it is, or
/// who they are.
pub(super) async fn first_start(
    config: &Config,
    cluster: &InitialCluster,
    tls: &Connector,
) -> Result<Who, StartError> {
    let who = first_look(config, cluster, tls).await.map_err(StartError::Bootstrap)?;
    if !config.discovery.asks_a_service() {
        return Ok(who);
    }
    tracing::info!("Bootstrapping cluster using v3 discovery.");
    let joined = discovery::join(&config.discovery, who.member, &who.first).await?;
    discovered(config, &joined).map_err(StartError::Bootstrap)
}

/// Who this member is among those who have registered.
fn discovered(config: &Config, joined: &Joined) -> Result<Who, String> {
    let cluster = parse(&joined.listed)?;
    if has_duplicates(&cluster) {
        return Err(format!("discovery cluster {} has duplicate url", print(&cluster)));
    }
    let who = who(config, &cluster);
    // Two members of one name are one member of two URLs, whose id is nobody's.
    if !who.members.iter().any(|member| member.id == who.member) {
        return Err(format!(
            "discovery cluster {} does not list this member: its name {} must be its alone",
            print(&cluster),
            quote(&config.member.name)
        ));
    }
    let (count, size) = (who.members.len(), joined.size);
    if count < size {
        return Err(format!(
            "discovery cluster {} has {count} members instead of {size}: two have registered under one name; give \
             each a name of its own and start all again",
            print(&cluster)
        ));
    }
    Ok(who)
}

async fn first_look(
    config: &Config,
    cluster: &InitialCluster,
    tls: &Connector,
) -> Result<Who, String> {
    check(config, cluster).await?;
    if joins(config) {
        return join::join(config, cluster, others(config, cluster), tls).await;
    }
    let who = who(config, cluster);
    let others = who.members.iter().filter(|member| member.id != who.member);
    let others: Vec<String> = others.flat_map(|member| member.peer_urls.clone()).collect();
    if has_run_before(who.member, &others, tls).await {
        return Err(already_bootstrapped(who.member));
    }
    Ok(who)
}

fn already_bootstrapped(member: MemberId) -> String {
    format!("member {member} has already been bootstrapped")
}

/// A member that once ran has told the others its client URLs. If it comes without its data, its votes and
/// acknowledged writes are lost: it must not come back under its id.
async fn has_run_before(member: MemberId, others: &[String], tls: &Connector) -> bool {
    let clusters = remote_clusters(others, tls, ASK_FOR).await;
    let mut members = clusters.iter().flat_map(|cluster| &cluster.members);
    members.any(|known| known.id() == member && !known.client_urls.is_empty())
}

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
async fn check(config: &Config, cluster: &InitialCluster) -> Result<(), String> {
    let name = &config.member.name;
    let Some(own) = cluster.get(name) else {
        return Err(format!(
            "couldn't find local name {} in the initial cluster configuration",
            quote(name)
        ));
    };
    // Who joins has announced its URLs before: they are compared with what the cluster knows.
    if !joins(config)
        && let Some(difference) = difference(&config.member.advertise_peer, own).await
    {
        return Err(unequal(config, own, &difference));
    }
    if has_duplicates(cluster) {
        return Err(format!("initial cluster {} has duplicate url", print(cluster)));
    }
    if joins(config) && config.discovery.asks_a_service() {
        let why = "discovery URL should not be set when joining existing initial cluster";
        return Err(why.to_owned());
    }
    Ok(())
}

fn has_duplicates(cluster: &InitialCluster) -> bool {
    let mut all: Vec<&Url> = cluster.values().flatten().collect();
    let count = all.len();
    all.sort();
    all.dedup();
    all.len() < count
}

/// How two lists of URLs differ, host names resolved; `None` if they do not.
async fn difference(advertised: &[Url], listed: &[Url]) -> Option<String> {
    let quoted = |urls: &[Url]| quote_list(&texts(urls));
    if advertised.len() != listed.len() {
        return Some(format!("len({}) != len({})", quoted(advertised), quoted(listed)));
    }
    let sorted = |mut urls: Vec<Url>| {
        urls.sort_by_key(ToString::to_string);
        urls
    };
    if sorted(advertised.to_vec()) == sorted(listed.to_vec()) {
        return None;
    }
    let deadline = Instant::now() + RESOLVE_FOR;
    let (advertised, listed) =
        match (all_resolved(advertised, deadline).await, all_resolved(listed, deadline).await) {
            (Ok(advertised), Ok(listed)) => (sorted(advertised), sorted(listed)),
            (Err(why), _) | (_, Err(why)) => return Some(why),
        };
    let (one, other) = advertised.into_iter().zip(listed).find(|(one, other)| one != other)?;
    let (one, other) = (quote(&one.to_string()), quote(&other.to_string()));
    Some(format!("resolved urls: {one} != {other}"))
}

async fn all_resolved(urls: &[Url], deadline: Instant) -> Result<Vec<Url>, String> {
    let mut resolved = Vec::new();
    for url in urls {
        resolved.push(resolve(url, deadline).await?);
    }
    Ok(resolved)
}

/// The URL with its host's first address; `localhost` stays as it is. A name that nobody knows yet is looked up again
/// until `deadline`: names of members that start together appear one by one.
async fn resolve(url: &Url, deadline: Instant) -> Result<Url, String> {
    if url.is_unix() || url.hostname() == "localhost" {
        return Ok(url.clone());
    }
    loop {
        let why = match tokio::net::lookup_host(&url.host).await {
            Ok(mut addresses) => match addresses.next() {
                Some(address) => return Ok(Url { host: address.to_string(), ..url.clone() }),
                None => "no addresses".to_owned(),
            },
            Err(why) => words(&why),
        };
        tracing::warn!(%url, host = url.host, "retry-interval" = "1s", error = why, "failed to resolve URL Host");
        if Instant::now() + RESOLVE_AGAIN > deadline {
            let (url, host) = (quote(&url.to_string()), url.hostname());
            return Err(format!("failed to resolve {url} (lookup {host}: {why})"));
        }
        tokio::time::sleep(RESOLVE_AGAIN).await;
    }
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

    async fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let cluster = parse(&config.cluster.initial_cluster).unwrap();
        check(&config, &cluster).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_initial_cluster_that_is_not_ours_is_refused_in_etcds_words() {
        assert_eq!(
            refused(|c| c.member.name = "x".to_owned()).await,
            "couldn't find local name \"x\" in the initial cluster configuration"
        );
        assert_eq!(
            refused(|c| c.member.advertise_peer = parse_list("http://127.0.0.9:1").unwrap()).await,
            "--initial-cluster has default=http://localhost:2380 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.9:1 (resolved urls: \"http://127.0.0.9:1\" != \
             \"http://localhost:2380\")"
        );
        assert_eq!(
            refused(|c| {
                c.member.advertise_peer = parse_list("http://a:1,http://localhost:2380").unwrap();
            })
            .await,
            "--initial-advertise-peer-urls has http://a:1 but missing from \
             --initial-cluster=default=http://a:1,default=http://localhost:2380"
        );
        assert_eq!(
            refused(|c| c.cluster.initial_cluster.push_str(",b=http://localhost:2380")).await,
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
        );
        let config = Config::default();
        let cluster = parse(&config.cluster.initial_cluster).unwrap();
        assert_eq!(check(&config, &cluster).await, Ok(()));
        assert_eq!(print(&cluster), "default=http://localhost:2380");
    }

    #[test]
    fn members_that_a_domain_names_speak_for_it_unless_their_authorities_are_listed() {
        let expects = |domain: &str, ca: &str| {
            let mut config = Config::default();
            config.discovery.srv_domain = domain.to_owned();
            config.security.peer.trusted_ca_file = ca.to_owned();
            format!("{:?}", connector(&config, Connector::default())).contains("example.com")
        };
        assert!(expects("example.com", ""));
        assert!(!expects("example.com", "/x/ca") && !expects("", ""));
    }

    #[test]
    fn who_discovers_the_others_has_the_ids_of_its_token() {
        let mut config = Config::default();
        config.discovery.token = "t".to_owned();
        config.discovery.endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let discovered =
            |listed: &str, size| discovered(&config, &Joined { listed: listed.to_owned(), size });
        let found = discovered("default=http://localhost:2380,b=http://b:1", 2).unwrap();
        assert_eq!(found.member, member_id(&["http://localhost:2380".to_owned()], "t"));
        for (listed, why) in [
            ("a=http://b:1,b=http://b:1", "has duplicate url"),
            (
                "default=http://localhost:2380,default=http://b:1",
                "does not list this member: its name \"default\" must be its alone",
            ),
            (
                "b=http://b:1,b=http://c:1,default=http://localhost:2380",
                "has 2 members instead of 3: two have registered under one name; give each a name of its own and \
                 start all again",
            ),
        ] {
            let size = listed.split(',').count();
            let shown = print(&parse(listed).unwrap());
            let want = format!("discovery cluster {shown} {why}");
            assert_eq!(discovered(listed, size), Err(want));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_nobody_knows_is_looked_up_again_before_it_is_refused() {
        let began = Instant::now();
        let why = refused(|c| {
            c.member.advertise_peer = parse_list("http://nowhere.invalid:2380").unwrap();
        });
        let why = why.await;
        assert!(
            why.contains("(failed to resolve \"http://nowhere.invalid:2380\" (lookup"),
            "{why}"
        );
        assert!(began.elapsed() >= RESOLVE_FOR - RESOLVE_AGAIN);
    }

    // Ids that etcd 3.7.1 shows for the same flags.
    #[test]
    fn three_members_have_the_ids_that_etcd_gives_them_whoever_looks() {
        let mut config = Config::default();
        config.cluster.initial_cluster =
            "a=http://127.0.0.1:2380,b=http://127.0.0.1:2480,c=http://127.0.0.1:2580".to_owned();
        let mut seen: Vec<(String, String)> = Vec::new();
        for port in [2380, 2480, 2580] {
            config.member.advertise_peer = parse_list(&format!("http://127.0.0.1:{port}")).unwrap();
            let cluster = parse(&config.cluster.initial_cluster).unwrap();
            let who = who(&config, &cluster);
            assert_eq!(who, known_as_told(&config, &who));
            seen.push((who.cluster.to_string(), who.member.to_string()));
        }
        let mut members: Vec<&str> = seen.iter().map(|(_, member)| member.as_str()).collect();
        assert_eq!(members[0], "b71f75320dc06a6c");
        members.sort_unstable();
        assert_eq!(members, ["11bff47b8baf3ee9", "2daa54f17ef01167", "b71f75320dc06a6c"]);
        assert!(seen.iter().all(|(cluster, _)| cluster == "c14c235c147937a"));
    }

    fn known_as_told(config: &Config, who: &Who) -> Who {
        Who { first: who.first.clone(), ..known(config, who.cluster, who.member) }
    }
}
