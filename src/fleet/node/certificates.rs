//! This node's certificates: made when a fleet begins, asked for when it joins, signed for others, shown, made anew.
//!
//! ```text
//!   begin    authority (new, or supplied) ── sealed, for the log      four pairs ── pki/
//!   request  four keys, four requests ── the fleet signs ── pki/
//!   API      status, plan, run, update, expiry ── pki/, which TLS sides read at their next handshake
//! ```

use std::collections::BTreeMap;

use quorate_core::api::pb::internal::FleetAuthority;

use super::authority::authorities_here;
use super::directory::StateDirectory;
use super::files::folder;
use super::life::Node;
use super::refusals::unexpected;
use super::settings::NodeSettings;
use super::stage::Stage;
use super::tokens::unix_ms;
use crate::fleet::api::Sensitive;
use crate::fleet::api::bootstrap::BootstrapConfig;
use crate::fleet::api::certificates::{
    CertificateAuthorityStatus, CertificateStatus, CertificatesStatus, ExpiryAnswer, RefreshPlan,
    RefreshPlanRequest, RefreshRunAnswer, RefreshRunRequest, RefreshUpdateRequest,
};
use crate::fleet::error::FleetError;
use crate::fleet::pki::{
    AUTHORITY_SECONDS, Authorities, Authority, Bundle, CertificateName, LEAF_SECONDS, Organisation,
    Pair, Pending, PkiError, Request, Update, Validity, Wanted,
};
use crate::fleet::seal::FleetKey;
use crate::fleet::secret::Secret;
use crate::support::clock::rfc3339_seconds;
use crate::support::tls::{Fingerprint, read_certificates};

pub(super) use crate::fleet::pki::Plans;

/// The authority's name beside those of certificates.
const AUTHORITY: &str = "ca";

/// A certificate and a key that were handed in.
type Supplied<'a> = Result<Option<(&'a Sensitive, &'a Sensitive)>, FleetError>;

/// Whom certificates are for.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    name: String,
    organisation: Organisation,
    addresses: Vec<String>,
    extra: Vec<String>,
}

/// Keys that were made here and are to be signed for.
#[derive(Debug)]
pub(super) struct Asked {
    keys: BTreeMap<CertificateName, Secret>,
    /// By name, PEM.
    pub(super) requests: BTreeMap<String, String>,
}

impl Subject {
    /// This node, which holds a replica.
    pub(super) fn of(
        settings: &NodeSettings,
        name: &str,
        address: &str,
        extra: Option<&[String]>,
    ) -> Subject {
        let extra = settings.extra_sans.iter().chain(extra.unwrap_or_default());
        Subject {
            name: name.to_owned(),
            organisation: Organisation::ControlPlane,
            addresses: vec![address.to_owned()],
            extra: extra.cloned().collect(),
        }
    }

    /// Another node, as it was admitted.
    pub(super) fn joining(name: &str, addresses: &[String]) -> Subject {
        Subject {
            name: name.to_owned(),
            organisation: Organisation::ControlPlane,
            addresses: addresses.to_vec(),
            extra: Vec::new(),
        }
    }

    /// The same as a worker.
    pub(super) fn into_worker(self) -> Subject {
        Subject { organisation: Organisation::Worker, ..self }
    }

    pub(super) fn wanted(&self, certificate: CertificateName) -> Wanted {
        let Subject { name, organisation, addresses, extra } = self;
        Wanted::new(certificate, *organisation, name, addresses, extra)
    }
}

/// What is wrong with certificates that somebody handed in is theirs to mend; the rest is ours.
pub(super) fn of_pki(why: PkiError) -> FleetError {
    match why {
        PkiError::Unfit { .. }
        | PkiError::NoSuchName(_)
        | PkiError::NotHere(_)
        | PkiError::Host(_)
        | PkiError::Request(_)
        | PkiError::KeyElsewhere
        | PkiError::NoPlan
        | PkiError::NotPlanned(_)
        | PkiError::TooShort => FleetError::Invalid(why.to_string()),
        PkiError::UnderWay | PkiError::NothingAnnounced => FleetError::Conflict(why.to_string()),
        PkiError::Io { .. } | PkiError::Make(_) | PkiError::Seal(_) => unexpected(&why.to_string()),
    }
}

fn now() -> i64 {
    unix_ms() / 1000
}

fn pair(given: Supplied<'_>) -> Result<Option<Pair>, FleetError> {
    Ok(given?.map(|(certificate, key)| Pair {
        certificate: certificate.reveal().to_owned(),
        key: Secret::from(key.reveal()),
    }))
}

fn supplied_authority(config: &BootstrapConfig) -> Result<Option<Authority>, FleetError> {
    let given = config.supplied_ca()?;
    let read = given.map(|(certificate, key)| {
        Authority::supplied(certificate.reveal(), &Secret::from(key.reveal()), now())
    });
    read.transpose().map_err(of_pki)
}

/// The pairs that a request brought, by name.
pub(super) fn supplied_pairs(
    server: Supplied<'_>,
    peer: Supplied<'_>,
) -> Result<BTreeMap<CertificateName, Pair>, FleetError> {
    let pairs = [(CertificateName::Server, pair(server)?), (CertificateName::Peer, pair(peer)?)];
    Ok(pairs.into_iter().filter_map(|(name, pair)| Some((name, pair?))).collect())
}

/// Whether what a bootstrap brings can be used; nothing is made.
pub(super) fn check_supplied(config: &BootstrapConfig) -> Result<(), FleetError> {
    let authority = supplied_authority(config)?;
    let pairs = supplied_pairs(config.supplied_server(), config.supplied_peer())?;
    match (authority, pairs.is_empty()) {
        (_, true) => Ok(()),
        (None, false) => Err(FleetError::Invalid(
            "certificates were given without the authority that signed them".to_owned(),
        )),
        (Some(authority), false) => {
            check_pairs(&pairs).map_err(of_pki)?;
            pairs.iter().try_for_each(|(name, pair)| {
                pair.check(*name, authority.certificate(), now()).map_err(of_pki)
            })
        }
    }
}

/// Whether others will take a node that shows these for one that holds a replica.
fn check_pairs(pairs: &BTreeMap<CertificateName, Pair>) -> Result<(), PkiError> {
    let mut telling = pairs.iter().filter(|(name, _)| name.tells_role());
    telling.try_for_each(|(name, pair)| pair.check_organisation(*name, Organisation::ControlPlane))
}

/// A fleet's authority and this node's certificates, which are in force when it returns.
pub(super) fn begin(
    directory: &StateDirectory,
    key: &FleetKey,
    uid: &str,
    subject: &Subject,
    config: &BootstrapConfig,
) -> Result<FleetAuthority, FleetError> {
    let authority = match supplied_authority(config)? {
        Some(authority) => authority,
        None => {
            let validity = Validity::starting(now(), AUTHORITY_SECONDS).map_err(of_pki)?;
            Authority::generate(uid, validity).map_err(of_pki)?
        }
    };
    let supplied = supplied_pairs(config.supplied_server(), config.supplied_peer())?;
    let wanted = CertificateName::ALL.map(|name| subject.wanted(name));
    let validity = Validity::starting(now(), LEAF_SECONDS).map_err(of_pki)?;
    let trusted = authority.certificate().to_owned();
    let bundle = Bundle::make(&trusted, Some(&authority), supplied, &wanted, validity, now());
    write(directory, &bundle.map_err(of_pki)?)?;
    Ok(Authorities::of(authority).seal(key, uid))
}

/// Keys for `names`, and requests for their certificates.
pub(super) fn request(subject: &Subject, names: &[CertificateName]) -> Result<Asked, FleetError> {
    let mut asked = Asked { keys: BTreeMap::new(), requests: BTreeMap::new() };
    for name in names {
        let Pending { request, key } = Pending::new(&subject.wanted(*name)).map_err(of_pki)?;
        asked.keys.insert(*name, key);
        asked.requests.insert(name.to_string(), request);
    }
    Ok(asked)
}

impl Asked {
    /// The one key that was made.
    pub(super) fn into_key(self) -> Option<Secret> {
        self.keys.into_values().next()
    }

    /// Puts what was signed in force, beside what was supplied; all has to fit.
    pub(super) fn install(
        self,
        directory: &StateDirectory,
        authorities: &str,
        certificates: &BTreeMap<String, String>,
        supplied: BTreeMap<CertificateName, Pair>,
    ) -> Result<(), FleetError> {
        let mut pairs = BTreeMap::new();
        for (name, key) in self.keys {
            let certificate = certificates.get(name.as_str()).ok_or_else(|| {
                unexpected(&format!("the cluster has not signed the {name} certificate"))
            })?;
            pairs.insert(name, Pair { certificate: certificate.clone(), key });
        }
        check_pairs(&supplied).map_err(of_pki)?;
        pairs.extend(supplied);
        let bundle = Bundle { authorities: authorities.to_owned(), pairs };
        bundle.check(now()).map_err(of_pki)?;
        write(directory, &bundle)
    }

    /// A worker's: one certificate, for everything that it shows.
    pub(super) fn install_worker(
        self,
        directory: &StateDirectory,
        authorities: &str,
        certificate: &str,
    ) -> Result<(), FleetError> {
        let Some((_, key)) = self.keys.into_iter().next() else {
            return Err(unexpected("a worker asked for no certificate"));
        };
        let pair = Pair { certificate: certificate.to_owned(), key };
        let shown = [CertificateName::Server, CertificateName::Client, CertificateName::MemberApi];
        let pairs = shown.into_iter().map(|name| (name, pair.clone())).collect();
        let bundle = Bundle { authorities: authorities.to_owned(), pairs };
        bundle.check(now()).map_err(of_pki)?;
        write(directory, &bundle)
    }
}

/// Signs what another node asks for, as it was admitted.
pub(super) fn sign(
    authority: &FleetAuthority,
    key: &FleetKey,
    uid: &str,
    subject: &Subject,
    requests: &BTreeMap<String, String>,
    seconds: u64,
) -> Result<BTreeMap<String, String>, FleetError> {
    let authorities = Authorities::open(authority, key, uid).map_err(of_pki)?;
    let signing = authorities.signing().map_err(of_pki)?;
    let validity = Validity::starting(now(), seconds).map_err(of_pki)?;
    let mut signed = BTreeMap::new();
    for (name, pem) in requests {
        let certificate: CertificateName = name.parse().map_err(of_pki)?;
        let request = Request::read(pem).map_err(of_pki)?;
        // Who holds a replica holds everything, and may wish for further names; a worker may not.
        let wanted = match subject.organisation {
            Organisation::ControlPlane => subject.wanted(certificate).with_hosts(&request.hosts),
            Organisation::Worker | Organisation::Admin => subject.wanted(certificate),
        };
        signed.insert(name.clone(), signing.sign(&request, &wanted, validity).map_err(of_pki)?);
    }
    Ok(signed)
}

/// PEM: whom the fleet trusts.
pub(super) fn authorities(authority: &FleetAuthority) -> Result<String, FleetError> {
    Authorities::trusted_by(authority).map_err(of_pki)
}

/// How tokens name the authority: that of the first certificate, which signs.
pub(super) fn fingerprint(authority: &FleetAuthority) -> Result<Fingerprint, FleetError> {
    let text = authorities(authority)?;
    let found = read_certificates(text.as_bytes()).map_err(|why| unexpected(&why))?;
    let first = found.first().ok_or_else(|| unexpected("the fleet has no authority"))?;
    Ok(first.fingerprint)
}

fn write(directory: &StateDirectory, bundle: &Bundle) -> Result<(), FleetError> {
    folder(&directory.pki())?.write(bundle).map_err(of_pki)
}

impl Node {
    pub(super) async fn tell_certificates(&self) -> Result<CertificatesStatus, FleetError> {
        let bundle = self.folder()?.read().map_err(of_pki)?;
        let (fleet, rotation) = match self.stage().seat() {
            Ok(seat) => {
                let fleet = self.authorities(&seat).await?;
                let rotation = self.tell_rotation(&seat, &fleet).await?;
                (fleet, rotation)
            }
            // A worker cannot sign: all of it is made elsewhere.
            Err(_none) => (Authorities::kept_elsewhere(&bundle.authorities).map_err(of_pki)?, None),
        };
        let status = bundle.status(&fleet).map_err(of_pki)?;
        Ok(CertificatesStatus {
            certificates: status
                .certificates
                .into_iter()
                .map(|own| CertificateStatus {
                    name: own.name.to_string(),
                    expires: date(own.expires),
                    certificate_authority: own.authority,
                    externally_managed: own.externally_managed,
                })
                .collect(),
            certificate_authorities: status
                .authorities
                .into_iter()
                .map(|own| CertificateAuthorityStatus {
                    name: own.name,
                    expires: date(own.expires),
                    externally_managed: own.externally_managed,
                })
                .collect(),
            rotation,
        })
    }

    pub(super) fn plan_renewal(&self, ask: RefreshPlanRequest) -> Result<RefreshPlan, FleetError> {
        let plan = match names(&ask.certificates)? {
            Named::Authority => {
                self.stage().seat()?;
                self.0.plans.plan_authority(unix_ms())
            }
            Named::Certificates(names) => {
                let bundle = self.folder()?.read().map_err(of_pki)?;
                self.0.plans.plan(&bundle, &names, unix_ms()).map_err(of_pki)?
            }
        };
        Ok(RefreshPlan { seed: plan.seed, certificate_signing_requests: Vec::new() })
    }

    pub(super) async fn run_renewal(
        &self,
        ask: RefreshRunRequest,
    ) -> Result<RefreshRunAnswer, FleetError> {
        let seconds = match u64::try_from(ask.expiration_seconds) {
            Ok(0) => None,
            Ok(seconds) => Some(seconds),
            Err(_) => return Err(FleetError::Invalid("expiration-seconds is below 0".to_owned())),
        };
        let stage = self.stage();
        let names = match (names(&ask.certificates)?, &stage) {
            (Named::Authority, _) => return self.announce(&ask, seconds).await,
            (Named::Certificates(names), Stage::Worker(gate)) => {
                return self.renew_on_worker(gate, &names, &ask, seconds).await;
            }
            (Named::Certificates(names), _) => names,
        };
        let seat = stage.seat()?;
        let validity =
            Validity::starting(now(), seconds.unwrap_or(LEAF_SECONDS)).map_err(of_pki)?;
        // Refused before the plan is used up.
        self.authorities(&seat).await?.signing().map_err(of_pki)?;
        let (name, address) = (&seat.name, &seat.address);
        let subject = Subject::of(&self.0.settings, name, address, Some(&ask.extra_sans));
        let wanted = subject.wanted(CertificateName::Server);
        let due = self.0.plans.redeem(ask.seed, &names, unix_ms()).map_err(of_pki)?;
        tracing::info!(certificates = ?due, "making certificates anew");
        let expiration_seconds = self
            .with_files(move |folder| {
                let fleet = authorities_here(&seat)?;
                folder.change(|bundle| {
                    // Whoever is asked again trusts what the fleet trusts now.
                    bundle.authorities = fleet.trusted();
                    bundle.renew(fleet.signing()?, &wanted, &due, validity)
                })
            })
            .await?;
        Ok(RefreshRunAnswer { expiration_seconds })
    }

    pub(super) async fn put_certificates(
        &self,
        ask: &RefreshUpdateRequest,
    ) -> Result<(), FleetError> {
        let others = ask.not_ours();
        if !others.is_empty() {
            return Err(FleetError::Invalid(format!("not ours: {}", others.join(", "))));
        }
        let organisation = match self.stage().seat() {
            Err(FleetError::OnWorker) => Organisation::Worker,
            Ok(_) | Err(_) => Organisation::ControlPlane,
        };
        let mut update = Update::default();
        for name in CertificateName::ALL {
            match ask.pair(name.as_str()) {
                (None, None) => {}
                (Some(certificate), Some(key)) => {
                    let key = Secret::from(key.reveal());
                    let certificate = certificate.reveal().to_owned();
                    update.pairs.insert(name, Pair { certificate, key });
                }
                (Some(_), None) | (None, Some(_)) => {
                    let text = format!("{name}: certificate and key belong together");
                    return Err(FleetError::Invalid(text));
                }
            }
        }
        if update.pairs.is_empty() {
            return Err(FleetError::Invalid("no certificate was given".to_owned()));
        }
        self.with_files(move |folder| {
            folder.change(|bundle| bundle.update(update, organisation, now()))
        })
        .await
    }

    pub(super) async fn tell_expiry(&self) -> Result<ExpiryAnswer, FleetError> {
        let status = self.tell_certificates().await?;
        let first = status.certificates.into_iter().map(|own| own.expires).min();
        let expiry_date = first.ok_or_else(|| unexpected("this node has no certificates"))?;
        Ok(ExpiryAnswer { expiry_date })
    }
}

/// What is to be made anew.
enum Named {
    /// These of this node; none: all that it has.
    Certificates(Vec<CertificateName>),
    /// The fleet's authority.
    Authority,
}

/// The authority is made anew by itself: the certificates of every node follow it.
fn names(given: &[String]) -> Result<Named, FleetError> {
    match given {
        [one] if one == AUTHORITY => Ok(Named::Authority),
        _ if given.iter().any(|name| name == AUTHORITY) => Err(FleetError::Invalid(
            "ca is made anew by itself: every node's certificates follow it".to_owned(),
        )),
        _ => {
            let names = given.iter().map(|name| name.parse().map_err(of_pki));
            Ok(Named::Certificates(names.collect::<Result<_, _>>()?))
        }
    }
}

fn date(seconds: i64) -> String {
    rfc3339_seconds(u64::try_from(seconds).unwrap_or_default())
}
