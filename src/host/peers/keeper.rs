//! Keeps one stream from one member open: dials, answers what comes, dials again.
//!
//! ```text
//!   dial ──failed──> rest 100 ms .. 1 s, or until the member is heard of elsewhere ──> dial, with a fresh look-up
//!    └──> serve until it ends; silent for a while: dial a replacement beside it, which takes over once it stands
//! ```
//!
//! **Why a replacement:** after a cut, TCP sends again only at growing intervals, which may outlast the cut by as
//! much again; a new connection is there at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::dial::{self, DialError};
use super::hello::{Hello, Refusal};
use super::stream::{Answering, Ended, Heard, converse};
use crate::consensus::Purpose;

/// A connection that lasted this long shows that dialling works.
const LASTED: Duration = Duration::from_secs(1);

/// The rests between tries: they double, with some chance so that lanes do not march in step.
#[derive(Debug)]
struct Rests {
    next: Duration,
    least: Duration,
    most: Duration,
}

impl Rests {
    fn next(&mut self) -> Duration {
        let rest = self.next;
        self.next = (rest * 2).min(self.most);
        rest.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    fn start_over(&mut self) {
        self.next = self.least;
    }
}

/// One stream from `peer`, for ever.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: MemberId,
    pub(super) purpose: Purpose,
    pub(super) urls: watch::Receiver<Vec<String>>,
}

struct Running {
    _live: Live,
    since: Instant,
    heard: Arc<Heard>,
    life: Pin<Box<dyn Future<Output = Ended> + Send>>,
}

/// A stream from a member runs as long as this is kept.
struct Live {
    shared: Arc<Shared>,
    peer: MemberId,
}

impl Live {
    fn begin(shared: &Arc<Shared>, peer: MemberId) -> Live {
        let mut live = shared.live.lock();
        let (streams, _since) = live.entry(peer).or_insert_with(|| (0, Instant::now()));
        *streams += 1;
        Live { shared: Arc::clone(shared), peer }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = self.shared.live.lock();
        if let Some((streams, _since)) = live.get_mut(&self.peer) {
            *streams -= 1;
            if *streams == 0 {
                live.remove(&self.peer);
            }
        }
    }
}

impl Keeper {
    pub(super) async fn run(self) {
        let timing = self.shared.timing;
        let mut rests =
            Rests { next: timing.rest_least, least: timing.rest_least, most: timing.rest_most };
        let mut running: Option<Running> = None;
        let mut tried = 0;
        loop {
            if let Some(now) = &mut running {
                tokio::select! {
                    ended = &mut now.life => {
                        self.lost(&ended);
                        if now.since.elapsed() >= LASTED {
                            rests.start_over();
                        }
                        running = None;
                    }
                    () = now.heard.silent_for(timing.replace_after) => {}
                }
            }
            let next = self.next_stream(tried, &mut rests);
            let outcome = match &mut running {
                None => next.await,
                Some(now) => tokio::select! {
                    ended = &mut now.life => {
                        self.lost(&ended);
                        None
                    }
                    outcome = next => outcome.or(running.take()),
                },
            };
            tried += 1;
            running = outcome;
        }
    }

    /// One try, and the rest after it if it fails.
    async fn next_stream(&self, tried: usize, rests: &mut Rests) -> Option<Running> {
        let urls = self.urls.borrow().clone();
        let Some(url) = urls.get(tried % urls.len().max(1)) else {
            tokio::time::sleep(rests.next()).await;
            return None;
        };
        let hello = Hello {
            cluster: self.shared.cluster,
            from: self.shared.member,
            to: self.peer,
            purpose: self.purpose,
        };
        let own_urls = self.shared.known.lock().own_urls.clone();
        let patience = self.shared.timing.patience();
        match dial::open_stream(url, &self.shared.tls, hello, &own_urls, patience).await {
            Ok(wire) => {
                self.won();
                let shared = Arc::clone(&self.shared);
                let serve = Box::new(move |group, ask| shared.serve(group, ask));
                let side = Answering::new(self.shared.frame_bytes_max, serve);
                let (heard, keeping) = (Arc::new(Heard::default()), self.shared.keeping());
                let life = {
                    let heard = Arc::clone(&heard);
                    let traffic = self.shared.figures.traffic(self.peer);
                    Box::pin(async move { converse(wire, side, keeping, &heard, &traffic).await })
                };
                let live = Live::begin(&self.shared, self.peer);
                Some(Running { _live: live, since: Instant::now(), heard, life })
            }
            Err(error) => {
                self.failed(url, &error);
                let news = self.shared.news.notified();
                tokio::select! {
                    () = tokio::time::sleep(rests.next()) => {}
                    () = news => {}
                }
                None
            }
        }
    }

    fn won(&self) {
        tracing::info!(
            "stream-reader-type" = self.purpose.word(),
            "local-member-id" = %self.shared.member,
            "remote-peer-id" = %self.peer,
            "established TCP streaming connection with remote peer"
        );
        self.shared.quiet.forget(self.peer);
        self.shared.news.notify_waiters();
    }

    fn lost(&self, why: &Ended) {
        tracing::warn!(
            "stream-reader-type" = self.purpose.word(),
            "local-member-id" = %self.shared.member,
            "remote-peer-id" = %self.peer,
            error = %why,
            "lost TCP streaming connection with remote peer"
        );
    }

    /// A member of the cluster says that this one was removed: that is final.
    fn removed(&self) {
        if self.shared.removed.send_replace(true) {
            return;
        }
        tracing::warn!(
            "local-member-id" = %self.shared.member,
            "remote-peer-id" = %self.peer,
            "the member has been permanently removed from the cluster"
        );
    }

    fn failed(&self, url: &str, error: &DialError) {
        let (local, remote) = (self.shared.member, self.peer);
        if let DialError::Refused { refusal: Refusal::Removed, .. } = error {
            return self.removed();
        }
        let kind = match error {
            DialError::Refused { refusal, .. } => refusal.to_string(),
            DialError::Imposter | DialError::Tls(_) => error.to_string(),
            DialError::BadUrl(_)
            | DialError::Resolve { .. }
            | DialError::Connect { .. }
            | DialError::Http(_)
            | DialError::Request(_)
            | DialError::NoAnswer
            | DialError::Status(_) => "unreachable".to_owned(),
        };
        if !self.shared.quiet.allows(remote, &kind) {
            tracing::debug!("remote-peer-id" = %remote, address = url, %error, "dialling a peer failed");
            return;
        }
        match error {
            DialError::Refused { refusal: Refusal::Cluster, cluster } => tracing::warn!(
                "remote-peer-id" = %remote,
                "remote-peer-cluster-id" = cluster.as_deref().unwrap_or_default(),
                "local-member-id" = %local,
                "local-member-cluster-id" = %self.shared.cluster,
                %error,
                "request sent was ignored by remote peer due to cluster ID mismatch"
            ),
            DialError::Refused { refusal: Refusal::Version, .. } => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id" = %remote,
                %error,
                "request sent was ignored by remote peer due to server version incompatibility"
            ),
            error => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id" = %remote,
                address = url,
                %error,
                "failed to dial a peer; trying on"
            ),
        }
    }
}
