//! The generated client's stubs over one connection.
//!
//! **Invariant:** nothing here retries: a write whose fate is unknown stays unknown.

use std::time::Duration;

use anyhow::{Context, Result};
use tonic::transport::{Channel, Endpoint};

use crate::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::lease_client::LeaseClient;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::pb::etcdserverpb::watch_client::WatchClient;

/// Big enough for any answer of these tests.
pub(crate) const MESSAGE_MAX: usize = 64 << 20;

/// Every service of one member over one connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
}

/// Opens a connection; a member that is down is an error here and now.
pub(crate) async fn connect(endpoint: &str) -> Result<Channel> {
    Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect()
        .await
        .with_context(|| format!("cannot connect to {endpoint}"))
}

impl Client {
    pub(crate) async fn connect(endpoint: &str) -> Result<Self> {
        Ok(Self::over(connect(endpoint).await?))
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }
}
