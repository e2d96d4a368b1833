//! A load that goes on alike until it is told to stop, each call with the moment it was due.
//!
//! With a rate, each client has its own even timetable, and a call that could not be sent in time because the one
//! before was still unanswered counts from when it was due: a server that stops for a while is charged for every
//! call it kept from being made. A late timer of the client's own is not charged. Without a rate, each client sends
//! as soon as it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::load::key;
use crate::client::connect;
use crate::pb::etcdserverpb::PutRequest;
use crate::pb::etcdserverpb::kv_client::KvClient;

/// What the clients do.
#[derive(Debug, Clone)]
pub(super) struct Timetable {
    pub(super) clients: usize,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) value_bytes: usize,
    /// Keys are drawn from this many.
    pub(super) keys: u64,
    /// Puts a second of all clients together; `None`: as many as they can.
    pub(super) rate: Option<f64>,
    pub(super) seed: u64,
}

/// One answered put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Since the load began.
    pub(super) due: Duration,
    pub(super) took: Duration,
}

/// Clients at work.
pub(super) struct Steady {
    begun: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Call>>>>,
}

impl Steady {
    pub(super) fn begin(endpoint: &str, timetable: &Timetable) -> Self {
        let begun = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..timetable.threads.min(timetable.connections))
            .map(|nth| {
                let (endpoint, timetable) = (endpoint.to_owned(), timetable.clone());
                let stop = Arc::clone(&stop);
                thread::spawn(move || thread_of_clients(&endpoint, &timetable, nth, begun, &stop))
            })
            .collect();
        Self { begun, stop, threads }
    }

    /// Time since the load began, as [`Call::due`] counts it.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends the load; every call that was answered.
    pub(super) fn stop(self) -> Result<Vec<Call>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            let Ok(calls) = thread.join() else {
                bail!("a load thread panicked");
            };
            all.extend(calls?);
        }
        Ok(all)
    }
}

fn thread_of_clients(
    endpoint: &str,
    timetable: &Timetable,
    nth: usize,
    begun: Instant,
    stop: &AtomicBool,
) -> Result<Vec<Call>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for connection in (nth..timetable.connections).step_by(timetable.threads) {
            let channel = connect(endpoint).await?;
            for client in (connection..timetable.clients).step_by(timetable.connections) {
                let kv = KvClient::new(channel.clone());
                clients.push(one_client(kv, timetable, client, begun, stop));
            }
        }
        let mut all = Vec::new();
        for calls in join_all(clients).await {
            all.extend(calls?);
        }
        Ok(all)
    })
}

async fn one_client(
    mut kv: KvClient<tonic::transport::Channel>,
    timetable: &Timetable,
    client: usize,
    begun: Instant,
    stop: &AtomicBool,
) -> Result<Vec<Call>> {
    let mut rng = SmallRng::seed_from_u64(timetable.seed ^ (client as u64) << 20);
    let mut calls = Vec::new();
    let mut hours = timetable.rate.map(|rate| Hours::of(client, timetable.clients, rate));
    let mut value = vec![0; timetable.value_bytes];
    while !stop.load(Ordering::Relaxed) {
        rng.fill(&mut value[..]);
        let put = PutRequest {
            key: key(rng.random_range(0..timetable.keys)),
            value: Bytes::copy_from_slice(&value),
            ..PutRequest::default()
        };
        let due = match &mut hours {
            Some(hours) => hours.wait(begun).await,
            None => begun.elapsed(),
        };
        kv.put(put).await.context("put")?;
        calls.push(Call { due, took: begun.elapsed().saturating_sub(due) });
    }
    Ok(calls)
}

/// One client's timetable.
struct Hours {
    next: Duration,
    every: Duration,
}

impl Hours {
    fn of(client: usize, clients: usize, rate: f64) -> Self {
        let every = Duration::from_secs_f64(clients as f64 / rate);
        Self { next: every.mul_f64(client as f64 / clients as f64), every }
    }

    /// Waits for the next hour, unless it has passed already; when the call was due.
    async fn wait(&mut self, begun: Instant) -> Duration {
        let hour = self.next;
        self.next += self.every;
        if begun.elapsed() >= hour {
            return hour;
        }
        tokio::time::sleep_until((begun + hour).into()).await;
        begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_kept_from_being_made_counts_from_its_hour() {
        let begun = Instant::now();
        let mut hours = Hours { next: Duration::ZERO, every: Duration::from_millis(20) };
        assert_eq!(hours.wait(begun).await, Duration::ZERO);
        assert!(hours.wait(begun).await >= Duration::from_millis(20));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(hours.wait(begun).await, Duration::from_millis(40));
    }
}
