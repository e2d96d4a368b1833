//! Who speaks to whom: the heads of the HTTP upgrade that opens a stream, in etcd's names where it has them (etcd
//! `server/etcdserver/api/rafthttp/{stream,http,util}.go`).
//!
//! ```text
//!   GET /raft/quorate/log HTTP/1.1            HTTP/1.1 101 Switching Protocols
//!   Connection: Upgrade                       Connection: Upgrade
//!   Upgrade: quorate-peer/1                   Upgrade: quorate-peer/1
//!   X-Server-From: <who dials>                X-Server-From: <who accepts>
//!   X-Raft-To: <whom it means>                X-Etcd-Cluster-Id: <cluster>
//!   X-Etcd-Cluster-Id: <cluster>
//!   X-PeerURLs: <where who dials is reached>
//! ```
//!
//! A member that was away while others joined, or one that joins, does not know from its log by whom it is led: it
//! dials back whoever of its cluster dials it.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use quorate_core::api::ids::{ClusterId, MemberId};

use crate::consensus::Purpose;

/// The protocol and its version; another one is refused.
pub(super) const PROTOCOL: &str = "quorate-peer/1";

/// Streams stand below this path; etcd's own stand elsewhere below `/raft`.
const STREAM_PATH: &str = "/raft/quorate/";

const FROM: HeaderName = HeaderName::from_static("x-server-from");
const TO: HeaderName = HeaderName::from_static("x-raft-to");

/// The head that names a cluster.
pub const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// The head that names the level of a cluster: what all its members understand.
pub const CLUSTER_LEVEL: HeaderName = HeaderName::from_static("x-quorate-cluster-level");

/// Where the member is reached that sent a head; a comma between two of them.
const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// A head names no more than so many URLs.
const PEER_URLS_MAX: usize = 16;

/// What a dialling member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) cluster: ClusterId,
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) purpose: Purpose,
}

/// Why a stream is not opened. The texts are etcd's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is none of ours.
    #[error("404 page not found")]
    NoSuchPath,
    /// Not a GET.
    #[error("Method Not Allowed")]
    Method,
    /// Another protocol, or another version of it.
    #[error("incompatible version")]
    Version,
    /// Another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
    /// It does not say who it is.
    #[error("invalid from")]
    BadFrom,
    /// It was a member and is none any more.
    #[error("removed member")]
    Removed,
    /// No member of this cluster, as far as this member knows.
    #[error("error sender not found")]
    Unknown,
    /// It means another member.
    #[error("to field mismatch")]
    To,
    /// There are too many streams.
    #[error("too many streams")]
    TooMany,
    /// This member is stopping.
    #[error("stopping")]
    Stopping,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::NoSuchPath | Refusal::BadFrom | Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Version | Refusal::Cluster | Refusal::To => StatusCode::PRECONDITION_FAILED,
            Refusal::Removed => StatusCode::GONE,
            Refusal::TooMany | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What an answer other than 101 means; `None` if it is none of these.
    pub(super) fn parse(status: StatusCode, body: &str) -> Option<Refusal> {
        let all = [
            Refusal::NoSuchPath,
            Refusal::Method,
            Refusal::Version,
            Refusal::Cluster,
            Refusal::BadFrom,
            Refusal::Removed,
            Refusal::Unknown,
            Refusal::To,
            Refusal::TooMany,
            Refusal::Stopping,
        ];
        let text = body.trim_end_matches('\n');
        all.into_iter().find(|known| known.status() == status && known.to_string() == text)
    }
}

fn hex(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    u64::from_str_radix(headers.get(name)?.to_str().ok()?, 16).ok()
}

/// The cluster a head names.
pub(super) fn cluster(headers: &HeaderMap) -> Option<ClusterId> {
    hex(headers, &CLUSTER).map(ClusterId)
}

/// The cluster level that a head names.
pub(super) fn cluster_level(headers: &HeaderMap) -> Option<u32> {
    headers.get(&CLUSTER_LEVEL)?.to_str().ok()?.parse().ok()
}

/// Who sent a head.
pub(super) fn sender(headers: &HeaderMap) -> Option<MemberId> {
    hex(headers, &FROM).map(MemberId)
}

/// Where who sent a head says that it is reached.
pub(super) fn peer_urls(headers: &HeaderMap) -> Vec<String> {
    let text = headers.get(PEER_URLS).and_then(|urls| urls.to_str().ok()).unwrap_or_default();
    let urls = text.split(',').filter(|url| !url.is_empty());
    urls.take(PEER_URLS_MAX).map(str::to_owned).collect()
}

fn speaks_our_protocol(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes() == PROTOCOL.as_bytes())
}

impl Hello {
    /// The request that asks `host` for a stream, by a member that is reached at `own_urls`.
    pub(super) fn request<B>(
        &self,
        host: &str,
        own_urls: &[String],
        body: B,
    ) -> http::Result<Request<B>> {
        Request::get(format!("{STREAM_PATH}{}", self.purpose.word()))
            .header(HOST, host)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, PROTOCOL)
            .header(FROM, self.from.to_string())
            .header(TO, self.to.to_string())
            .header(CLUSTER, self.cluster.to_string())
            .header(PEER_URLS, own_urls.join(","))
            .body(body)
    }

    /// The answer that opens it.
    pub(super) fn accept<B>(&self, body: B) -> http::Result<Response<B>> {
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, PROTOCOL)
            .header(FROM, self.to.to_string())
            .header(CLUSTER, self.cluster.to_string())
            .body(body)
    }

    /// Reads a request, in the order in which etcd looks; who `to` is, and whether `from` is a member, is left to
    /// the caller, for whom `cluster` is.
    pub(super) fn read<B>(request: &Request<B>, cluster: ClusterId) -> Result<Hello, Refusal> {
        let word = request.uri().path().strip_prefix(STREAM_PATH).unwrap_or_default();
        let headers = request.headers();
        if request.method() != Method::GET {
            return Err(Refusal::Method);
        }
        if self::cluster(headers) != Some(cluster) {
            return Err(Refusal::Cluster);
        }
        let purpose = Purpose::parse(word).ok_or(Refusal::NoSuchPath)?;
        if !speaks_our_protocol(headers) {
            return Err(Refusal::Version);
        }
        let from = sender(headers).ok_or(Refusal::BadFrom)?;
        let to = hex(headers, &TO).map(MemberId).ok_or(Refusal::To)?;
        Ok(Hello { cluster, from, to, purpose })
    }

    /// Whether an answer of 101 comes from whom was meant.
    pub(super) fn is_answered_by<B>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        speaks_our_protocol(headers)
            && cluster(headers) == Some(self.cluster)
            && sender(headers) == Some(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        cluster: ClusterId(0xab),
        from: MemberId(1),
        to: MemberId(2),
        purpose: Purpose::Forward,
    };

    fn read(change: impl FnOnce(&mut Request<()>)) -> Result<Hello, Refusal> {
        let mut request = HELLO.request("a:1", &["http://b:1".to_owned()], ()).unwrap();
        change(&mut request);
        Hello::read(&request, ClusterId(0xab))
    }

    #[test]
    fn a_hello_comes_back_and_each_fault_has_its_refusal() {
        assert_eq!(read(|_| ()), Ok(HELLO));
        let request = HELLO.request("a:1", &["http://b:1".to_owned()], ()).unwrap();
        assert_eq!(peer_urls(request.headers()), ["http://b:1"]);
        assert_eq!(read(|r| *r.method_mut() = Method::POST), Err(Refusal::Method));
        let set = |name: HeaderName, value: &'static str| {
            move |r: &mut Request<()>| drop(r.headers_mut().insert(name, value.parse().unwrap()))
        };
        assert_eq!(read(set(CLUSTER, "ac")), Err(Refusal::Cluster));
        assert_eq!(read(set(UPGRADE, "quorate-peer/2")), Err(Refusal::Version));
        assert_eq!(read(set(FROM, "x")), Err(Refusal::BadFrom));
        // A member of etcd's, of the same cluster.
        let etcd = read(|r| *r.uri_mut() = "/raft/stream/message/1".parse().unwrap());
        assert_eq!(etcd, Err(Refusal::NoSuchPath));
        let answer = HELLO.accept(()).unwrap();
        assert!(HELLO.is_answered_by(&answer));
        assert!(!Hello { to: MemberId(3), ..HELLO }.is_answered_by(&answer));
    }

    #[test]
    fn a_refusal_is_known_again_by_its_answer() {
        let body = format!("{}\n", Refusal::Cluster);
        assert_eq!(Refusal::parse(StatusCode::PRECONDITION_FAILED, &body), Some(Refusal::Cluster));
        assert_eq!(Refusal::parse(StatusCode::OK, &body), None);
    }
}
