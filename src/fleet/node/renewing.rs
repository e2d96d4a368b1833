//! This node's certificates follow the fleet's authorities, and are made anew before they run out.
//!
//! ```text
//!   the record has changed, or a while has passed ──> record, files, hour ── due ──> pki/ ──> report in the node's key
//!     member: signs for itself          worker: POST /internal/trust, /internal/renew ──> a member, which writes it down
//! ```
//!
//! Each look starts from what is there (level-triggered): what was missed or failed is due again at the next one.
//!
//! **Invariant:** what is reported is in the files already, and so in force at every handshake that follows.
//! **Invariant:** a certificate that leads to no authority of the fleet is left alone: whoever supplied it renews it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::authority::{authorities_here, write_report};
use super::certificates::{self, Subject, of_pki};
use super::life::Node;
use super::refusals::unexpected;
use super::renew::for_a_worker;
use super::stage::{Gate, Seat, Stage};
use super::tokens::unix_ms;
use super::wire;
use crate::fleet::api::certificates::{RefreshRunAnswer, RefreshRunRequest};
use crate::fleet::api::internal::{RenewAnswer, RenewAsk, TrustAnswer, TrustAsk, VERSION};
use crate::fleet::error::FleetError;
use crate::fleet::pki::{Authorities, Bundle, CertificateName, Due, Pair, PkiError, Trusted};
use crate::support::clock::rfc3339_seconds;

/// How often memory is asked whether the authorities have changed.
const LOOK: Duration = Duration::from_secs(1);

/// The rest before a look that goes on from the one before, and after one that failed.
const SOON: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_secs(2);

/// How long a member may take to answer a worker.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// What was told already: one line for each thing that goes wrong, however often it is looked at.
#[derive(Default)]
struct Told {
    stuck: BTreeMap<CertificateName, i64>,
    failure: Option<String>,
}

impl Node {
    /// Looks after the certificates of a member as long as it is one.
    pub(super) fn keep_certificates(&self, seat: Arc<Seat>) {
        let node = self.clone();
        self.spawn(async move {
            let mut looked: Option<(u64, Instant)> = None;
            let mut told = Told::default();
            while node.sits(&seat) {
                let generation = seat.keyspace().fleet_now(|fleet| {
                    let authority = fleet.record().and_then(|record| record.authority.as_ref());
                    authority.map_or(0, |authority| authority.generation)
                });
                let every = node.0.settings.timers.certificates;
                let is_quiet =
                    looked.is_some_and(|(at, when)| at == generation && when.elapsed() < every);
                if is_quiet || generation == 0 {
                    sleep(LOOK.min(every)).await;
                    continue;
                }
                let followed = node.follow(&seat, &mut told).await;
                looked = matches!(followed, Ok(true)).then(|| (generation, Instant::now()));
                sleep(told.rest(followed, SOON)).await;
            }
        });
    }

    fn sits(&self, seat: &Arc<Seat>) -> bool {
        matches!(self.stage(), Stage::Member(now) if Arc::ptr_eq(&now, seat))
    }

    /// One look of a member. `false`: another one is needed at once.
    async fn follow(&self, seat: &Arc<Seat>, told: &mut Told) -> Result<bool, FleetError> {
        let subject = Subject::of(&self.0.settings, &seat.name, &seat.address, None);
        let own = Arc::clone(seat);
        let (due, report) = self
            .with_files(move |folder| {
                let fleet = authorities_here(&own)?;
                let bundle = folder.read()?;
                let due = fleet.due(&bundle, now())?;
                if !due.is_something() {
                    return Ok((due, bundle.report()?));
                }
                let wanted = subject.wanted(CertificateName::Server);
                folder.change(|bundle| {
                    bundle.follow(&fleet, &due, &wanted, now())?;
                    let report = bundle.report()?;
                    Ok((due, report))
                })
            })
            .await?;
        due.renew.iter().for_each(|name| tracing::info!(certificate = %name, "made anew"));
        told.tell(&due);
        write_report(seat.keyspace(), seat.id, &report).await
    }

    /// Looks after the certificates of a worker as long as it is one.
    pub(super) fn keep_worker_certificates(&self, gate: Arc<Gate>) {
        let node = self.clone();
        self.spawn(async move {
            let mut told = Told::default();
            while matches!(node.stage(), Stage::Worker(now) if Arc::ptr_eq(&now, &gate)) {
                let followed = node.follow_members(&gate, &mut told).await;
                sleep(told.rest(followed, node.0.settings.timers.certificates)).await;
            }
        });
    }

    /// One look of a worker. `false`: another one is needed at once, to report what was changed.
    async fn follow_members(&self, gate: &Gate, told: &mut Told) -> Result<bool, FleetError> {
        let bundle = self.with_files(|folder| folder.read()).await?;
        let report: Trusted = bundle.report().map_err(of_pki)?;
        let ask = TrustAsk { version: VERSION, id: gate.id.clone(), report };
        let answer: TrustAnswer = self.ask_members(gate, "/internal/trust", &ask).await?;
        if !answer.apis.is_empty() {
            *gate.apis.lock() = answer.apis;
        }
        let fleet = Authorities::kept_elsewhere(&answer.ca).map_err(of_pki)?;
        let due = fleet.due_elsewhere(&bundle, answer.can_sign, now()).map_err(of_pki)?;
        told.tell(&due);
        if !due.is_something() {
            return Ok(true);
        }
        let renewed = match due.renew.is_empty() {
            true => None,
            false => Some(self.ask_for_one(gate, None).await?),
        };
        self.with_files(move |folder| {
            folder.change(|bundle| {
                bundle.authorities = fleet.trusted();
                let Some(pair) = renewed else { return Ok(()) };
                show(bundle, &pair, due.renew)
            })
        })
        .await?;
        Ok(false)
    }

    /// `refresh-certs/run` of a worker: a member signs.
    pub(super) async fn renew_on_worker(
        &self,
        gate: &Gate,
        names: &[CertificateName],
        ask: &RefreshRunRequest,
        seconds: Option<u64>,
    ) -> Result<RefreshRunAnswer, FleetError> {
        if !ask.extra_sans.is_empty() {
            let text = "a worker's certificate is for the address by which it was let in, no other";
            return Err(FleetError::Invalid(text.to_owned()));
        }
        for_a_worker(seconds)?;
        // What is signed has to lead to what is trusted here; and whoever signs is there.
        self.follow_members(gate, &mut Told::default()).await?;
        let due = self.0.plans.redeem(ask.seed, names, unix_ms()).map_err(of_pki)?;
        tracing::info!(certificates = ?due, "having certificates made anew");
        let pair = self.ask_for_one(gate, seconds).await?;
        let facts = pair.facts(CertificateName::Client).map_err(of_pki)?;
        self.with_files(move |folder| folder.change(|bundle| show(bundle, &pair, due))).await?;
        Ok(RefreshRunAnswer { expiration_seconds: facts.not_after })
    }

    /// A new key, and a certificate for it: a worker has one for everything that it shows.
    async fn ask_for_one(&self, gate: &Gate, seconds: Option<u64>) -> Result<Pair, FleetError> {
        let subject = Subject::of(&self.0.settings, &gate.name, &gate.address, None).into_worker();
        let asked = certificates::request(&subject, &[CertificateName::Client])?;
        let csr = asked.requests.values().next().cloned();
        let csr = csr.ok_or_else(|| unexpected("a worker asks for no certificate"))?;
        let ask = RenewAsk { version: VERSION, id: gate.id.clone(), csr, seconds };
        let answer: RenewAnswer = self.ask_members(gate, "/internal/renew", &ask).await?;
        asked.into_pair(answer.certificate)
    }

    /// Asks one member after the other.
    async fn ask_members<T: DeserializeOwned>(
        &self,
        gate: &Gate,
        path: &str,
        ask: &(impl Serialize + Sync),
    ) -> Result<T, FleetError> {
        let apis = gate.apis.lock().clone();
        let mut last = "no member is known".to_owned();
        for api in &apis {
            let asked = wire::ask_node(&self.0.directory, api, Method::POST, path, Some(ask));
            match timeout(ANSWERED_WITHIN, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(why)) => last = format!("{api}: {why}"),
                Err(_elapsed) => last = format!("{api} does not answer"),
            }
        }
        Err(FleetError::Unavailable(last))
    }
}

/// A worker's one certificate under each of `names`, if it fits.
fn show(
    bundle: &mut Bundle,
    pair: &Pair,
    names: impl IntoIterator<Item = CertificateName>,
) -> Result<(), PkiError> {
    for name in names {
        pair.check(name, &bundle.authorities, now())?;
        bundle.pairs.insert(name, pair.clone());
        tracing::info!(certificate = %name, "made anew");
    }
    Ok(())
}

fn now() -> i64 {
    unix_ms() / 1000
}

impl Told {
    /// Tells what runs out without a remedy here.
    fn tell(&mut self, due: &Due) {
        for (name, until) in &due.stuck {
            if self.stuck.insert(*name, *until) != Some(*until) {
                tracing::warn!(
                    certificate = %name,
                    until = rfc3339_seconds(u64::try_from(*until).unwrap_or_default()),
                    "a certificate runs out and cannot be made anew here: whoever supplied it has to"
                );
            }
        }
    }

    /// How long to rest after a look: `usually`, if nothing more is to be done at once.
    fn rest(&mut self, looked: Result<bool, FleetError>, usually: Duration) -> Duration {
        match looked {
            Ok(is_done) => {
                self.failure = None;
                if is_done { usually } else { SOON }
            }
            Err(why) => {
                let why = why.to_string();
                if self.failure.as_ref() != Some(&why) {
                    tracing::warn!(error = why, "the certificates cannot be looked after");
                }
                self.failure = Some(why);
                AGAIN
            }
        }
    }
}

impl certificates::Asked {
    /// The one key that was asked for, with its certificate.
    fn into_pair(self, certificate: String) -> Result<Pair, FleetError> {
        let key = self.into_key().ok_or_else(|| unexpected("a worker asked for no certificate"))?;
        Ok(Pair { certificate, key })
    }
}
