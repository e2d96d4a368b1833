//! A worker's proxy: clients come in over TLS with certificates of the fleet, and go on to the members the same way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber as _;

use super::{listen_url, pair, plain_url};
use crate::fleet::node::{Ending, LaunchError, NodeSettings, RunningWorker, WorkerPlan};
use crate::service::proxy::{Chores, Proxy, ProxySettings, UpstreamSettings};
use crate::service::serve::{ConnectionLimits, Entrance, Security, Tasks, Traffic, serve};
use crate::support::aside::Aside;
use crate::support::listen::{SocketOptions, bind, words};
use crate::support::shutdown::Drain;
use crate::support::tls::{Endpoint, Protocol, Side};

/// How often the members are asked who they are.
const SYNC: Duration = Duration::from_secs(5);

/// A member that is dead without a word is found out within these two together.
const PING: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long open calls may go on once it is told to stop; streams are made again elsewhere.
const DRAIN: Duration = Duration::from_millis(500);

const LIMITS: ConnectionLimits = ConnectionLimits {
    streams_max: u32::MAX,
    ping_interval: Some(Duration::from_secs(7200)),
    ping_timeout: Duration::from_secs(20),
    drain: DRAIN,
};

/// Binds, and serves at once.
pub(super) async fn start(
    settings: &NodeSettings,
    pki: &Path,
    plan: WorkerPlan,
) -> Result<RunningWorker, LaunchError> {
    let aside = Aside::start("tls");
    let aside = Arc::new(aside.map_err(|why| LaunchError(words(&why)))?);
    let side = |name: &str| {
        let side = Side::open(&pair(pki, name), Protocol::default(), Some(Arc::clone(&aside)));
        side.map_err(LaunchError)
    };
    let (front, back) = (side("server")?, side("client")?);
    let acceptor = front.acceptor(Endpoint::Client);
    let acceptor = acceptor.ok_or_else(|| LaunchError("server.crt is missing".to_owned()))?;
    let secure = listen_url(settings, settings.client_port)?;
    let places = match settings.plain_client_port {
        None => vec![(secure, Security::Tls(acceptor))],
        Some(_) if settings.shares_client_port() => vec![(secure, Security::Both(acceptor))],
        Some(port) => {
            vec![(secure, Security::Tls(acceptor)), (plain_url(port)?, Security::Plain)]
        }
    };
    let mut entrances = Vec::new();
    for (url, security) in places {
        let listener = bind(&url, SocketOptions::default());
        let listener = listener.map_err(|why| LaunchError(why.to_string()))?;
        entrances.push(Entrance { listener, traffic: Traffic::Both, security });
    }
    let advertised = settings.client_url(&plan.address);
    let (proxy, chores) = Proxy::new(ProxySettings {
        endpoints: plan.endpoints,
        upstream: UpstreamSettings {
            tls: Some(back.connector()),
            ping_interval: Some(PING),
            ping_timeout: PING_TIMEOUT,
            ..UpstreamSettings::default()
        },
        sync_interval: Some(SYNC),
        advertised,
        own_tls: Some(back.connector()),
        ..ProxySettings::default()
    })
    .map_err(LaunchError)?;
    tracing::info!(endpoints = ?proxy.endpoints(), "passing on what clients ask");
    let (tell, ended) = watch::channel(false);
    let (stop, orders) = mpsc::channel(1);
    let known = proxy.clone();
    tokio::spawn(own(proxy, chores, entrances, tell, orders).with_current_subscriber());
    Ok(RunningWorker::new(Arc::new(move || known.endpoints()), ended, stop))
}

/// Owns the proxy until it is told to stop, or until nobody holds it any more.
async fn own(
    proxy: Proxy,
    chores: Chores,
    entrances: Vec<Entrance>,
    tell: watch::Sender<bool>,
    mut orders: mpsc::Receiver<Ending>,
) {
    let tasks = Tasks::new(Some(tracing::dispatcher::get_default(Clone::clone)));
    let mut drain = Drain::default();
    let mut loops = JoinSet::new();
    for entrance in entrances {
        let draining = drain.join().expect("the drain has just been made");
        let run = serve(entrance, proxy.clone(), LIMITS, tasks.clone(), draining);
        loops.spawn(run.with_current_subscriber());
    }
    // Nobody holds it any more, or it was told to stop: either way it ends in order.
    let _order = orders.recv().await;
    drain.start();
    while let Some(ended) = loops.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "a listener's task failed");
        }
    }
    proxy.stop(chores).await;
    tell.send_replace(true);
}
