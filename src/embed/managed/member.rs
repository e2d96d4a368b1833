//! A member that a node runs: its settings from the plan, and the task that owns it.

use std::path::Path;

use tokio::sync::{mpsc, watch};
use tracing::instrument::WithSubscriber as _;

use super::{listen_url, pair, plain_url, url};
use crate::embed::{Config, Server};
use crate::fleet::node::{
    Ending, InitialNode, LaunchError, MemberPlan, MemberState, NodeSettings, RunningMember,
};
use crate::fleet::pki::Organisation;
use crate::support::tls::TlsSettings;

/// Starts it; [`RunningMember::state`] tells how it does.
pub(super) async fn start(
    settings: &NodeSettings,
    pki: &Path,
    plan: MemberPlan,
) -> Result<RunningMember, LaunchError> {
    let built = config(settings, pki, &plan)?.build();
    let built = built.map_err(|why| LaunchError(why.faults.join("; ")))?;
    let server = Server::spawn(built).await.map_err(|why| LaunchError(why.to_string()))?;
    let keyspace = server.keyspace().clone();
    let (tell, state) = watch::channel(MemberState::Starting);
    let (stop, orders) = mpsc::channel(1);
    tokio::spawn(own(server, tell, orders).with_current_subscriber());
    Ok(RunningMember::new(keyspace, state, stop))
}

fn config(settings: &NodeSettings, pki: &Path, plan: &MemberPlan) -> Result<Config, LaunchError> {
    let mut config = Config::default();
    config.log.inherit = true;
    config.cluster.token = plan.uid.clone();
    config.cluster.heartbeat_ms = settings.timers.heartbeat_ms;
    config.cluster.election_ms = settings.timers.election_ms;
    let member = &mut config.member;
    member.name = plan.name.clone();
    member.data_dir = settings.state_dir.join("member").display().to_string();
    member.listen_peer = vec![listen_url(settings, settings.peer_port)?];
    member.advertise_peer = vec![url(&settings.peer_url(&plan.address))?];
    member.listen_client = vec![listen_url(settings, settings.client_port)?];
    if let Some(port) = settings.plain_client_port {
        member.listen_client.push(plain_url(port)?);
    }
    member.advertise_client = Some(vec![url(&settings.client_url(&plan.address))?]);
    config.cluster.initial_cluster = match plan.members.is_empty() {
        true => config.initial_cluster_from_name(),
        false => initial_cluster(&plan.members),
    };
    if plan.joins {
        config.cluster.initial_state = "existing".to_owned();
    }
    config.security.client = TlsSettings {
        // It speaks for its clients: without a token they are nobody, not the user of its name.
        nameless_organisations: vec![Organisation::Worker.to_string()],
        ..pair(pki, "server")
    };
    config.security.peer = TlsSettings {
        // The authority signs for workers and admins, too.
        allowed_organisations: vec![Organisation::ControlPlane.to_string()],
        ..pair(pki, "peer")
    };
    Ok(config)
}

fn initial_cluster(members: &[InitialNode]) -> String {
    let pair = |member: &InitialNode| {
        let pairs = member.peer_urls.iter().map(|url| format!("{}={url}", member.name));
        pairs.collect::<Vec<_>>()
    };
    members.iter().flat_map(pair).collect::<Vec<_>>().join(",")
}

/// Owns the member until it is told to stop, or until nobody holds it any more.
async fn own(server: Server, tell: watch::Sender<MemberState>, mut orders: mpsc::Receiver<Ending>) {
    let mut order = tokio::select! {
        biased;
        order = orders.recv() => Some(order),
        state = trouble(&server) => { tell.send_replace(state); None }
        () = server.ready() => { tell.send_replace(MemberState::Ready); None }
    };
    if order.is_none() && *tell.borrow() == MemberState::Ready {
        order = tokio::select! {
            order = orders.recv() => Some(order),
            state = trouble(&server) => { tell.send_replace(state); None }
        };
    }
    let order = match order {
        Some(order) => order,
        None => orders.recv().await,
    };
    let stopped = match order {
        Some(Ending::Removed) => server.leave().await,
        Some(Ending::InOrder) | None => server.stop().await,
    };
    tell.send_replace(MemberState::Ended(stopped.err().map(|why| why.to_string())));
}

async fn trouble(server: &Server) -> MemberState {
    tokio::select! {
        why = server.failed() => MemberState::Failed(why),
        () = server.removed() => MemberState::Removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(members: Vec<InitialNode>, joins: bool) -> MemberPlan {
        MemberPlan {
            uid: "u".to_owned(),
            name: "n2".to_owned(),
            address: "10.0.0.2:7400".to_owned(),
            members,
            joins,
        }
    }

    #[test]
    fn a_member_of_a_fleet_speaks_tls_and_has_the_addresses_of_its_node() {
        let settings = NodeSettings {
            host: "10.0.0.2".to_owned(),
            plain_client_port: Some(2378),
            ..NodeSettings::default()
        };
        let member = |name: &str, url: &str| InitialNode {
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
        };
        let others =
            vec![member("n1", "https://10.0.0.1:2380"), member("n2", "https://10.0.0.2:2380")];
        let config = config(&settings, Path::new("/s/pki"), &plan(others, true)).unwrap();
        assert_eq!(
            config.cluster.initial_cluster,
            "n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380"
        );
        assert_eq!(config.cluster.initial_state, "existing");
        assert_eq!(config.cluster.token, "u");
        let urls = |urls: &[crate::support::urls::Url]| crate::support::urls::texts(urls);
        assert_eq!(urls(&config.member.listen_peer), ["https://10.0.0.2:2380"]);
        assert_eq!(
            urls(&config.member.listen_client),
            ["https://10.0.0.2:2379", "http://127.0.0.1:2378"]
        );
        assert_eq!(
            urls(config.member.advertise_client.as_deref().unwrap()),
            ["https://10.0.0.2:2379"]
        );
        assert!(config.security.client.client_cert_auth && config.security.peer.client_cert_auth);
        assert_eq!(config.security.peer.key_file, "/s/pki/peer.key");
        assert_eq!(config.security.peer.allowed_organisations, ["quorate:control-plane"]);
        assert_eq!(config.security.client.nameless_organisations, ["quorate:worker"]);
    }

    #[test]
    fn the_first_member_begins_alone() {
        let config = config(&NodeSettings::default(), Path::new("/p"), &plan(Vec::new(), false));
        let config = config.unwrap();
        assert_eq!(config.cluster.initial_cluster, "n2=https://10.0.0.2:2380");
        assert_eq!(config.cluster.initial_state, "new");
    }
}
