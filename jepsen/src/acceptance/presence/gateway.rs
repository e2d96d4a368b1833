//! One gateway: its devices with their leases, and what it knows of all others' by a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Known;
use super::registry::{Device, PREFIX, Registry, end_of};
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, RangeRequest, WatchCreateRequest, WatchRequest,
    WatchResponse,
};

/// Registrations under way at once.
const AT_ONCE: usize = 32;
/// Renewals under way at once.
const BURST: usize = 4096;
/// How often a device comes or goes.
const CHURN: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// What a gateway does.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) number: usize,
    pub(super) devices: usize,
    pub(super) renew: Duration,
    pub(super) seed: u64,
    /// While somebody holds it, no device comes or goes.
    pub(super) rest: Arc<AsyncMutex<()>>,
}

/// The last renewal of a lease that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewed {
    pub(super) sent: Instant,
    pub(super) answered: Instant,
}

/// What a gateway had when it died.
pub(super) struct Dead {
    pub(super) devices: BTreeMap<String, Renewed>,
    pub(super) died: Instant,
}

/// A gateway at work.
pub(super) struct Gateway {
    plan: Plan,
    cache: Arc<Cache>,
    revision: channel::Receiver<i64>,
    listener: JoinHandle<Result<()>>,
    /// Ends it; it answers with its devices.
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<Result<BTreeMap<String, Renewed>>>,
}

/// What the watch told.
#[derive(Debug, Default)]
struct Cache {
    known: Mutex<Known>,
    gone: Mutex<BTreeMap<String, Vec<Instant>>>,
}

impl Gateway {
    /// Watches, then registers all its devices.
    pub(super) async fn open(registry: Registry, plan: Plan) -> Result<Self> {
        let cache = Arc::new(Cache::default());
        let (revision, listener) = cache.follow(&registry).await?;
        let devices = register_all(&registry, &plan).await?;
        let (stop, stopped) = oneshot::channel();
        let renewals = Renewals::open(&registry).await?;
        let keeper = Keeper {
            rng: StdRng::seed_from_u64(plan.seed * 100 + plan.number as u64),
            serial: plan.devices,
            plan: plan.clone(),
            registry,
            devices,
            renewals,
        };
        let keeper = tokio::spawn(keeper.run(stopped));
        Ok(Self { plan, cache, revision, listener, stop, keeper })
    }

    pub(super) fn number(&self) -> usize {
        self.plan.number
    }

    /// What it knows once it has heard of `revision`. Later events may be in it: devices must rest meanwhile.
    pub(super) async fn known_at(&self, revision: i64, by: Duration) -> Result<Known> {
        let mut heard = self.revision.clone();
        let waited = timeout(by, heard.wait_for(|heard| *heard >= revision)).await;
        let number = self.plan.number;
        waited.with_context(|| format!("gateway {number} has not heard of {revision}"))??;
        Ok(self.cache.known.lock().clone())
    }

    /// When each key was heard to go.
    pub(super) fn gone(&self) -> BTreeMap<String, Vec<Instant>> {
        self.cache.gone.lock().clone()
    }

    /// Dies right behind its next renewals.
    pub(super) async fn die(self) -> Result<Dead> {
        let Ok(()) = self.stop.send(()) else { bail!("gateway {} has ended", self.plan.number) };
        let devices = self.keeper.await??;
        self.listener.abort();
        Ok(Dead { devices, died: Instant::now() })
    }

    /// Ends it; what went wrong meanwhile.
    pub(super) async fn close(self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        if self.listener.is_finished() {
            findings.push(format!("gateway {}: its watch broke", self.plan.number));
        }
        self.listener.abort();
        let _ended = self.stop.send(());
        if let Err(error) = self.keeper.await? {
            findings.push(format!("gateway {}: {error:#}", self.plan.number));
        }
        Ok(findings)
    }
}

/// What a gateway has of a device.
#[derive(Debug, Clone)]
struct Held {
    lease: i64,
    renewed: Renewed,
}

async fn register_all(registry: &Registry, plan: &Plan) -> Result<BTreeMap<String, Held>> {
    let registered = (0..plan.devices).map(|serial| async move {
        let device = device_of(plan, serial);
        let sent = Instant::now();
        let lease = registry.register(&device, plan.number).await?;
        let lease = lease.with_context(|| format!("{} has too many devices", device.user))?;
        let held = Held { lease, renewed: Renewed { sent, answered: Instant::now() } };
        Ok::<_, anyhow::Error>((device.key(), held))
    });
    stream::iter(registered).buffer_unordered(AT_ONCE).try_collect().await
}

/// Users have devices at each gateway, five in all at most.
fn device_of(plan: &Plan, serial: usize) -> Device {
    let user = format!("user{serial:05}");
    Device { user, device: format!("gw{}-{serial}", plan.number) }
}

/// Renews all devices again and again, and now and then exchanges one.
struct Keeper {
    plan: Plan,
    registry: Registry,
    devices: BTreeMap<String, Held>,
    renewals: Renewals,
    rng: StdRng,
    serial: usize,
}

impl Keeper {
    async fn run(
        mut self,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<BTreeMap<String, Renewed>> {
        let mut renew = interval(self.plan.renew);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut churn = interval(CHURN);
        churn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                _ = renew.tick() => self.renewals.all(&mut self.devices).await?,
                _ = churn.tick() => {
                    let rest = Arc::clone(&self.plan.rest);
                    if let Ok(_moving) = rest.try_lock() {
                        self.exchange().await?;
                    }
                }
            }
        }
        self.renewals.all(&mut self.devices).await?;
        Ok(self.devices.into_iter().map(|(key, held)| (key, held.renewed)).collect())
    }

    /// One device goes, another comes.
    async fn exchange(&mut self) -> Result<()> {
        let at = self.rng.random_range(0..self.devices.len());
        let key = self.devices.keys().nth(at).cloned().context("a device")?;
        let held = self.devices.remove(&key).context("a device")?;
        self.registry.forget(held.lease).await?;
        let device = device_of(&self.plan, self.serial);
        self.serial += 1;
        let sent = Instant::now();
        let lease = self.registry.register(&device, self.plan.number).await?.context("room")?;
        let renewed = Renewed { sent, answered: Instant::now() };
        self.devices.insert(device.key(), Held { lease, renewed });
        Ok(())
    }
}

/// One stream for all renewals of a gateway.
struct Renewals {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
    ttl: Duration,
}

impl Renewals {
    async fn open(registry: &Registry) -> Result<Self> {
        let (requests, outgoing) = mpsc::channel(BURST);
        let mut lease = registry.client.lease.clone();
        let opened = lease.lease_keep_alive(ReceiverStream::new(outgoing));
        let answers = timeout(PATIENCE, opened).await?.context("a stream of renewals")?;
        Ok(Self { requests, answers: answers.into_inner(), ttl: registry.ttl() })
    }

    /// Renews every lease once, and hears that each was.
    async fn all(&mut self, devices: &mut BTreeMap<String, Held>) -> Result<()> {
        let mut sent = BTreeMap::new();
        let mut held: BTreeMap<i64, &mut Held> =
            devices.values_mut().map(|held| (held.lease, held)).collect();
        let leases: Vec<i64> = held.keys().copied().collect();
        for some in leases.chunks(BURST) {
            for lease in some {
                sent.insert(*lease, Instant::now());
                self.requests.send(LeaseKeepAliveRequest { id: *lease }).await?;
            }
            for _ in some {
                let answer = timeout(PATIENCE, self.answers.message()).await;
                let answer = answer.context("a renewal was not answered")??;
                let answer = answer.context("the stream of renewals ended")?;
                let ttl = i64::try_from(self.ttl.as_secs())?;
                ensure!(answer.ttl == ttl, "lease {}: renewed for {}", answer.id, answer.ttl);
                let held = held.get_mut(&answer.id).context("a renewal of another's lease")?;
                held.renewed = Renewed { sent: sent[&answer.id], answered: Instant::now() };
            }
        }
        Ok(())
    }
}

impl Cache {
    /// Reads what is there, and watches from the next revision on; the revision that has been heard of.
    async fn follow(
        self: &Arc<Self>,
        registry: &Registry,
    ) -> Result<(channel::Receiver<i64>, JoinHandle<Result<()>>)> {
        let read = RangeRequest {
            key: PREFIX.into(),
            range_end: end_of(PREFIX),
            ..RangeRequest::default()
        };
        let read = registry.client.kv.clone().range(read).await?.into_inner();
        let revision = read.header.context("a header")?.revision;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.known.lock().extend(read.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))));
        let (requests, outgoing) = mpsc::channel(1);
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: end_of(PREFIX),
            start_revision: revision + 1,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await?;
        let mut watch = registry.client.watch.clone();
        let opened = watch.watch(ReceiverStream::new(outgoing));
        let responses = timeout(PATIENCE, opened).await?.context("a watch")?.into_inner();
        let (told, heard) = channel::channel(revision);
        let listener = tokio::spawn(Arc::clone(self).listen(responses, requests, told));
        Ok((heard, listener))
    }

    async fn listen(
        self: Arc<Self>,
        mut responses: Streaming<WatchResponse>,
        _open: mpsc::Sender<WatchRequest>,
        told: channel::Sender<i64>,
    ) -> Result<()> {
        while let Some(response) = responses.message().await? {
            ensure!(!response.canceled, "cancelled: {}", response.cancel_reason);
            let heard = Instant::now();
            let mut last = 0;
            for event in response.events {
                let kv = event.kv.context("an event without a key")?;
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                last = kv.mod_revision;
                if event.r#type == 1 {
                    self.known.lock().remove(&key);
                    self.gone.lock().entry(key).or_default().push(heard);
                } else {
                    let value = String::from_utf8_lossy(&kv.value).into_owned();
                    self.known.lock().insert(key, value);
                }
            }
            told.send_if_modified(|revision| {
                *revision = (*revision).max(last);
                last > 0
            });
        }
        bail!("the watch ended")
    }
}
