//! The fleet's authorities, and how one takes another's place while everybody goes on speaking to everybody.
//!
//! ```text
//!   record: [old]                 announce ──> [old, new]    old signs; new is trusted, and has its key here
//!     every node trusts new       promote ──> [new, old]     new signs; old is trusted still, its key is gone
//!     every leaf leads to new     retire ───> [new]
//!
//!   shown while old counts:  leaf ── new ── bridge: new's key, signed by old ── old
//! ```
//!
//! Who knows the old one alone, by a token that was given before, follows the bridge. It was signed when `new` was
//! announced, while both keys were there, and stands behind `new` in the record.
//!
//! Each step is one change of the replicated record over the generation before it; what a node has to do follows from
//! the record and its own files ([`Authorities::due`](super::Due)). Whoever runs the rotation asks [`Authorities::turn`] for the next
//! step, with what each node reports; nothing else is remembered, so that any node can go on where another stopped.
//!
//! **Invariant:** nobody is signed for by an authority that some node does not trust yet, and none is retired that
//! somebody's certificate still leads to. What a node has not reported counts as not done.
//! **Invariant:** the keys are in the record sealed alone, bound to the fleet and the generation.

use bytes::Bytes;
use quorate_core::api::pb::internal::FleetAuthority;
use zeroize::Zeroizing;

use super::super::seal::FleetKey;
use super::super::secret::Secret;
use super::authority::Authority;
use super::bundle::{check_authorities, pem};
use super::due::Trusted;
use super::error::PkiError;
use crate::support::tls::{Fingerprint, read_certificates};

/// One authority of the fleet.
#[derive(Debug)]
struct Known {
    certificate: String,
    fingerprint: Fingerprint,
    /// Seconds since 1970.
    expires: i64,
    /// PEM: its key as signed by the authority before it; empty if none did.
    bridge: String,
    /// `None`: it signs no more, or somebody else keeps its key.
    signer: Option<Authority>,
}

/// The fleet's authorities, opened. The first signs; another one with a key is on its way in.
#[derive(Debug)]
pub struct Authorities {
    generation: u64,
    known: Vec<Known>,
}

impl From<Authority> for Known {
    fn from(authority: Authority) -> Self {
        Known {
            certificate: authority.certificate().to_owned(),
            fingerprint: authority.fingerprint(),
            expires: authority.facts().not_after,
            bridge: String::new(),
            signer: Some(authority),
        }
    }
}

impl Known {
    fn read(pem: &str) -> Result<Vec<Known>, PkiError> {
        check_authorities(pem)?;
        let found = read_certificates(pem.as_bytes());
        let found = found.map_err(|why| PkiError::unfit("the authorities", why))?;
        let known = found.into_iter().map(|facts| Known {
            certificate: self::pem(&facts.der),
            fingerprint: facts.fingerprint,
            expires: facts.not_after,
            bridge: String::new(),
            signer: None,
        });
        Ok(known.collect())
    }

    /// As an entry of the record: the authority, and the bridge behind it.
    fn of_record(entry: &[u8]) -> Result<Known, PkiError> {
        let text = std::str::from_utf8(entry)
            .map_err(|_| PkiError::unfit("the authorities", "no PEM text"))?;
        let mut found = Known::read(text)?.into_iter();
        let first = found.next().expect("what was read has one certificate at least");
        Ok(Known { bridge: found.map(|behind| behind.certificate).collect(), ..first })
    }

    fn to_record(&self) -> Bytes {
        Bytes::from(format!("{}{}", self.certificate, self.bridge))
    }
}

impl Authorities {
    /// Of a fleet that begins with this one.
    pub fn of(authority: Authority) -> Authorities {
        Authorities { generation: 1, known: vec![authority.into()] }
    }

    /// Of a fleet that begins with authorities (PEM) whose keys are kept elsewhere.
    pub fn kept_elsewhere(pem: &str) -> Result<Authorities, PkiError> {
        Ok(Authorities { generation: 1, known: Known::read(pem)? })
    }

    /// As they stand in the record of the fleet `uid`.
    pub fn open(
        record: &FleetAuthority,
        key: &FleetKey,
        uid: &str,
    ) -> Result<Authorities, PkiError> {
        let entries = record.certificates.iter().map(|entry| Known::of_record(entry));
        let mut known = entries.collect::<Result<Vec<Known>, PkiError>>()?;
        if !record.sealed_key.is_empty() {
            let opened = key.open(uid, record.generation, &record.sealed_key)?;
            for section in key_sections(&opened) {
                let fitting = known.iter_mut().find_map(|known| {
                    let certificate = known.certificate.clone();
                    let signer = Authority::of("the authority", certificate, section.clone());
                    signer.ok().map(|signer| (known, signer))
                });
                let why = "a sealed key belongs to none of the certificates";
                let (known, signer) =
                    fitting.ok_or_else(|| PkiError::unfit("the authorities", why))?;
                known.signer = Some(signer);
            }
        }
        if known.is_empty() {
            return Err(PkiError::unfit("the authorities", "there are none"));
        }
        let mut opened = Authorities { generation: record.generation, known };
        opened.bridge();
        Ok(opened)
    }

    /// As far as it can be told without the fleet's key: PEM of all that every node is to trust, the one that signs first.
    pub fn trusted_by(record: &FleetAuthority) -> Result<String, PkiError> {
        let entries = record.certificates.iter().map(|entry| Known::of_record(entry));
        entries.map(|known| Ok(known?.certificate)).collect()
    }

    /// As they are to stand in the record of the fleet `uid`.
    pub fn seal(&self, key: &FleetKey, uid: &str) -> FleetAuthority {
        let keys: Zeroizing<String> = Zeroizing::new(
            self.known
                .iter()
                .filter_map(|known| known.signer.as_ref())
                .map(|signer| signer.key().reveal())
                .collect(),
        );
        FleetAuthority {
            generation: self.generation,
            certificates: self.known.iter().map(Known::to_record).collect(),
            sealed_key: match keys.is_empty() {
                true => Bytes::new(),
                false => Bytes::from(key.seal(uid, self.generation, keys.as_bytes())),
            },
        }
    }

    /// The generation of the record.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who signs.
    pub fn signing(&self) -> Result<&Authority, PkiError> {
        self.first().signer.as_ref().ok_or(PkiError::KeyElsewhere)
    }

    /// Whether anything can be signed here.
    pub fn can_sign(&self) -> bool {
        self.first().signer.is_some()
    }

    /// What join tokens name: the authority that signs, or has signed elsewhere.
    pub fn fingerprint(&self) -> Fingerprint {
        self.first().fingerprint
    }

    /// Whether it is one of them.
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.known.iter().any(|known| known.fingerprint == fingerprint)
    }

    /// All that every node is to trust.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.known.iter().map(|known| known.fingerprint)
    }

    /// The same as PEM.
    pub fn trusted(&self) -> String {
        self.known.iter().map(|known| known.certificate.as_str()).collect()
    }

    fn first(&self) -> &Known {
        self.known.first().expect("there is one authority at least")
    }

    /// When one of them runs out, in seconds since 1970; `None`: it is none of them.
    pub(super) fn expires(&self, fingerprint: Fingerprint) -> Option<i64> {
        let known = self.known.iter().find(|known| known.fingerprint == fingerprint);
        known.map(|known| known.expires)
    }

    /// Whoever signs shows the way to the one before it, if that one is trusted still.
    fn bridge(&mut self) {
        let way = match self.known.as_slice() {
            [first, before, ..] if !first.bridge.is_empty() => {
                format!("{}{}", first.bridge, before.certificate)
            }
            [..] => String::new(),
        };
        if let Some(signer) = &mut self.known[0].signer {
            signer.shows(way);
        }
    }

    /// How far the change of authorities is.
    pub fn rotation(&self) -> Rotation {
        match (self.incoming(), self.known.len() > 1 && self.can_sign()) {
            (Some(_), _) => Rotation::Announced,
            (None, true) => Rotation::Promoted,
            (None, false) => Rotation::Rest,
        }
    }

    fn incoming(&self) -> Option<usize> {
        (1..self.known.len()).find(|at| self.known[*at].signer.is_some())
    }

    /// `next` is to be trusted by all, and to sign once it is.
    pub fn announce(mut self, next: Authority) -> Result<Authorities, PkiError> {
        if self.incoming().is_some() || (self.can_sign() && self.known.len() > 1) {
            return Err(PkiError::UnderWay);
        }
        if self.contains(next.fingerprint()) {
            return Err(PkiError::unfit("the new authority", "it is in use already"));
        }
        let bridge = match &self.first().signer {
            Some(signer) => signer.endorse(&next)?,
            None => String::new(),
        };
        self.known.push(Known { bridge, ..next.into() });
        self.generation += 1;
        Ok(self)
    }

    /// The one that was announced signs; the key of the one before goes.
    pub fn promote(mut self) -> Result<Authorities, PkiError> {
        let incoming = self.incoming().ok_or(PkiError::NothingAnnounced)?;
        let next = self.known.remove(incoming);
        self.known.iter_mut().for_each(|known| known.signer = None);
        self.known.insert(0, next);
        self.generation += 1;
        self.bridge();
        Ok(self)
    }

    /// Only the one that signs is trusted.
    pub fn retire(mut self) -> Result<Authorities, PkiError> {
        if self.incoming().is_some() {
            return Err(PkiError::UnderWay);
        }
        self.known.truncate(1);
        self.known[0].bridge = String::new();
        self.generation += 1;
        self.bridge();
        Ok(self)
    }
}

/// The keys of a sealed text, each as PEM.
fn key_sections(opened: &[u8]) -> Vec<Secret> {
    let text = String::from_utf8_lossy(opened);
    let text = Zeroizing::new(text.into_owned());
    let mut sections = Vec::new();
    let mut section = Zeroizing::new(String::new());
    for line in text.lines() {
        section.push_str(line);
        section.push('\n');
        if line.starts_with("-----END ") && line.contains("PRIVATE KEY") {
            sections.push(Secret::from(section.as_str()));
            section = Zeroizing::new(String::new());
        }
    }
    sections
}

/// One node, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTrust {
    /// Its name.
    pub name: String,
    /// `None`: it has not said.
    pub reported: Option<Trusted>,
}

/// How far a change of authorities is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// None is under way.
    Rest,
    /// The new one is to be trusted by all.
    Announced,
    /// The new one signs; all certificates are to be made anew.
    Promoted,
}

/// The next step of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is none.
    Rest,
    /// These nodes have not done what the step before asks of them.
    Wait(Vec<String>),
    /// The new one can sign.
    Promote,
    /// The old one can go.
    Retire,
}

impl Authorities {
    /// The next step, and why it is that one.
    pub fn turn(&self, nodes: &[NodeTrust]) -> (Turn, &'static str) {
        let behind = |is_done: &dyn Fn(&Trusted) -> bool| -> Vec<String> {
            let late = nodes.iter().filter(|node| !node.reported.as_ref().is_some_and(is_done));
            late.map(|node| node.name.clone()).collect()
        };
        if let Some(incoming) = self.incoming() {
            let next = self.known[incoming].fingerprint;
            let late = behind(&|node| node.trusts.contains(&next));
            return match late.is_empty() {
                true => (Turn::Promote, "every node trusts the new authority"),
                false => (Turn::Wait(late), "nodes do not trust the new authority yet"),
            };
        }
        if self.known.len() == 1 || !self.can_sign() {
            return (Turn::Rest, "no authority is on its way in or out");
        }
        let signs = Some(self.fingerprint());
        let late = behind(&|node| node.leads_to.iter().all(|leads| *leads == signs));
        match late.is_empty() {
            true => (Turn::Retire, "every certificate leads to the new authority"),
            false => (Turn::Wait(late), "nodes have certificates that the old authority signed"),
        }
    }
}
