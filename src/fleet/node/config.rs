//! The config that clients see: read as of now, and changed over what was read.

use quorate_core::api::pb::mvccpb::KeyValue;

use super::life::Node;
use super::refusals::{of_keyspace, unexpected};
use super::registry::{self, CONFIG_KEY};
use crate::fleet::api::cluster::FeatureStatus;
use crate::fleet::api::config::{ConfigAnswer, SetConfigRequest};
use crate::fleet::api::stored::ClusterConfig;
use crate::fleet::error::FleetError;
use crate::keyspace::{Keyspace, KeyspaceError};

/// A change that always comes second is given up after so many tries: each lost one is another's success.
const TRIES: usize = 1000;

impl Node {
    pub(super) async fn tell_config(&self) -> Result<ConfigAnswer, FleetError> {
        let seat = self.stage().seat()?;
        Ok(read(seat.keyspace()).await?.0.answer())
    }

    /// Changes the config as of now; whoever comes at the same time is not overwritten: one of both reads again.
    pub(super) async fn change_config(&self, request: SetConfigRequest) -> Result<(), FleetError> {
        let seat = self.stage().seat()?;
        for _ in 0..TRIES {
            let (config, mod_revision) = read(seat.keyspace()).await?;
            let next = config.patched(&request)?;
            if next == config {
                return Ok(());
            }
            let put =
                registry::put_over(seat.keyspace(), CONFIG_KEY, mod_revision, next.to_bytes());
            if put.await.map_err(of_keyspace)? {
                return Ok(());
            }
        }
        Err(FleetError::Conflict("the config is being changed by too many at once".to_owned()))
    }
}

/// The config, and the revision at which it was last changed (0: it is not there).
pub(super) async fn read(keyspace: &Keyspace) -> Result<(ClusterConfig, i64), FleetError> {
    config_of(registry::get(keyspace, CONFIG_KEY, false).await)
}

/// The config as this member has it, also without a quorum.
pub(super) async fn read_here(keyspace: &Keyspace) -> Result<ClusterConfig, FleetError> {
    Ok(config_of(registry::get(keyspace, CONFIG_KEY, true).await)?.0)
}

fn config_of(
    read: Result<Option<KeyValue>, KeyspaceError>,
) -> Result<(ClusterConfig, i64), FleetError> {
    match read.map_err(of_keyspace)? {
        Some(kv) => Ok((ClusterConfig::from_bytes(&kv.value)?, kv.mod_revision)),
        None => Ok((ClusterConfig::default(), 0)),
    }
}

/// What was reported of a feature; a record that does not read is a fault of whoever wrote it.
pub(super) async fn features(
    keyspace: &Keyspace,
) -> Result<Vec<(String, FeatureStatus)>, FleetError> {
    let listed = registry::list(keyspace, registry::FEATURES_PREFIX).await.map_err(of_keyspace)?;
    listed
        .iter()
        .map(|kv| {
            let name = String::from_utf8(kv.key.to_vec());
            let name = name.map_err(|_| unexpected("a feature's name is no text"))?;
            let name = name.trim_start_matches(registry::FEATURES_PREFIX).to_owned();
            Ok((name, registry::parse(kv)?))
        })
        .collect()
}
