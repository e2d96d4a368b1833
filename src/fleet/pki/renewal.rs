//! New certificates for a node that has some: planned and run here, or made elsewhere and put in.
//!
//! ```text
//!   plan(names) ──> seed ── run(names, seed) ──> redeem: the plan is used up ── renew: new keys, signed, in force
//!   update(pairs, authorities) ──> every one checked against the others ── in force, all of them or none
//! ```
//!
//! A seed ties a run to what was planned: who runs has seen the plan, and a repeated run is refused.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::authority::{Authority, Validity};
use super::bundle::{Bundle, Pair, check_authorities};
use super::error::PkiError;
use super::names::{CertificateName, Organisation};
use super::request::Wanted;

/// A plan is open for an hour, in milliseconds.
const OPEN_MS: i64 = 3_600_000;
/// More plans than these are not kept: the oldest goes.
const PLANS_MAX: usize = 16;
/// Seeds are below 2^53: JSON's numbers are exact up to there.
const SEED_MAX: i64 = 1 << 53;

/// What was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the run has to show. Above 0.
    pub seed: i64,
    /// The certificates that it may make anew.
    pub certificates: BTreeSet<CertificateName>,
    /// It is for the fleet's authority, and for no certificate.
    pub authority: bool,
    made_ms: i64,
}

/// The open plans of one node; in memory, and gone with it.
#[derive(Debug, Default)]
pub struct Plans(Mutex<Vec<Plan>>);

impl Plans {
    /// Plans new certificates for `names`, or for all that the node has if none is named.
    pub fn plan(
        &self,
        bundle: &Bundle,
        names: &[CertificateName],
        now_ms: i64,
    ) -> Result<Plan, PkiError> {
        let missing = names.iter().find(|name| !bundle.pairs.contains_key(name));
        if let Some(missing) = missing {
            return Err(PkiError::NotHere(missing.as_str()));
        }
        let certificates: BTreeSet<CertificateName> = match names {
            [] => bundle.pairs.keys().copied().collect(),
            named => named.iter().copied().collect(),
        };
        Ok(self.open(certificates, false, now_ms))
    }

    /// Plans a new authority for the fleet.
    pub fn plan_authority(&self, now_ms: i64) -> Plan {
        self.open(BTreeSet::new(), true, now_ms)
    }

    fn open(&self, certificates: BTreeSet<CertificateName>, authority: bool, now_ms: i64) -> Plan {
        let seed = rand::random_range(1..SEED_MAX);
        let plan = Plan { seed, certificates, authority, made_ms: now_ms };
        let mut plans = self.0.lock();
        plans.retain(|plan| plan.is_open(now_ms));
        if plans.len() == PLANS_MAX {
            plans.remove(0);
        }
        plans.push(plan.clone());
        plan
    }

    /// Uses the plan of `seed` up; what is to be made anew: `names`, or all that was planned if none is named.
    pub fn redeem(
        &self,
        seed: i64,
        names: &[CertificateName],
        now_ms: i64,
    ) -> Result<BTreeSet<CertificateName>, PkiError> {
        let mut plans = self.0.lock();
        let at = position(&mut plans, seed, false, now_ms)?;
        let unplanned = names.iter().find(|name| !plans[at].certificates.contains(name));
        if let Some(unplanned) = unplanned {
            return Err(PkiError::NotPlanned(unplanned.as_str()));
        }
        let plan = plans.remove(at);
        Ok(match names {
            [] => plan.certificates,
            named => named.iter().copied().collect(),
        })
    }

    /// Uses up the plan of `seed`, which was for the authority.
    pub fn redeem_authority(&self, seed: i64, now_ms: i64) -> Result<(), PkiError> {
        let mut plans = self.0.lock();
        let at = position(&mut plans, seed, true, now_ms)?;
        plans.remove(at);
        Ok(())
    }
}

fn position(
    plans: &mut Vec<Plan>,
    seed: i64,
    authority: bool,
    now_ms: i64,
) -> Result<usize, PkiError> {
    plans.retain(|plan| plan.is_open(now_ms));
    let fits = |plan: &Plan| plan.seed == seed && plan.authority == authority;
    plans.iter().position(fits).ok_or(PkiError::NoPlan)
}

impl Plan {
    fn is_open(&self, now_ms: i64) -> bool {
        (0..OPEN_MS).contains(&(now_ms - self.made_ms))
    }
}

impl Bundle {
    /// Makes `names` anew, signed by `authority`: all or none. What they were valid for they stay valid for, whoever had
    /// asked for it. When the first of them runs out (seconds since 1970).
    pub fn renew(
        &mut self,
        authority: &Authority,
        wanted: &Wanted,
        names: &BTreeSet<CertificateName>,
        validity: Validity,
    ) -> Result<i64, PkiError> {
        let mut made = BTreeMap::new();
        let mut expires = i64::MAX;
        for name in names {
            let mut wanted = wanted.of(*name);
            if let Some(before) = self.pairs.get(name) {
                wanted = wanted.keeping_hosts(&before.facts(*name)?.hosts);
            }
            let pair = Pair::signed(authority, &wanted, validity)?;
            expires = expires.min(pair.facts(*name)?.not_after);
            made.insert(*name, pair);
        }
        if made.is_empty() {
            return Err(PkiError::NoPlan);
        }
        self.pairs.extend(made);
        Ok(expires)
    }
}

/// Certificates that were made elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// PEM: whom to trust from now on; `None`: as before.
    pub authorities: Option<String>,
    /// What to show from now on.
    pub pairs: BTreeMap<CertificateName, Pair>,
}

impl Bundle {
    /// Takes `update` over if it fits at `now` (seconds since 1970); refuses all of it otherwise. With other authorities
    /// all certificates have to lead to them, without, those that are new.
    pub fn update(
        &mut self,
        update: Update,
        organisation: Organisation,
        now: i64,
    ) -> Result<(), PkiError> {
        let renewed: BTreeSet<CertificateName> = update.pairs.keys().copied().collect();
        let trusts_others = update.authorities.is_some();
        let mut next = self.clone();
        if let Some(authorities) = update.authorities {
            check_authorities(&authorities)?;
            next.authorities = authorities;
        }
        next.pairs.extend(update.pairs);
        for (name, pair) in &next.pairs {
            if trusts_others || renewed.contains(name) {
                pair.check(*name, &next.authorities, now)?;
            }
            if renewed.contains(name) && name.tells_role() {
                pair.check_organisation(*name, organisation)?;
            }
        }
        *self = next;
        Ok(())
    }
}
