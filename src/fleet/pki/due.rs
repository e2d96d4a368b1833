//! What a node has to do about its certificates, by the fleet's authorities, its files and the hour; and what it reports.
//!
//! ```text
//!   authorities ─┐                ┌─ trust   its file of trusted authorities is another
//!   files ───────┼─> due(now) ───>├─ renew   leads to an authority that goes, or a third of its time is left
//!   hour ────────┘                ├─ chain   what stands behind the certificate is another
//!                                 └─ stuck   runs out, and cannot be made anew here ──> a warning
//!   files ── report ──> trusts, leads_to
//! ```
//!
//! **Invariant:** a certificate that leads to no authority of the fleet is somebody's who supplied it: it is never
//! replaced here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::authority::{BACKDATED_SECONDS, LEAF_SECONDS, Validity};
use super::bundle::{Bundle, pem};
use super::error::PkiError;
use super::names::CertificateName;
use super::request::Wanted;
use super::rotation::Authorities;
use crate::fleet::plan::{Renewal, renewal};
use crate::support::tls::{Facts, Fingerprint, check_chain, read_certificates};

/// Certificates are renewed by up to this part of their time earlier than they have to: not all at once.
const SPREAD: i64 = 30;

/// Where a node's key has what it reports.
pub const REPORT: &str = "certificates";

/// What a node reports of its certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Told", into = "Told")]
pub struct Trusted {
    /// The authorities that it trusts.
    pub trusts: BTreeSet<Fingerprint>,
    /// Those that its certificates lead to; `None` among them: one leads to nobody whom it trusts.
    pub leads_to: BTreeSet<Option<Fingerprint>>,
}

impl Trusted {
    /// What the key of a node says that it reports; `None`: nothing, or nothing that reads.
    pub fn of_record(record: &serde_json::Map<String, serde_json::Value>) -> Option<Trusted> {
        serde_json::from_value(record.get(REPORT)?.clone()).ok()
    }
}

/// The same as it is written: fingerprints as text, and an empty text for nobody.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    trusts: BTreeSet<String>,
    leads_to: BTreeSet<String>,
}

impl From<Trusted> for Told {
    fn from(own: Trusted) -> Told {
        let text =
            |leads: &Option<Fingerprint>| leads.map_or_else(String::new, |one| one.to_string());
        Told {
            trusts: own.trusts.iter().map(Fingerprint::to_string).collect(),
            leads_to: own.leads_to.iter().map(text).collect(),
        }
    }
}

impl From<Told> for Trusted {
    /// What is no fingerprint is nobody.
    fn from(told: Told) -> Trusted {
        Trusted {
            trusts: told.trusts.iter().filter_map(|text| text.parse().ok()).collect(),
            leads_to: told.leads_to.iter().map(|text| text.parse().ok()).collect(),
        }
    }
}

/// What a node has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Its file of trusted authorities is another than the record's, or in another order: the first signs.
    pub trust: bool,
    /// To be made anew, signed by whoever signs.
    pub renew: BTreeSet<CertificateName>,
    /// What stands behind these is not what leads to the authorities of now.
    pub chain: BTreeSet<CertificateName>,
    /// These run out, and cannot be made anew here: when the first of them does, in seconds since 1970.
    pub stuck: BTreeMap<CertificateName, i64>,
}

impl Due {
    /// Whether files have to be changed.
    pub fn is_something(&self) -> bool {
        self.trust || !self.renew.is_empty() || !self.chain.is_empty()
    }
}

impl Authorities {
    /// What a node with these files has to do at `now` (seconds since 1970), if it signs for itself.
    pub fn due(&self, bundle: &Bundle, now: i64) -> Result<Due, PkiError> {
        let mut due = self.due_elsewhere(bundle, self.can_sign(), now)?;
        if let Ok(signer) = self.signing() {
            due.chain = bundle.chained_otherwise(signer.certificate(), &signer.chain())?;
        }
        Ok(due)
    }

    /// The same of a node that others sign for, if `can_sign`.
    pub fn due_elsewhere(
        &self,
        bundle: &Bundle,
        can_sign: bool,
        now: i64,
    ) -> Result<Due, PkiError> {
        let trusts = bundle.trusted()?.into_iter().map(|facts| facts.fingerprint);
        let mut due = Due { trust: !trusts.eq(self.fingerprints()), ..Due::default() };
        for (name, leads_to) in bundle.issuers_among(&self.trusted())? {
            let facts = bundle.pairs[&name].facts(name)?;
            let old = runs_out(&facts, now);
            let end = self.expires(self.fingerprint()).unwrap_or_default();
            match leads_to {
                Some(leads_to) if can_sign && leads_to != self.fingerprint() => {
                    due.renew.insert(name);
                }
                // One that ends with its authority would end no later if it were made anew.
                Some(_) if can_sign && old && facts.not_after < end => {
                    due.renew.insert(name);
                }
                Some(_) | None if old => {
                    due.stuck.insert(name, facts.not_after);
                }
                Some(_) | None => {}
            }
        }
        Ok(due)
    }
}

/// Whether a third of its time is left, or a bit more: how much, is chance that is each one's own.
fn runs_out(facts: &Facts, now: i64) -> bool {
    let from = facts.not_before.saturating_add(BACKDATED_SECONDS);
    let chance = i64::from(facts.der.last().copied().unwrap_or_default());
    let early = (facts.not_after - from).max(0) / SPREAD * chance / 256;
    renewal(from, facts.not_after, now.saturating_add(early)) == Renewal::Renew
}

impl Bundle {
    /// What its node reports.
    pub fn report(&self) -> Result<Trusted, PkiError> {
        Ok(Trusted {
            trusts: self.trusted()?.iter().map(|facts| facts.fingerprint).collect(),
            leads_to: self.issuers()?.into_values().collect(),
        })
    }

    /// Does what is `due` with the fleet's authorities; `wanted` is what its certificates are to say.
    pub fn follow(
        &mut self,
        fleet: &Authorities,
        due: &Due,
        wanted: &Wanted,
        now: i64,
    ) -> Result<(), PkiError> {
        for name in &due.renew {
            let facts = self.pairs[name].facts(*name)?;
            let validity = Validity::starting(now, self.life(&facts, fleet, *name)?)?;
            self.renew(fleet.signing()?, wanted, &BTreeSet::from([*name]), validity)?;
        }
        for name in due.chain.iter().filter(|name| !due.renew.contains(name)) {
            let leaf = pem(&self.pairs[name].facts(*name)?.der);
            let chain = fleet.signing()?.chain();
            if let Some(pair) = self.pairs.get_mut(name) {
                pair.certificate = format!("{leaf}{chain}");
            }
        }
        if due.trust {
            self.authorities = fleet.trusted();
        }
        Ok(())
    }

    /// How long the next one is good for: as long as the one before it, unless that one's authority had cut it short.
    fn life(
        &self,
        facts: &Facts,
        fleet: &Authorities,
        name: CertificateName,
    ) -> Result<u64, PkiError> {
        let leads_to = self.issuers_among(&fleet.trusted())?.get(&name).copied().flatten();
        let end = leads_to.and_then(|leads_to| fleet.expires(leads_to));
        let asked = facts.not_after - facts.not_before - BACKDATED_SECONDS;
        Ok(match end.is_some_and(|end| facts.not_after < end) {
            true => u64::try_from(asked).unwrap_or(LEAF_SECONDS),
            false => LEAF_SECONDS,
        })
    }

    /// Those that `signer` has signed itself, with something else behind them than `chain` (both PEM).
    fn chained_otherwise(
        &self,
        signer: &str,
        chain: &str,
    ) -> Result<BTreeSet<CertificateName>, PkiError> {
        let prints = |text: &str| -> Result<Vec<Fingerprint>, PkiError> {
            let read = read_certificates(text.as_bytes());
            let found = read.map_err(|why| PkiError::unfit("a chain of certificates", why))?;
            Ok(found.into_iter().map(|facts| facts.fingerprint).collect())
        };
        let wanted = prints(chain)?;
        let mut others = BTreeSet::new();
        for (name, pair) in &self.pairs {
            let facts = pair.facts(*name)?;
            let at = u64::try_from(facts.not_after).unwrap_or_default();
            let leaf = pem(&facts.der);
            let own = check_chain(leaf.as_bytes(), signer.as_bytes(), name.usages()[0], at).is_ok();
            if own && prints(&pair.certificate)?[1..] != wanted {
                others.insert(*name);
            }
        }
        Ok(others)
    }
}
