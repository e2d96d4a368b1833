//! A load client that costs little: raw stubs, few connections, one thread per core, no work per call but the call.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::counted::connect;
use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::{PutRequest, RangeRequest};

/// What the clients do, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Work {
    Put,
    #[value(name = "get")]
    LinearizableGet,
}

impl Work {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::LinearizableGet => "linearizable get",
        }
    }
}

/// How much of it.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) work: Work,
    pub(super) clients: usize,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) value_bytes: usize,
    /// Keys are drawn from those below this one.
    pub(super) keys: u64,
    pub(super) until: Until,
    pub(super) seed: u64,
}

impl Shape {
    /// Puts every key of `keys` once, as fast as may be.
    pub(super) fn fill(keys: Range<u64>, value_bytes: usize) -> Self {
        Self {
            work: Work::Put,
            clients: 256,
            connections: 8,
            threads: 1,
            value_bytes,
            seed: keys.end,
            keys: keys.end,
            until: Until::EachKey(keys.start),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    Elapsed(Duration),
    /// Every key from this one on once, in order.
    EachKey(u64),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Sorted.
    pub(super) latencies: Vec<u32>,
    pub(super) elapsed: Duration,
    /// Bytes that the server sent.
    pub(super) received: u64,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let at = self.latencies.len().saturating_sub(1) * percent / 100;
        self.latencies.get(at).copied().map_or(f64::NAN, f64::from)
    }
}

pub(super) fn key(number: u64) -> Bytes {
    format!("bench/{number:012}").into()
}

/// Runs the load and returns when all its clients are done. Connections go to the endpoints in turn.
pub(super) fn run(endpoints: &[String], shape: &Shape) -> Result<Measured> {
    let begun = Instant::now();
    let received = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..shape.threads.min(shape.connections))
        .map(|nth| {
            let (endpoints, shape) = (endpoints.to_vec(), shape.clone());
            let received = Arc::clone(&received);
            thread::spawn(move || thread_of_clients(&endpoints, &shape, nth, &received))
        })
        .collect();
    let mut measured = Measured::default();
    for thread in threads {
        let Ok(latencies) = thread.join() else {
            bail!("a load thread panicked");
        };
        measured.latencies.extend(latencies?);
    }
    measured.elapsed = begun.elapsed();
    measured.received = received.load(Ordering::Relaxed);
    measured.latencies.sort_unstable();
    Ok(measured)
}

fn thread_of_clients(
    endpoints: &[String],
    shape: &Shape,
    nth: usize,
    received: &Arc<AtomicU64>,
) -> Result<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut value = vec![0; shape.value_bytes];
        SmallRng::seed_from_u64(shape.seed).fill(&mut value[..]);
        let value: Bytes = value.into();
        let shape = Arc::new(shape.clone());
        let mut clients = Vec::new();
        for connection in (nth..shape.connections).step_by(shape.threads) {
            let endpoint = &endpoints[connection % endpoints.len()];
            let channel = connect(endpoint, received).await?;
            for client in (connection..shape.clients).step_by(shape.connections) {
                let kv = KvClient::new(channel.clone());
                clients.push(one_client(kv, Arc::clone(&shape), client, value.clone()));
            }
        }
        let mut all = Vec::new();
        for latencies in join_all(clients).await {
            all.extend(latencies?);
        }
        Ok(all)
    })
}

async fn one_client(
    mut kv: KvClient<tonic::transport::Channel>,
    shape: Arc<Shape>,
    client: usize,
    value: Bytes,
) -> Result<Vec<u32>> {
    let mut rng = SmallRng::seed_from_u64(shape.seed ^ (client as u64) << 20);
    let mut latencies = Vec::new();
    let mut next = match shape.until {
        Until::EachKey(first) => first + client as u64,
        Until::Elapsed(_) => 0,
    };
    let begun = Instant::now();
    loop {
        let number = match shape.until {
            Until::Elapsed(time) if begun.elapsed() >= time => break,
            Until::Elapsed(_) => rng.random_range(0..shape.keys),
            Until::EachKey(_) if next >= shape.keys => break,
            Until::EachKey(_) => {
                next += shape.clients as u64;
                next - shape.clients as u64
            }
        };
        let sent = Instant::now();
        match shape.work {
            Work::Put => {
                let mut value = value.to_vec();
                rng.fill(&mut value[..]);
                let put =
                    PutRequest { key: key(number), value: value.into(), ..PutRequest::default() };
                kv.put(put).await.context("put")?;
            }
            Work::LinearizableGet => {
                let get = RangeRequest { key: key(number), ..RangeRequest::default() };
                kv.range(get).await.context("get")?;
            }
        }
        latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(latencies)
}
