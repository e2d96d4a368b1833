//! A member that is added to a cluster which is there already: who it is, the others say
//! (etcd `server/etcdserver/bootstrap.go`, `bootstrapExistingClusterNoWAL`; `api/membership/cluster.go`,
//! `ValidateClusterAndAssignIDs`).
//!
//! ```text
//!   --initial-cluster without this member ── GET /members ──> ids and URLs
//!   URLs of --initial-cluster, one member each? ──> this member's id, the cluster's id
//!   ── GET /version, until one is told ──> a version and a level that this software understands?
//! ```

use std::time::Duration;

use quorate_core::state_machine::CLUSTER_LEVEL;
use tokio::time::Instant;

use super::{ASK_FOR, InitialCluster, Who, already_bootstrapped, difference, print};
use crate::embed::Config;
use crate::host::peers::{
    RemoteCluster, RemoteMember, RemoteVersion, remote_clusters, remote_versions,
};
use crate::service::version::cluster_version;
use crate::support::tls::Connector;
use crate::support::urls::{parse_list, texts};

/// Between two times that members are asked which do not answer at first.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// So often they are asked: etcd gives each ten seconds.
const TRIES: u32 = 7;

/// Who this member is in the cluster of those that are reached at `introducers`.
pub(super) async fn join(
    config: &Config,
    cluster: &InitialCluster,
    introducers: Vec<String>,
    tls: &Connector,
) -> Result<Who, String> {
    let told = ask(&introducers, tls).await.ok_or_else(|| {
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
            .to_owned()
    })?;
    // One that is behind does not know this member yet, another may.
    let mut refused = None;
    for existing in &told {
        match own_member(config, cluster, existing).await {
            Ok(own) => {
                let others = existing.members.iter().filter(|member| member.id() != own.id());
                let urls: Vec<String> =
                    others.flat_map(|member| member.peer_urls.clone()).collect();
                let election = Duration::from_millis(config.cluster.election_ms);
                if !is_compatible(existing.level, &urls, tls, VERSION_WAIT + 2 * election).await {
                    return Err("incompatible with current running cluster".to_owned());
                }
                return settle(config, cluster, existing, own, introducers);
            }
            Err(why) => {
                let shown = show(existing);
                refused.get_or_insert(format!("error validating peerURLs {shown}: {why}"));
            }
        }
    }
    Err(refused.expect("there is at least one answer"))
}

/// What the members answer, once one does.
async fn ask(introducers: &[String], tls: &Connector) -> Option<Vec<RemoteCluster>> {
    for _ in 0..TRIES {
        let told = remote_clusters(introducers, tls, ASK_FOR).await;
        if !told.is_empty() {
            return Some(told);
        }
        for url in introducers {
            tracing::warn!(address = format!("{url}/members"), "failed to get cluster response");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    None
}

/// The oldest cluster version that etcd's members join (etcd `api/version/version.go`, `MinClusterVersion`).
const VERSION_MIN: (u64, u64, u64) = (3, 0, 0);

/// How long some member's version is waited for, beside two election timeouts (etcd `server/config/config.go`,
/// `ReqTimeout`).
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// Whether this member may join a cluster of that level whose members are reached at `urls`. They are asked until one
/// tells a version, for longer each time: who joins may come while they restart, elect, or have much to do.
async fn is_compatible(
    level: Option<u32>,
    urls: &[String],
    tls: &Connector,
    limit: Duration,
) -> bool {
    let deadline = Instant::now() + limit;
    let mut patience = ASK_FOR;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let versions = remote_versions(urls, tls, patience.min(rest)).await;
        match fit(level, &versions, &cluster_version()) {
            Fit::Good => return true,
            Fit::Bad => return false,
            Fit::Unknown => tracing::warn!(?urls, "no member has told its cluster's version yet"),
        }
        if Instant::now() + ASK_AGAIN >= deadline {
            return false;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        patience *= 2;
    }
}

/// How a cluster and a member that is to join it go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Some member's version is known, and none is out of range.
    Good,
    /// No version is known.
    Unknown,
    /// The level or a version is out of range.
    Bad,
}

/// What members tell, to one that takes part in clusters up to the version `own` (etcd
/// `server/etcdserver/cluster_util.go`, `isCompatibleWithVers`).
fn fit(level: Option<u32>, versions: &[RemoteVersion], own: &str) -> Fit {
    let known = level.is_some_and(|level| level <= CLUSTER_LEVEL);
    if !known {
        tracing::warn!(
            ?level,
            "level-understood" = CLUSTER_LEVEL,
            "cluster level is not compatible"
        );
        return Fit::Bad;
    }
    let most = version(own);
    let mut fit = Fit::Unknown;
    for told in versions {
        // One that has not decided yet says nothing.
        let Some(cluster) = version(&told.cluster) else { continue };
        let (low, high) = (cluster < VERSION_MIN, Some(cluster) > most);
        if low || high {
            tracing::warn!(
                "remote-member-cluster-version" = told.cluster,
                "remote-member-version" = told.server,
                "maximum-cluster-version-supported" = own,
                "cluster version of remote member is not compatible; too {}",
                if low { "low" } else { "high" }
            );
            return Fit::Bad;
        }
        fit = Fit::Good;
    }
    fit
}

/// `major.minor.patch`.
fn version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.splitn(3, '.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn settle(
    config: &Config,
    cluster: &InitialCluster,
    existing: &RemoteCluster,
    own: &RemoteMember,
    introducers: Vec<String>,
) -> Result<Who, String> {
    let learners = existing.members.iter().filter(|member| member.is_learner).count();
    if i64::try_from(learners).is_ok_and(|learners| learners > config.cluster.learners_max) {
        return Err("membership: too many learner members in cluster".to_owned());
    }
    // Its votes and what it acknowledged went with its directory: it must not come back under its id.
    if !own.client_urls.is_empty() {
        return Err(already_bootstrapped(own.id()));
    }
    Ok(Who {
        cluster: existing.cluster,
        member: own.id(),
        members: Vec::new(),
        introducers,
        first: print(cluster),
    })
}

/// Finds each member of the cluster among those of the flags; the one that is this.
async fn own_member<'a>(
    config: &Config,
    cluster: &InitialCluster,
    existing: &'a RemoteCluster,
) -> Result<&'a RemoteMember, String> {
    if existing.members.len() != cluster.len() {
        return Err("member count is unequal".to_owned());
    }
    let mut own = None;
    let mut members: Vec<&RemoteMember> = existing.members.iter().collect();
    members.sort_by(|one, other| one.peer_urls.cmp(&other.peer_urls));
    for member in members {
        let name = named(cluster, &member.peer_urls).await.map_err(|why| {
            let (id, urls) = (member.id(), member.peer_urls.join(" "));
            format!(
                "PeerURLs: no match found for existing member ({id}, [{urls}]), last resolver error ({why})"
            )
        })?;
        if name == config.member.name {
            own = Some(member);
        }
    }
    own.ok_or_else(|| "this member is not among them".to_owned())
}

/// The name of the member that is reached at these URLs; else how the last of them differs.
async fn named<'a>(cluster: &'a InitialCluster, peer_urls: &[String]) -> Result<&'a str, String> {
    let known = parse_list(&peer_urls.join(",")).unwrap_or_default();
    // As they are written first: names that cannot be found would be looked up for long.
    if let Some((name, _)) = cluster.iter().find(|(_, urls)| texts(urls) == texts(&known)) {
        return Ok(name);
    }
    let mut last = String::new();
    for (name, urls) in cluster {
        match difference(&known, urls).await {
            None => return Ok(name),
            Some(why) => last = why,
        }
    }
    Err(last)
}

/// As Go prints a cluster.
fn show(cluster: &RemoteCluster) -> String {
    let member = |member: &RemoteMember| {
        format!(
            "&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
            member.id(),
            member.peer_urls.join(" "),
            member.is_learner,
            member.name,
            member.client_urls.join(" ")
        )
    };
    let members: Vec<String> = cluster.members.iter().map(member).collect();
    let id = cluster.cluster;
    format!("{{ClusterID:{id} Members:[{}] RemovedMemberIDs:[]}}", members.join(" "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use quorate_core::api::ids::ClusterId;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::parse;
    use super::*;

    fn member(json: &str) -> RemoteMember {
        serde_json::from_str(json).unwrap()
    }

    fn existing() -> RemoteCluster {
        RemoteCluster {
            cluster: ClusterId(0xc1),
            level: Some(CLUSTER_LEVEL),
            members: vec![
                member(
                    r#"{"id":10,"peerURLs":["http://127.0.0.1:1"],"name":"a","clientURLs":["http://127.0.0.1:9"]}"#,
                ),
                member(r#"{"id":11,"peerURLs":["http://127.0.0.1:2"],"isLearner":true}"#),
            ],
        }
    }

    async fn who(
        initial: &str,
        existing: &RemoteCluster,
        change: impl FnOnce(&mut Config),
    ) -> Result<Who, String> {
        let mut config = Config::default();
        config.member.name = "b".to_owned();
        change(&mut config);
        let cluster = parse(initial).unwrap();
        let own = own_member(&config, &cluster, existing).await?;
        settle(&config, &cluster, existing, own, Vec::new())
    }

    const INITIAL: &str = "a=http://127.0.0.1:1,b=http://127.0.0.1:2";

    #[tokio::test]
    async fn a_member_takes_the_id_that_the_cluster_has_given_it() {
        let found = who(INITIAL, &existing(), |_| ()).await.unwrap();
        assert_eq!((found.cluster.0, found.member.0, found.members), (0xc1, 11, Vec::new()));
    }

    #[test]
    fn a_cluster_of_another_kind_or_of_a_later_version_is_not_joined() {
        let told = |versions: &[&str]| -> Vec<RemoteVersion> {
            let version = |cluster: &&str| RemoteVersion {
                server: "3.7.1".to_owned(),
                cluster: (*cluster).to_owned(),
            };
            versions.iter().map(version).collect()
        };
        let ours = Some(CLUSTER_LEVEL);
        for (level, versions, want) in [
            (ours, &["3.7.0", "3.7.0"][..], Fit::Good),
            (Some(0), &["3.6.0"], Fit::Good),
            (ours, &["not_decided", "3.7.0"], Fit::Good),
            (ours, &["not_decided"], Fit::Unknown),
            (ours, &[], Fit::Unknown),
            (ours, &["3.7.0", "3.8.0"], Fit::Bad),
            (ours, &["2.3.0"], Fit::Bad),
            (Some(CLUSTER_LEVEL + 1), &["3.7.0"], Fit::Bad),
            (None, &["3.7.0"], Fit::Bad),
        ] {
            assert_eq!(fit(level, &told(versions), "3.7.0"), want, "{level:?} {versions:?}");
        }
    }

    /// What a member says of its cluster's version, and when; `None` cuts the connection.
    type Told = Option<(Duration, &'static str)>;

    /// A member as one that joins sees it, and how often it was asked for a version; `told` says what it answers.
    async fn introducer(told: fn(usize) -> Told) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let members = format!(
            r#"[{{"id":10,"peerURLs":["{url}"]}},{{"id":11,"peerURLs":["http://127.0.0.1:2"]}}]"#
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (members, count) = (members.clone(), count.clone());
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).await.unwrap();
                    let (pause, body) = if request[..length].starts_with(b"GET /members ") {
                        (Duration::ZERO, members)
                    } else {
                        let Some((pause, cluster)) = told(count.fetch_add(1, Relaxed)) else {
                            return;
                        };
                        (pause, format!(r#"{{"etcdserver":"3.7.1","etcdcluster":"{cluster}"}}"#))
                    };
                    tokio::time::sleep(pause).await;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: c1\r\nX-Quorate-Cluster-Level: {CLUSTER_LEVEL}\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    // Who asked may have gone.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        (url, asked)
    }

    async fn joins(introducer: &str) -> Result<Who, String> {
        let mut config = Config::default();
        config.member.name = "b".to_owned();
        let cluster = parse(&format!("a={introducer},b=http://127.0.0.1:2")).unwrap();
        join(&config, &cluster, vec![introducer.to_owned()], &Connector::default()).await
    }

    #[tokio::test]
    async fn members_that_tell_no_version_at_first_are_asked_again() {
        let (introducer, asked) = introducer(|before| match before {
            0 => None,
            1 => Some((Duration::ZERO, "not_decided")),
            // Longer than the first time it is waited for.
            _ => Some((ASK_FOR + ASK_AGAIN, "3.7.0")),
        })
        .await;
        let joined = joins(&introducer).await;
        assert_eq!(joined.map(|who| (who.cluster.0, who.member.0)), Ok((0xc1, 11)));
        assert!(asked.load(Relaxed) >= 3);
    }

    #[tokio::test]
    async fn a_version_that_is_too_high_refuses_at_once_and_none_at_all_in_the_end() {
        let (later, asked) = introducer(|_| Some((Duration::ZERO, "3.8.0"))).await;
        let refused = Err("incompatible with current running cluster".to_owned());
        assert_eq!(joins(&later).await, refused);
        assert_eq!(asked.load(Relaxed), 1);
        let (undecided, asked) = introducer(|_| Some((Duration::ZERO, "not_decided"))).await;
        assert!(!is_compatible(Some(0), &[undecided], &Connector::default(), 4 * ASK_AGAIN).await);
        assert!(asked.load(Relaxed) > 1);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_in_etcds_words() {
        let refused = who("b=http://127.0.0.1:2", &existing(), |_| ()).await;
        assert_eq!(refused, Err("member count is unequal".to_owned()));
        let other = "a=http://127.0.0.1:1,b=http://127.0.0.1:3";
        assert_eq!(
            who(other, &existing(), |_| ()).await.unwrap_err(),
            "PeerURLs: no match found for existing member (b, [http://127.0.0.1:2]), last resolver error \
             (resolved urls: \"http://127.0.0.1:2\" != \"http://127.0.0.1:3\")"
        );
        let refused = who(INITIAL, &existing(), |config| config.cluster.learners_max = 0).await;
        assert_eq!(refused, Err("membership: too many learner members in cluster".to_owned()));
        let mut again = existing();
        again.members[1].client_urls = vec!["http://127.0.0.1:8".to_owned()];
        let refused = who(INITIAL, &again, |_| ()).await;
        assert_eq!(refused, Err("member b has already been bootstrapped".to_owned()));
        assert_eq!(
            show(&existing()),
            "{ClusterID:c1 Members:[&{ID:a RaftAttributes:{PeerURLs:[http://127.0.0.1:1] IsLearner:false} \
             Attributes:{Name:a ClientURLs:[http://127.0.0.1:9]}} &{ID:b \
             RaftAttributes:{PeerURLs:[http://127.0.0.1:2] IsLearner:true} Attributes:{Name: ClientURLs:[]}}] \
             RemovedMemberIDs:[]}"
        );
    }
}
