//! Clients that hold a lease by renewing it, then let it go and wait for its key to go.
//!
//! A renewal is granted after it was sent, so the lease lives at least its TTL from the moment of *sending* the last
//! renewal that was answered. A key seen gone before that moment is a lease ended early. It was granted before the
//! answer came, or before the patience with the last unanswered one ended: from there on the lease is let go.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::Arena;
use crate::client::Client;
use crate::pb::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest};

pub(crate) const TTL: Duration = Duration::from_secs(6);
const HELD: Duration = Duration::from_secs(17);
const LOOK_EVERY: Duration = Duration::from_millis(150);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);
/// So long a holder waits for the key of a lease that it has let go.
const WATCHED_END: Duration = Duration::from_secs(20);

/// What the holder saw.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) leases: u64,
    pub(crate) renewals: u64,
    pub(crate) looks: u64,
    pub(crate) early: Vec<String>,
    /// Keys whose lease was let go: gone some day.
    pub(crate) abandoned: Vec<String>,
    pub(crate) ends: Vec<End>,
}

/// A lease that was let go, and its key seen to go.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) key: String,
    /// No renewal was granted after it.
    pub(crate) let_go: Duration,
    /// Still there then.
    pub(crate) last_seen: Duration,
}

pub(crate) async fn hold(arena: Arena, worker: i64) -> Held {
    let mut held = Held::default();
    let mut serial = 0;
    while let Some(mut client) = arena.client().await {
        serial += 1;
        let id = 1_000_000 * (worker + 1) + serial;
        let key = format!("lease/{worker}/{serial}");
        let granted = Instant::now();
        if grant(&mut client, id, &key).await {
            held.leases += 1;
            if let Some(client) = one_lease(&arena, client, id, &key, granted, &mut held).await {
                await_end(&arena, client, &key, &mut held).await;
            }
            held.abandoned.push(key);
        }
        sleep(Duration::from_millis(50)).await;
    }
    held
}

async fn grant(client: &mut Client, id: i64, key: &str) -> bool {
    let grant = LeaseGrantRequest { ttl: TTL.as_secs() as i64, id };
    let put = PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        lease: id,
        ..PutRequest::default()
    };
    let granted = timeout(PATIENCE, client.lease.lease_grant(grant)).await;
    matches!(granted, Ok(Ok(_))) && matches!(timeout(PATIENCE, client.kv.put(put)).await, Ok(Ok(_)))
}

/// Renews and looks for a while; `renewed` is when the last answered renewal was sent. The client, if the lease lives.
async fn one_lease(
    arena: &Arena,
    mut client: Client,
    id: i64,
    key: &str,
    mut renewed: Instant,
    held: &mut Held,
) -> Option<Client> {
    let begun = Instant::now();
    let mut next_renewal = begun;
    while begun.elapsed() < HELD && !arena.over() {
        if Instant::now() >= next_renewal {
            let sent = Instant::now();
            match renew(&mut client, id).await {
                Some(0) => {
                    if sent.elapsed() + sent.duration_since(renewed) < TTL {
                        held.early.push(format!(
                            "lease {id}: gone {:?} after its renewal",
                            renewed.elapsed()
                        ));
                    }
                    return None;
                }
                Some(_) => {
                    renewed = sent;
                    held.renewals += 1;
                    next_renewal = sent + RENEW_EVERY;
                }
                None => match arena.client().await {
                    Some(fresh) => client = fresh,
                    None => return None,
                },
            }
        }
        let read =
            RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
        if let Ok(Ok(answer)) = timeout(PATIENCE, client.kv.range(read)).await {
            held.looks += 1;
            if answer.get_ref().count == 0 {
                if renewed.elapsed() < TTL {
                    held.early.push(format!("{key}: gone {:?} after a renewal", renewed.elapsed()));
                }
                return None;
            }
        }
        sleep(LOOK_EVERY).await;
    }
    Some(client)
}

/// Looks until the key is gone.
async fn await_end(arena: &Arena, mut client: Client, key: &str, held: &mut Held) {
    let let_go = arena.now();
    let mut last_seen = let_go;
    while !arena.over() && arena.now() < let_go + WATCHED_END {
        let read =
            RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
        let asked = arena.now();
        match timeout(PATIENCE, client.kv.range(read)).await {
            Ok(Ok(answer)) if answer.get_ref().count == 0 => {
                held.ends.push(End { key: key.to_owned(), let_go, last_seen });
                return;
            }
            Ok(Ok(_)) => last_seen = asked,
            Ok(Err(_)) | Err(_) => match arena.client().await {
                Some(fresh) => client = fresh,
                None => return,
            },
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The TTL in the answer.
async fn renew(client: &mut Client, id: i64) -> Option<i64> {
    let (requests, outgoing) = mpsc::channel(1);
    requests.send(LeaseKeepAliveRequest { id }).await.ok()?;
    let renewed = async {
        let opened = client.lease.lease_keep_alive(ReceiverStream::new(outgoing)).await;
        opened.ok()?.into_inner().message().await.ok()?
    };
    timeout(PATIENCE, renewed).await.ok()?.map(|answer| answer.ttl)
}
