//! The fleet's authority as this node sees it, and how another one is announced.
//!
//! ```text
//!   plan, run "ca" ── a new authority, its key sealed ── ONE change over the generation that was read ──> announced
//!     deciders promote and retire ([`crate::fleet::controllers`]); nodes follow ([`super::renewing`])
//! ```

use std::collections::BTreeMap;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAuthority, FleetAuthorityChange, FleetNode};
use serde_json::{Map, Value};

use super::certificates::{self, Subject, of_pki};
use super::life::Node;
use super::refusals::{of_keyspace, unexpected};
use super::registry::{self, NODES_PREFIX, change, node_key};
use super::stage::Seat;
use super::tokens::unix_ms;
use crate::fleet::api::certificates::{RefreshRunAnswer, RefreshRunRequest, RotationStatus};
use crate::fleet::controllers::asked;
use crate::fleet::error::FleetError;
use crate::fleet::pki::{
    AUTHORITY_SECONDS, Authorities, Authority, LEAF_SECONDS, NodeTrust, PkiError, REPORT, Rotation,
    Trusted, Turn, Validity,
};
use crate::keyspace::Keyspace;

/// The authorities as applied on this member: never older than at an earlier look.
pub(super) fn authorities_here(seat: &Seat) -> Result<Authorities, PkiError> {
    let kept = seat.keyspace().fleet_now(|fleet| fleet.record()?.authority.clone());
    let missing = || PkiError::Make("the fleet has no authority yet".to_owned());
    Authorities::open(&kept.ok_or_else(missing)?, &seat.key, &seat.uid)
}

/// The record of the authorities as of now for every member.
pub(super) async fn authority(keyspace: &Keyspace) -> Result<FleetAuthority, FleetError> {
    let read = keyspace.fleet(|fleet| fleet.record()?.authority.clone());
    read.await.map_err(of_keyspace)?.ok_or(FleetError::NotInitialized)
}

/// What was signed for another node, and by whom.
pub(super) struct Signed {
    pub(super) authority: FleetAuthority,
    /// By name, PEM.
    pub(super) certificates: BTreeMap<String, String>,
}

impl Signed {
    /// Signs what `subject` asks for.
    pub(super) async fn now(
        seat: &Seat,
        subject: &Subject,
        requests: &BTreeMap<String, String>,
    ) -> Result<Signed, FleetError> {
        Signed::lasting(seat, subject, requests, LEAF_SECONDS).await
    }

    /// The same, to be valid for so long.
    pub(super) async fn lasting(
        seat: &Seat,
        subject: &Subject,
        requests: &BTreeMap<String, String>,
        seconds: u64,
    ) -> Result<Signed, FleetError> {
        let authority = authority(seat.keyspace()).await?;
        let certificates =
            certificates::sign(&authority, &seat.key, &seat.uid, subject, requests, seconds)?;
        Ok(Signed { authority, certificates })
    }

    /// For a node that has just been entered: signed anew if the authority has changed since. Before it was entered no
    /// change of the authority waited for it; from now on each does.
    pub(super) async fn once_entered(
        self,
        seat: &Seat,
        subject: &Subject,
        requests: &BTreeMap<String, String>,
    ) -> Result<Signed, FleetError> {
        let generation = authority(seat.keyspace()).await?.generation;
        match generation == self.authority.generation {
            true => Ok(self),
            false => Signed::now(seat, subject, requests).await,
        }
    }
}

/// Writes what a node reports into its key, beside what that says already. `false`: somebody else has changed the key
/// at the same time, the next look tries again.
pub(super) async fn write_report(
    keyspace: &Keyspace,
    id: MemberId,
    report: &Trusted,
) -> Result<bool, FleetError> {
    let key = node_key(id);
    let Some(kv) = registry::get(keyspace, &key, false).await.map_err(of_keyspace)? else {
        // It was removed, and will hear of it.
        return Ok(true);
    };
    let mut record: Map<String, Value> = registry::parse(&kv)?;
    let told = serde_json::to_value(report).map_err(|why| unexpected(&why.to_string()))?;
    if record.get(REPORT) == Some(&told) {
        return Ok(true);
    }
    record.insert(REPORT.to_owned(), told);
    let value = serde_json::to_vec(&record).map_err(|why| unexpected(&why.to_string()))?;
    registry::put_over(keyspace, &key, kv.mod_revision, value).await.map_err(of_keyspace)
}

impl Node {
    /// The authorities as of now for every member.
    pub(super) async fn authorities(&self, seat: &Seat) -> Result<Authorities, FleetError> {
        let authority = authority(seat.keyspace()).await?;
        Authorities::open(&authority, &seat.key, &seat.uid).map_err(of_pki)
    }

    /// Announces a new authority to the fleet, by an open plan for one. When it runs out.
    pub(super) async fn announce(
        &self,
        ask: &RefreshRunRequest,
        seconds: Option<u64>,
    ) -> Result<RefreshRunAnswer, FleetError> {
        let seat = self.stage().seat()?;
        if !ask.extra_sans.is_empty() {
            return Err(FleetError::Invalid("an authority is valid for no host".to_owned()));
        }
        let now_ms = unix_ms();
        let seconds = seconds.unwrap_or(AUTHORITY_SECONDS);
        let validity = Validity::starting(now_ms / 1000, seconds).map_err(of_pki)?;
        let fleet = self.authorities(&seat).await?;
        self.0.plans.redeem_authority(ask.seed, now_ms).map_err(of_pki)?;
        let next = Authority::generate(&seat.uid, validity).map_err(of_pki)?;
        let (fingerprint, expiration_seconds) = (next.fingerprint(), next.facts().not_after);
        let over_generation = fleet.generation();
        let announced = fleet.announce(next).map_err(of_pki)?.seal(&seat.key, &seat.uid);
        let next = FleetAuthorityChange { over_generation, authority: Some(announced) };
        change(seat.keyspace(), Ask::Authority(next)).await.map_err(of_keyspace)?;
        tracing::info!(%fingerprint, "a new authority was announced to the cluster");
        Ok(RefreshRunAnswer { expiration_seconds })
    }

    /// How far the change of the authority is; `None`: there is none.
    pub(super) async fn tell_rotation(
        &self,
        seat: &Seat,
        fleet: &Authorities,
    ) -> Result<Option<RotationStatus>, FleetError> {
        let state = match fleet.rotation() {
            Rotation::Rest => return Ok(None),
            Rotation::Announced => "announced",
            Rotation::Promoted => "promoted",
        };
        let (turn, reason) = fleet.turn(&reports(seat.keyspace()).await?);
        let waits_for = match turn {
            Turn::Wait(names) => names,
            Turn::Rest | Turn::Promote | Turn::Retire => Vec::new(),
        };
        let (state, reason) = (state.to_owned(), reason.to_owned());
        Ok(Some(RotationStatus { state, reason, waits_for }))
    }
}

/// What each node has reported, as the deciders see it.
async fn reports(keyspace: &Keyspace) -> Result<Vec<NodeTrust>, FleetError> {
    // Before the registry: who is let in is entered before it is added.
    let members = keyspace.members();
    let read = keyspace.fleet(|fleet| fleet.nodes().cloned().collect::<Vec<FleetNode>>());
    let nodes = read.await.map_err(of_keyspace)?;
    let keys = registry::list(keyspace, NODES_PREFIX).await.map_err(of_keyspace)?;
    let said: BTreeMap<&[u8], _> = keys.iter().map(|kv| (&kv.key[..], &kv.value[..])).collect();
    let reported = |id: MemberId| {
        let record = *said.get(node_key(id).as_bytes())?;
        let record: Map<String, Value> = serde_json::from_slice(record).ok()?;
        Trusted::of_record(&record)
    };
    Ok(asked(&nodes, members.iter().map(|member| MemberId(member.id)), reported))
}
