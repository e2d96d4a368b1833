//! Another node is let in, asked by itself with a token.
//!
//! ```text
//!   token looked at ── nobody else is coming in ── certificates signed ── ONE entry: token used up, node entered
//!     │  ── member added, a voter once it is level ── answer          it cannot be added: the entry is undone
//!     └── used up by this very asking: its answer was lost, and it is let in under the same id
//! ```
//!
//! **Invariant:** whoever is answered is in the registry and a member, or in neither once this has returned.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAdmit, FleetNode, FleetRole, FleetTokenIssue};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::authority::Signed;
use super::bootstrap::now;
use super::certificates::{self, Subject};
use super::config;
use super::life::Node;
use super::refusals::of_keyspace;
use super::registry::{NodeRecord, change};
use super::remove::forget;
use super::stage::Seat;
use super::tokens::{secret, unix_ms};
use super::waiting::Waiting;
use crate::fleet::api::Sensitive;
use crate::fleet::api::cluster::{ClusterRole, DatastoreRole};
use crate::fleet::api::internal::{JoinAdmission, JoinAsk, JoinMember, VERSION};
use crate::fleet::api::names::clean_name;
use crate::fleet::error::FleetError;
use crate::fleet::pki::host_of;
use crate::fleet::secret::{Secret, SecretHash};
use crate::keyspace::{Keyspace, KeyspaceError};
use crate::support::urls::parse_list;

/// How long a node that wants to come in waits for another one to be in.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a node that was let in may ask for its answer again.
const ASKS_AGAIN_MS: i64 = 5 * 60 * 1000;

/// How long a node's own API may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(3);

impl Node {
    /// Whether the node of that name would be let in again, if it asked as it has asked before.
    #[cfg(test)]
    pub(crate) async fn may_ask_again(&self, name: &str) -> bool {
        let seat = self.stage().seat().expect("it is a member");
        let asked = seat.keyspace().fleet_now(|fleet| {
            fleet.node_named(name).map(|node| node.asked.clone()).unwrap_or_default()
        });
        entered_before(&seat, &asked).await.expect("it can be read").is_some()
    }

    /// Lets a node in. Served one after the other here; who joins by another node of the fleet is waited for, too.
    pub(super) async fn admit_node(&self, ask: JoinAsk) -> Result<JoinAdmission, FleetError> {
        let seat = self.stage().seat()?;
        let coming = Coming::check(&seat, ask)?;
        let node = self.clone();
        // It is finished, or undone, if the joiner goes away.
        self.detached(async move {
            let deadline = Instant::now() + PATIENCE;
            let Ok(_turn) = timeout(PATIENCE, node.0.admissions.lock()).await else {
                return Err(FleetError::AnotherJoins);
            };
            let admitted = node.admit_one(&seat, &coming, deadline).await;
            match &admitted {
                Ok(admission) => {
                    tracing::info!(name = coming.name, id = admission.id, "a node was let in");
                }
                Err(why) => {
                    tracing::warn!(name = coming.name, error = %why, "a node was not let in");
                }
            }
            admitted
        })
        .await
    }

    async fn admit_one(
        &self,
        seat: &Seat,
        coming: &Coming,
        deadline: Instant,
    ) -> Result<JoinAdmission, FleetError> {
        let mut entered = entered_before(seat, &coming.asked).await?;
        if entered.is_none() {
            check_token(seat, &coming.secret, &coming.name, FleetRole::ControlPlane).await?;
            check_new(seat, &coming.name, &coming.address).await?;
        }
        reach(&coming.address).await?;
        if entered.is_none() {
            settle(seat, deadline).await?;
            // Another node may have let it in meanwhile.
            entered = entered_before(seat, &coming.asked).await?;
        }
        let config = config::read(seat.keyspace()).await?.0;
        let subject = Subject::joining(&coming.name, &coming.hosts());
        let signed = Signed::now(seat, &subject, &coming.csrs).await?;
        self.0.steps.reach("signed").await?;
        let id = match entered {
            Some(id) => again(&coming.name, id),
            None => enter(seat, &coming.secret, coming.node()).await?,
        };
        self.0.steps.reach("admitted").await?;
        let entered = async {
            let members = add(seat, id, &coming.peer_urls, deadline).await?;
            Ok((members, signed.once_entered(seat, &subject, &coming.csrs).await?))
        };
        let (members, signed) = match entered.await {
            Ok(entered) => entered,
            Err(why) => {
                undo(seat, id).await;
                return Err(why);
            }
        };
        self.0.steps.reach("added").await?;
        let named = |member: &quorate_core::api::pb::etcdserverpb::Member| JoinMember {
            id: MemberId(member.id).to_string(),
            name: match member.id == id.0 {
                true => coming.name.clone(),
                false => member.name.clone(),
            },
            peer_urls: member.peer_ur_ls.clone(),
        };
        Ok(JoinAdmission {
            version: VERSION,
            id: id.to_string(),
            cluster_id: seat.keyspace().config().cluster_id.to_string(),
            members: members.iter().map(named).collect(),
            ca: certificates::authorities(&signed.authority)?,
            certificates: signed.certificates,
            fleet_key: Sensitive::new(seat.key.to_base64().reveal()),
            config: serde_json::to_value(&config).expect("a config has names for keys"),
        })
    }
}

/// A node that wants to come in, as far as it can be checked without asking anybody.
struct Coming {
    name: String,
    address: String,
    secret: Secret,
    peer_urls: Vec<String>,
    csrs: BTreeMap<String, String>,
    /// SHA-256 of all that it asks with.
    asked: SecretHash,
}

impl Coming {
    fn check(seat: &Seat, ask: JoinAsk) -> Result<Coming, FleetError> {
        let invalid = |text: String| Err(FleetError::Invalid(text));
        if ask.version != VERSION {
            return invalid(format!("version {} of joining is not known here", ask.version));
        }
        if ask.uid != seat.uid {
            return Err(FleetError::Unauthorized("the token is of another cluster".to_owned()));
        }
        let name = clean_name(&ask.name)?;
        let Some(host) = host_of(&ask.address) else {
            return invalid(format!("the address {:?} has no host", ask.address));
        };
        let urls = parse_list(&ask.peer_urls.join(","));
        let urls = urls.map_err(|why| FleetError::Invalid(format!("peer URLs: {why}")))?;
        if urls.is_empty() || ask.client_urls.is_empty() {
            return invalid("a node needs peer URLs and client URLs".to_owned());
        }
        for url in ask.peer_urls.iter().chain(&ask.client_urls) {
            if !url.starts_with("https://") || host_of(url).as_deref() != Some(host.as_str()) {
                return invalid(format!("{url} is not an https URL of {host}"));
            }
        }
        let asked = serde_json::to_string(&ask).expect("an asking has names for keys");
        Ok(Coming {
            name,
            asked: Secret::from(asked).hash(),
            address: ask.address,
            secret: secret(&ask.secret),
            peer_urls: ask.peer_urls,
            csrs: ask.csrs,
        })
    }

    fn hosts(&self) -> Vec<String> {
        vec![self.address.clone()]
    }

    fn node(&self) -> FleetNode {
        let record = NodeRecord {
            name: self.name.clone(),
            address: self.address.clone(),
            role: ClusterRole::ControlPlane,
            status: Some(DatastoreRole::Pending),
            joined_at: now(),
        };
        listed(&record, &self.asked)
    }
}

/// A node as it is entered, under an id that nobody has. `asked`: empty if it may not ask again.
pub(super) fn listed(record: &NodeRecord, asked: &[u8]) -> FleetNode {
    let role = match record.role {
        ClusterRole::Worker => FleetRole::Worker,
        ClusterRole::ControlPlane => FleetRole::ControlPlane,
        ClusterRole::Unknown => FleetRole::Unspecified,
    };
    FleetNode {
        id: rand::random_range(1..=u64::MAX),
        name: record.name.clone(),
        address: record.address.clone(),
        role: role as i32,
        record: record.encode(),
        asked: Bytes::copy_from_slice(asked),
        asked_until_ms: unix_ms().saturating_add(ASKS_AGAIN_MS),
    }
}

/// The id under which this very asking was let in before, as long as it may be asked again. One that votes has had its
/// answer.
pub(super) async fn entered_before(
    seat: &Seat,
    asked: &[u8],
) -> Result<Option<MemberId>, FleetError> {
    let read = seat
        .keyspace()
        .fleet(|fleet| fleet.node_that_asked(asked, unix_ms()).map(|node| MemberId(node.id)));
    let found = read.await.map_err(of_keyspace)?;
    Ok(found.filter(|id| !seat.keyspace().voters().contains(id)))
}

/// Nothing is used up or entered for whoever was let in before.
pub(super) fn again(name: &str, id: MemberId) -> MemberId {
    tracing::info!(name, %id, "a node that was let in asks again");
    id
}

/// Uses the token up and enters the node, in one entry.
pub(super) async fn enter(
    seat: &Seat,
    shown: &Secret,
    node: FleetNode,
) -> Result<MemberId, FleetError> {
    let (id, asked) = (MemberId(node.id), node.asked.clone());
    let token_hash = Bytes::copy_from_slice(&shown.hash());
    let admit = FleetAdmit { token_hash, node: Some(node) };
    match change(seat.keyspace(), Ask::Admit(admit)).await.map_err(of_keyspace) {
        Ok(()) => Ok(id),
        // By another node, at the same moment.
        Err(why) => entered_before(seat, &asked).await?.ok_or(why),
    }
}

/// Looks at a token without using it up. All that is wrong with it is told to whoever has it, and to nobody else: one
/// that is unknown is told nothing more.
pub(super) async fn check_token(
    seat: &Seat,
    shown: &Secret,
    name: &str,
    role: FleetRole,
) -> Result<FleetTokenIssue, FleetError> {
    let hash = shown.hash();
    let found = seat.keyspace().fleet(|fleet| fleet.join_token(&hash).cloned());
    let found = found.await.map_err(of_keyspace)?.filter(|issue| shown.has_hash(&issue.hash));
    let refused = |text: &str| FleetError::Unauthorized(text.to_owned());
    let Some(issue) = found else {
        return Err(refused("the token is unknown, was used, or was revoked"));
    };
    if issue.expires_ms <= unix_ms() {
        return Err(refused("the token has expired"));
    }
    if issue.role != role as i32 {
        return Err(refused("the token is for a node of another role"));
    }
    if !issue.name.is_empty() && issue.name != name {
        return Err(refused("the token is for a node of another name"));
    }
    Ok(issue)
}

/// Before anything is signed; the entry looks again.
pub(super) async fn check_new(seat: &Seat, name: &str, address: &str) -> Result<(), FleetError> {
    let read = seat.keyspace().fleet(|fleet| {
        let named = fleet.node_named(name).is_some();
        let reached = !address.is_empty() && fleet.nodes().any(|node| node.address == address);
        (named, reached)
    });
    match read.await.map_err(of_keyspace)? {
        (true, _) => {
            Err(FleetError::NameTaken(format!("a node named {name:?} is part of the cluster")))
        }
        (_, true) => Err(FleetError::NameTaken(format!(
            "a node with the address {address} is part of the cluster"
        ))),
        (false, false) => Ok(()),
    }
}

/// What a node says of where it is reached has to be so.
async fn reach(address: &str) -> Result<(), FleetError> {
    match timeout(REACHED_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(why)) => Err(FleetError::Invalid(format!(
            "the node cannot be reached at its address {address}: {}",
            crate::support::listen::words(&why)
        ))),
        Err(_elapsed) => {
            Err(FleetError::Invalid(format!("the node does not answer at its address {address}")))
        }
    }
}

/// Waits until no member is on its way to its vote, and enough of them are connected for one more.
async fn settle(seat: &Seat, deadline: Instant) -> Result<(), FleetError> {
    let keyspace = seat.keyspace();
    let mut waiting = Waiting::until(keyspace, deadline);
    while let Err(why) = keyspace.may_be_joined() {
        waiting.wait(why).await?;
    }
    Ok(())
}

/// Adds the member; as long as others are on their way, again.
async fn add(
    seat: &Seat,
    id: MemberId,
    peer_urls: &[String],
    deadline: Instant,
) -> Result<Vec<quorate_core::api::pb::etcdserverpb::Member>, FleetError> {
    let mut waiting = Waiting::until(seat.keyspace(), deadline);
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let added = timeout(rest, seat.keyspace().member_add_as(id, peer_urls, false)).await;
        match added {
            Ok(Ok(members)) => return Ok(members),
            Ok(Err(KeyspaceError::Members(why))) => waiting.wait(why).await?,
            Ok(Err(why)) => return Err(of_keyspace(why)),
            Err(_elapsed) => return Err(FleetError::TimedOut("adding the member")),
        }
    }
}

/// Takes back what was entered: the member by its id, should it have been added after all, then the record, without
/// which nobody adds it any more. What a leader before had in its log stands in front of the record's end.
pub(super) async fn undo(seat: &Seat, id: MemberId) {
    let keyspace = seat.keyspace();
    take_out(keyspace, id).await;
    if let Err(why) = forget(keyspace, id).await {
        tracing::warn!(%id, error = %why, "a node's record cannot be taken back yet");
    }
    take_out(keyspace, id).await;
}

async fn take_out(keyspace: &Keyspace, id: MemberId) {
    let is_member = keyspace.members().iter().any(|member| member.id == id.0);
    if !is_member {
        return;
    }
    match timeout(REACHED_WITHIN, keyspace.member_remove_for_fleet(id)).await {
        Ok(Ok(_members)) => {}
        Ok(Err(why)) => tracing::warn!(%id, error = %why, "a join cannot be undone yet"),
        Err(_elapsed) => tracing::warn!(%id, "a join cannot be undone yet"),
    }
}
