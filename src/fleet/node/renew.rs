//! A worker is answered: whom the fleet trusts now, and a new certificate in place of its own.
//!
//! ```text
//!   /internal/trust  {report}        the worker's key has what it reports  ──> {ca, can_sign, apis}
//!   /internal/renew  {csr, seconds}  signed as the worker was admitted     ──> {certificate}
//! ```
//!
//! **Invariant:** who asks is the listed worker of that id, by the name in its certificate: one that was removed is
//! refused.

use std::collections::BTreeMap;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::{FleetNode, FleetRole};

use super::authority::{Signed, write_report};
use super::certificates::Subject;
use super::life::Node;
use super::refusals::{of_keyspace, unexpected};
use super::resume::parse_id;
use super::stage::Seat;
use super::worker::WORKERS;
use crate::fleet::api::internal::{RenewAnswer, RenewAsk, TrustAnswer, TrustAsk};
use crate::fleet::error::FleetError;
use crate::fleet::pki::{LEAF_SECONDS, host_of};

impl Node {
    pub(super) async fn hear_trust(
        &self,
        who: &str,
        ask: TrustAsk,
    ) -> Result<TrustAnswer, FleetError> {
        let seat = self.stage().seat()?;
        let node = worker(&seat, who, &ask.id).await?;
        // Lost to somebody else's change, it comes again with the next one.
        let written = write_report(seat.keyspace(), MemberId(node.id), &ask.report).await?;
        tracing::debug!(name = node.name, written, "a worker has reported");
        let fleet = self.authorities(&seat).await?;
        let read = seat.keyspace().fleet(|fleet| {
            let replicas = fleet.nodes().filter(|node| node.role == FleetRole::ControlPlane as i32);
            let addresses = replicas.map(|node| node.address.clone());
            addresses.filter(|address| !address.is_empty()).collect()
        });
        Ok(TrustAnswer {
            ca: fleet.trusted(),
            can_sign: fleet.can_sign(),
            apis: read.await.map_err(of_keyspace)?,
        })
    }

    pub(super) async fn renew_worker(
        &self,
        who: &str,
        ask: RenewAsk,
    ) -> Result<RenewAnswer, FleetError> {
        let seat = self.stage().seat()?;
        let node = worker(&seat, who, &ask.id).await?;
        let hosts: Vec<String> = host_of(&node.address).into_iter().collect();
        let subject = Subject::joining(&node.name, &hosts).into_worker();
        let asked = BTreeMap::from([(WORKERS.to_string(), ask.csr)]);
        let seconds = for_a_worker(ask.seconds)?;
        let mut signed = Signed::lasting(&seat, &subject, &asked, seconds).await?;
        let certificate = signed.certificates.remove(WORKERS.as_str());
        let certificate = certificate.ok_or_else(|| unexpected("nothing was signed"))?;
        tracing::info!(name = node.name, "a worker's certificate was made anew");
        Ok(RenewAnswer { certificate })
    }
}

/// For how many seconds a worker's certificate is to be valid: not for longer than others are.
pub(super) fn for_a_worker(seconds: Option<u64>) -> Result<u64, FleetError> {
    match seconds.unwrap_or(LEAF_SECONDS) {
        seconds if seconds > LEAF_SECONDS => Err(FleetError::Invalid(format!(
            "expiration-seconds: a worker's certificate is valid for {LEAF_SECONDS} at most"
        ))),
        seconds => Ok(seconds),
    }
}

/// The listed worker that asks for itself.
async fn worker(seat: &Seat, who: &str, id: &str) -> Result<FleetNode, FleetError> {
    let id: MemberId = parse_id(id).map_err(|why| FleetError::Invalid(why.to_string()))?;
    let found = seat.keyspace().fleet(|fleet| fleet.node(id).cloned()).await;
    let found = found.map_err(of_keyspace)?;
    let is_it = |node: &FleetNode| node.name == who && node.role == FleetRole::Worker as i32;
    found.filter(is_it).ok_or_else(|| {
        FleetError::Forbidden(format!("no worker of this id is called {who:?}: it was removed"))
    })
}
