//! Finding the other first members without a list of them: through another etcd cluster, or in DNS.
//!
//! ```text
//!   --discovery-token    <prefix>/_config/size ── how many
//!   --discovery-endpoints <prefix>/members/<id> ── this one registers, the first so many are the cluster
//!                         <prefix> = /_etcd/registry/<token>                           (registry, join, roster)
//!   --discovery-srv       _etcd-server[-ssl]._tcp.<domain> ── the cluster                               (dns)
//! ```
//!
//! Keys, order, retries and texts are etcd's (`server/etcdserver/api/v3discovery`, `client/pkg/srv`).
//!
//! **Invariant:** only a first start comes here: a member that has data knows who it is.

mod dial;
pub(super) mod dns;
mod join;
mod registry;
mod roster;
mod settings;

use quorate_core::api::ids::MemberId;
use tracing::Instrument as _;

pub(super) use self::join::Joined;
pub use self::settings::DiscoverySettings;

use self::join::Joining;
use self::registry::{Client, Prefix};

/// The discovery service did not let this member in; etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to join discovery cluster ({0})")]
pub struct DiscoveryError(#[from] Fault);

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Somebody has registered with what is no URL.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The size is no positive number.
    #[error("discovery: size key is bad")]
    BadSize,
    /// Nobody has put a size there: the token is wrong, or was not prepared.
    #[error("discovery: size key not found")]
    NoSize,
    /// As many have registered as were wanted: the token was used before.
    #[error("discovery: cluster is full")]
    Full,
    /// The service cannot be asked with these settings.
    #[error("{0}")]
    Client(String),
}

/// Registers the member `id`, which is `own` (`name=url`), and waits until there are as many as are wanted.
pub(super) async fn join(
    settings: &DiscoverySettings,
    id: MemberId,
    own: &str,
) -> Result<Joined, DiscoveryError> {
    let span = tracing::info_span!(
        "discovery",
        "discovery-token" = settings.token,
        "discovery-endpoints" = settings.endpoints.join(","),
    );
    Ok(join_there(settings, id, own).instrument(span).await?)
}

async fn join_there(
    settings: &DiscoverySettings,
    id: MemberId,
    own: &str,
) -> Result<Joined, Fault> {
    let prefix = Prefix::of(&settings.token);
    let client = Client::connect(settings, prefix.clone()).await.map_err(Fault::Client)?;
    let joined = Joining::new(client, prefix, id).join(own).await;
    match &joined {
        Ok(joined) => {
            tracing::info!(cluster = joined.listed, "discovery joined cluster successfully")
        }
        Err(why) => tracing::error!(error = %why, "discovery failed to join cluster"),
    }
    joined
}
