//! What a proxy answers beside gRPC (etcd `server/proxy/grpcproxy/{health,metrics}.go`).
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | those of one member |
//! | `/health` | whether the members answer a linearizable read in a second |
//! | `/proxy/metrics` | the proxy's own |
//! | `/proxy/health` | whether the proxy itself, by its advertised address, reads and watches |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{
    RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use crate::service::http::{Answer, error, get_only, no_pprof, not_found, plain, told, with_type};
use crate::service::upstream::paths::{RANGE, WATCH};
use crate::service::upstream::{Repeat, Upstream};
use crate::support::metrics::Metrics;

/// How long a read may take, and making a watch.
const READ_MAX: Duration = Duration::from_secs(1);
const WATCH_MAX: Duration = Duration::from_secs(3);

/// How long a member may take to tell its metrics, and how many bytes.
const METRICS_MAX: Duration = Duration::from_secs(5);
const METRICS_BYTES_MAX: usize = 16 << 20;

/// Answers HTTP. Cheap to clone.
#[derive(Clone)]
pub(super) struct Site(Arc<Inner>);

struct Inner {
    members: Upstream,
    /// The proxy itself, if it has an address.
    own: Option<Upstream>,
    metrics: Metrics,
    pprof: bool,
}

impl Site {
    pub(super) fn new(
        members: Upstream,
        own: Option<Upstream>,
        metrics: Metrics,
        pprof: bool,
    ) -> Site {
        Site(Arc::new(Inner { members, own, metrics, pprof }))
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let this = &self.0;
        match request.uri().path() {
            "/metrics" => this.metrics_of_a_member().await,
            "/proxy/metrics" => plain_metrics(this.metrics.text()),
            "/health" => match get_only(request) {
                Some(refused) => refused,
                None => health(read(&this.members).await),
            },
            "/proxy/health" => match get_only(request) {
                Some(refused) => refused,
                None => health(this.own_health().await),
            },
            path if this.pprof && path.starts_with("/debug/pprof") => no_pprof(),
            _ => not_found(),
        }
    }
}

fn plain_metrics(text: String) -> Answer {
    with_type(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn health(unhealthy: Result<(), String>) -> Answer {
    match unhealthy {
        Ok(()) => plain(StatusCode::OK, told(true, "")),
        Err(reason) => {
            let output = told(false, &reason);
            tracing::warn!(output, "status-code" = 503, "/health error");
            error(StatusCode::SERVICE_UNAVAILABLE, output)
        }
    }
}

/// Reads a key, whoever may: permission denied is an answer.
async fn read(from: &Upstream) -> Result<(), String> {
    let path = PathAndQuery::from_static(RANGE);
    let request = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    let (none, message) = (MetadataMap::new(), request.encode_to_vec().into());
    let asked = from.unary(&path, &none, message, Repeat::Freely);
    match timeout(READ_MAX, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if status.message() == "etcdserver: permission denied" => Ok(()),
        Ok(Err(status)) => Err(format!("GET ERROR:{}", status.message())),
        Err(_elapsed) => Err("GET ERROR:context deadline exceeded".to_owned()),
    }
}

impl Inner {
    async fn own_health(&self) -> Result<(), String> {
        let own = self.own.as_ref().ok_or_else(|| "no connection to proxy".to_owned())?;
        read(own).await?;
        let (requests, sent) = mpsc::channel(1);
        let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).expect("the channel has just been made");
        let made = async {
            let opened = own.converse::<_, WatchResponse>(WATCH, MetadataMap::new(), sent).await;
            opened.ok()?.message().await.ok().flatten()
        };
        match timeout(WATCH_MAX, made).await {
            // etcd asks no more than that something comes, or the stream ends.
            Ok(_) => Ok(()),
            Err(_elapsed) => Err("WATCH TIMEOUT".to_owned()),
        }
    }

    async fn metrics_of_a_member(&self) -> Answer {
        let fetched = timeout(METRICS_MAX, self.fetch()).await;
        match fetched.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned())) {
            Ok(text) => {
                let mut answer = plain_metrics(String::new());
                *answer.body_mut() = text.into();
                answer
            }
            Err(why) => {
                tracing::debug!(error = why, "a member's metrics were not read");
                error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error".to_owned())
            }
        }
    }

    async fn fetch(&self) -> Result<Bytes, String> {
        let endpoints = self.members.endpoints();
        if endpoints.is_empty() {
            return Err("there are no endpoints".to_owned());
        }
        let endpoint = &endpoints[rand::rng().random_range(0..endpoints.len())];
        let dial = self.members.http(endpoint);
        let host = dial.uri()?.authority().map(ToString::to_string).unwrap_or_default();
        let wire = dial.connect().await.map_err(|why| why.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(wire)).await.map_err(|why| why.to_string())?;
        let request = Request::builder()
            .method(Method::GET)
            .uri("/metrics")
            .header(header::HOST, host)
            .body(Empty::<Bytes>::new())
            .map_err(|why| why.to_string())?;
        let asked = async {
            let response = sender.send_request(request).await?;
            Limited::new(response.into_body(), METRICS_BYTES_MAX).collect().await
        };
        let mut asked = std::pin::pin!(asked);
        let mut connection = std::pin::pin!(connection);
        let body = tokio::select! {
            body = &mut asked => body,
            ended = &mut connection => {
                ended.map_err(|why| why.to_string())?;
                asked.await
            }
        };
        body.map(http_body_util::Collected::to_bytes).map_err(|why| why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::service::upstream::UpstreamSettings;
    use crate::service::upstream::fake::mute;

    async fn metrics_of(endpoint: String) -> StatusCode {
        let members = Upstream::new(UpstreamSettings::default(), &[endpoint]).unwrap();
        let site = Site::new(members, None, Metrics::default(), false);
        let request = Request::builder().uri("/metrics").body(()).unwrap();
        let answered = timeout(Duration::from_secs(60), site.answer(&request)).await;
        answered.expect("an answer in time").status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_does_not_tell_its_metrics_is_not_waited_for() {
        let (mute, _listener) = mute();
        assert_eq!(metrics_of(mute).await, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn metrics_without_end_are_not_read_to_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let babbling = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let text = vec![b'a'; 1 << 20];
            for _ in 0..64 {
                if stream.write_all(&text).await.is_err() {
                    return;
                }
            }
        });
        assert_eq!(metrics_of(endpoint).await, StatusCode::INTERNAL_SERVER_ERROR);
        babbling.await.unwrap();
    }
}
