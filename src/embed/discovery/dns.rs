//! The first members as DNS has them (etcd `server/embed/config.go`, `GetDNSClusterNames`; `client/pkg/srv/srv.go`,
//! `GetCluster`).
//!
//! ```text
//!   _etcd-server-ssl._tcp.<domain> ─┬─ target where this member is reached ──> <name>=https://target:port
//!   _etcd-server._tcp.<domain>  ────┘  any other                           ──> 0=…, 1=…
//! ```

use std::net::SocketAddr;

use super::DiscoverySettings;
use crate::embed::Config;
use crate::embed::bootstrap::{InitialCluster, parse};
use crate::support::go::quote::quote;
use crate::support::listen::words;
use crate::support::srv::{Names, Record, service_name};
use crate::support::urls::{Url, join_host_port, texts};

/// The members of the domain, this one among them.
pub(in crate::embed) async fn cluster(
    config: &Config,
    names: &Names,
) -> Result<InitialCluster, String> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for secure in [true, false] {
        match ask(config, names, secure).await {
            Ok(members) => found.extend(members),
            Err(why) => faults.push(why),
        }
    }
    if !faults.is_empty() {
        tracing::warn!(error = faults.join("\n"), "failed to resolve during SRV discovery");
    }
    if found.is_empty() {
        return Err(refused(&faults.join("\n")));
    }
    for node in &found {
        tracing::info!(node, "got bootstrap from DNS for etcd-server");
    }
    let cluster = parse(&found.join(","))?;
    let name = &config.member.name;
    if !cluster.contains_key(name) {
        let why = format!("cannot find local etcd member {} in SRV records", quote(name));
        return Err(refused(&why));
    }
    Ok(cluster)
}

fn refused(why: &str) -> String {
    format!("error setting up initial cluster: {why}")
}

/// The members of one service, as `name=url`.
async fn ask(config: &Config, names: &Names, secure: bool) -> Result<Vec<String>, String> {
    let DiscoverySettings { srv_domain: domain, srv_name: suffix, .. } = &config.discovery;
    let scheme = if secure { "https" } else { "http" };
    let service = service_name("etcd-server", secure, suffix);
    let found = members(config, names, scheme, &service).await;
    let shown = found.as_deref().unwrap_or_default();
    tracing::info!(
        "service-scheme" = scheme,
        "service-name" = service,
        "server-name" = config.member.name,
        "discovery-srv" = domain,
        "advertise-peer-urls" = ?texts(&config.member.advertise_peer),
        "found-cluster" = ?shown,
        error = found.as_ref().err(),
        "get cluster for {} SRV",
        service_name("etcd-server", secure, "")
    );
    found
}

async fn members(
    config: &Config,
    names: &Names,
    scheme: &str,
    service: &str,
) -> Result<Vec<String>, String> {
    let mut own: Vec<(SocketAddr, &Url)> = Vec::new();
    for url in &config.member.advertise_peer {
        own.push((resolve(&url.host).await?, url));
    }
    let failed = |why: String| format!("error querying DNS SRV records for _{service} {why}");
    let records = names.lookup(service, &config.discovery.srv_domain).await.map_err(failed)?;
    let mut found = Vec::new();
    let mut unnamed = 0;
    let mut last = None;
    for Record { target, port, .. } in records {
        let host = join_host_port(&target, port);
        let address = match resolve(&host).await {
            Ok(address) => address,
            Err(why) => {
                last = Some(why);
                continue;
            }
        };
        let same = own.iter().rev().find(|(known, _)| *known == address).map(|(_, url)| *url);
        let name = match same {
            Some(_) if !config.member.name.is_empty() => config.member.name.clone(),
            _ => {
                unnamed += 1;
                (unnamed - 1).to_string()
            }
        };
        match same {
            Some(url) if url.scheme != scheme => {
                last = Some(format!(
                    "bootstrap at {scheme}://{host} from DNS for {service} has scheme mismatch with expected \
                     peer {url}"
                ));
            }
            _ => found.push(format!("{name}={scheme}://{host}")),
        }
    }
    match last {
        Some(why) if found.is_empty() => Err(failed(why)),
        _ => Ok(found),
    }
}

/// The first address of `host:port`, of version 4 if there is one.
async fn resolve(host: &str) -> Result<SocketAddr, String> {
    let failed = |why: &str| format!("lookup {host}: {why}");
    let found = tokio::net::lookup_host(host).await.map_err(|why| failed(&words(&why)))?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| failed("no such host"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::bootstrap::print;
    use crate::support::srv::testing::Zone;
    use crate::support::urls::parse_list;

    const TLS: &str = "_etcd-server-ssl._tcp.example.com.";
    const PLAIN: &str = "_etcd-server-blue._tcp.example.com.";

    fn config(name: &str, advertised: &str) -> Config {
        let mut config = Config::default();
        config.member.name = name.to_owned();
        config.member.advertise_peer = parse_list(advertised).unwrap();
        config.discovery.srv_domain = "example.com".to_owned();
        config
    }

    #[tokio::test]
    async fn a_member_finds_itself_by_its_address_and_the_others_are_numbered() {
        let zone = Zone::serve(&[
            (TLS, 0, 0, 1, "localhost."),
            (TLS, 1, 0, 2, "localhost."),
            (TLS, 2, 0, 3, "localhost."),
            (TLS, 3, 0, 4, "nowhere.invalid."),
        ])
        .await;
        let found = cluster(&config("b", "https://127.0.0.1:2"), &zone.names()).await.unwrap();
        assert_eq!(
            print(&found),
            "0=https://localhost:1,1=https://localhost:3,b=https://localhost:2"
        );
    }

    #[tokio::test]
    async fn a_suffix_tells_clusters_apart() {
        let zone = Zone::serve(&[(PLAIN, 0, 0, 1, "localhost.")]).await;
        let mut config = config("a", "http://localhost:1");
        config.discovery.srv_name = "blue".to_owned();
        let found = cluster(&config, &zone.names()).await.unwrap();
        assert_eq!(print(&found), "a=http://localhost:1");
    }

    #[tokio::test]
    async fn what_dns_does_not_say_is_refused_in_etcds_words() {
        let zone = Zone::serve(&[(TLS, 0, 0, 1, "localhost.")]).await;
        let refused = async |name: &str, advertised: &str, suffix: &str| {
            let mut config = config(name, advertised);
            config.discovery.srv_name = suffix.to_owned();
            cluster(&config, &zone.names()).await.unwrap_err()
        };
        assert_eq!(
            refused("a", "https://127.0.0.1:9", "").await,
            "error setting up initial cluster: cannot find local etcd member \"a\" in SRV records"
        );
        assert_eq!(
            refused("a", "https://127.0.0.1:9", "blue").await,
            "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-blue lookup \
             _etcd-server-ssl-blue._tcp.example.com: no such host\nerror querying DNS SRV records for \
             _etcd-server-blue lookup _etcd-server-blue._tcp.example.com: no such host"
        );
        let mismatch = refused("a", "http://127.0.0.1:1", "").await;
        assert!(
            mismatch.starts_with(
                "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl bootstrap \
                 at https://localhost:1 from DNS for etcd-server-ssl has scheme mismatch with expected peer \
                 http://127.0.0.1:1\n"
            ),
            "{mismatch}"
        );
    }
}
