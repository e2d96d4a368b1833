//! The stubs of every service over one connection, as somebody: each call carries a token, or none.

use std::fmt;

use anyhow::Result;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::client::{MESSAGE_MAX, connect};
use crate::pb::etcdserverpb::auth_client::AuthClient;
use crate::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::lease_client::LeaseClient;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::pb::etcdserverpb::watch_client::WatchClient;

/// What a caller shows: a token, if it has one.
#[derive(Clone, Default)]
pub(super) struct Badge(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Badge(a token)" } else { "Badge(none)" })
    }
}

impl Badge {
    /// A token that cannot be metadata is none.
    pub(super) fn of(token: &str) -> Self {
        Self(MetadataValue::try_from(token).ok())
    }
}

impl Interceptor for Badge {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

type Carried = InterceptedService<Channel, Badge>;

/// Every service of one member over one connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    channel: Channel,
    pub(super) kv: KvClient<Carried>,
    pub(super) watch: WatchClient<Carried>,
    pub(super) lease: LeaseClient<Carried>,
    pub(super) cluster: ClusterClient<Carried>,
    pub(super) maintenance: MaintenanceClient<Carried>,
    pub(super) auth: AuthClient<Carried>,
}

impl Client {
    /// Connects, as nobody.
    pub(super) async fn connect(endpoint: &str) -> Result<Self> {
        Ok(Self::over(connect(endpoint).await?, Badge::default()))
    }

    /// The same connection, as somebody else.
    pub(super) fn wearing(&self, badge: Badge) -> Self {
        Self::over(self.channel.clone(), badge)
    }

    fn over(channel: Channel, badge: Badge) -> Self {
        let carried = || InterceptedService::new(channel.clone(), badge.clone());
        Self {
            kv: KvClient::new(carried()).max_decoding_message_size(MESSAGE_MAX),
            watch: WatchClient::new(carried()).max_decoding_message_size(MESSAGE_MAX),
            lease: LeaseClient::new(carried()),
            cluster: ClusterClient::new(carried()),
            maintenance: MaintenanceClient::new(carried()),
            auth: AuthClient::new(carried()),
            channel,
        }
    }
}
