//! Clients that hold a lease by renewing it, then let it go.
//!
//! A renewal is granted after it was sent, so the lease lives at least its TTL from the moment of *sending* the last
//! renewal that was answered. A key seen gone before that moment is a lease ended early.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::Arena;
use crate::client::Client;
use crate::pb::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest};

const TTL: Duration = Duration::from_secs(6);
const HELD: Duration = Duration::from_secs(17);
const LOOK_EVERY: Duration = Duration::from_millis(150);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);

/// What the holder saw.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) leases: u64,
    pub(super) renewals: u64,
    pub(super) looks: u64,
    pub(super) early: Vec<String>,
    /// Keys whose lease was let go: gone some day.
    pub(super) abandoned: Vec<String>,
}

pub(super) async fn hold(arena: Arena, worker: i64) -> Held {
    let mut held = Held::default();
    let mut serial = 0;
    while let Some(mut client) = arena.client().await {
        serial += 1;
        let id = 1_000_000 * (worker + 1) + serial;
        let key = format!("lease/{worker}/{serial}");
        let granted = Instant::now();
        if grant(&mut client, id, &key).await {
            held.leases += 1;
            one_lease(&arena, client, id, &key, granted, &mut held).await;
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

/// Renews and looks for a while; `renewed` is when the last answered renewal was sent.
async fn one_lease(
    arena: &Arena,
    mut client: Client,
    id: i64,
    key: &str,
    mut renewed: Instant,
    held: &mut Held,
) {
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
                    return;
                }
                Some(_) => {
                    renewed = sent;
                    held.renewals += 1;
                    next_renewal = sent + RENEW_EVERY;
                }
                None => match arena.client().await {
                    Some(fresh) => client = fresh,
                    None => return,
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
                return;
            }
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
