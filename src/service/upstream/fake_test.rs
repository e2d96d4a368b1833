//! A member that answers as a test says, over a real socket; and addresses where nobody answers.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;

type Answer = dyn Fn(&str) -> Result<Bytes, Status> + Send + Sync;

/// Ends, with its connections, when it is dropped.
pub(in crate::service) struct Fake {
    pub(in crate::service) address: String,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Fake {
    /// Answers each call with one message, or with none and a status, which may be OK.
    pub(in crate::service) async fn start(
        answer: impl Fn(&str) -> Result<Bytes, Status> + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::default();
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::new(answer), Arc::clone(&asked)));
        Fake { address, asked, _serving: serving }
    }

    /// The paths of the calls that came since this was asked last.
    pub(in crate::service) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

async fn accept(listener: TcpListener, answer: Arc<Answer>, asked: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        let service = service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let response = respond(answer(&path));
            asked.lock().push(path);
            async move { Ok::<_, Infallible>(response) }
        });
        let serving = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move { serving.await.unwrap_or_default() });
    }
}

fn respond(answer: Result<Bytes, Status>) -> Response<Body> {
    let message = match answer {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, Infallible>(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    let response = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    response.body(body).unwrap()
}

/// Takes connections and says nothing.
pub(in crate::service) fn mute() -> (String, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().to_string(), listener)
}

/// An address where connecting takes for ever: the queue of connections is full.
pub(in crate::service) struct Hole {
    pub(in crate::service) address: String,
    _queued: Vec<TcpStream>,
    _listener: TcpListener,
}

impl Hole {
    pub(in crate::service) fn new() -> Hole {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let queued = std::iter::from_fn(connect).take(64).collect::<Vec<_>>();
        assert!(queued.len() < 64, "the queue has an end");
        Hole { address: address.to_string(), _queued: queued, _listener: listener }
    }
}
