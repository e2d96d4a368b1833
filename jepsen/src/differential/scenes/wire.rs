//! Calls that no generated client makes: methods nobody has, bodies that are no messages, odd metadata.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::Stage;
use crate::client::connect;
use crate::differential::target::Target;

/// Path and body.
const ASKED: [(&str, &[u8]); 22] = [
    ("/etcdserverpb.KV/Nope", b""),
    ("/etcdserverpb.KV/", b""),
    ("/etcdserverpb.KV/range", b""),
    ("/etcdserverpb.KV", b""),
    ("/foo.Bar/Baz", b""),
    ("/etcdserverpb.Nope/Range", b""),
    ("/nonsense", b""),
    ("/", b""),
    ("/a/b/c", b""),
    ("/etcdserverpb.KV/Range", b""),
    ("/etcdserverpb.KV/Range", b"\xff"),
    ("/etcdserverpb.KV/Range", b"\x0a\x05a"),
    ("/etcdserverpb.KV/Range", b"\x0b"),
    ("/etcdserverpb.KV/Range", b"\x0a\x01a\xf8\xff\x01\x07"),
    ("/etcdserverpb.KV/Range", b"\x0a\x01a\x0a\x01b"),
    ("/etcdserverpb.KV/Put", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ("/etcdserverpb.KV/Txn", b"\x12\x02\x0a\x05"),
    ("/etcdserverpb.KV/Txn", b"\x12\x00"),
    ("/etcdserverpb.Lease/LeaseGrant", b"\x08"),
    ("/etcdserverpb.Maintenance/HashKV", b"\x08\x80"),
    ("/grpc.health.v1.Health/Check", b""),
    ("/grpc.health.v1.Health/Check", b"\x0a\x04nope"),
];

/// Name and value of one piece of metadata.
const METADATA: [(&str, &[u8]); 6] = [
    ("client-api-version", b"3.7"),
    ("client-api-version", b"\xff\xfe"),
    ("hasleader", b"true"),
    ("hasleader", b"nonsense"),
    ("token", b"nobody"),
    ("authorization", b"Bearer nobody"),
];

/// Asks everything of both; against another release than ours nothing.
pub(super) async fn compare(stage: &mut Stage<'_>) {
    if !stage.run.release.speaks_our_http() {
        return;
    }
    for (path, body) in ASKED {
        differ(stage, path, body, None).await;
    }
    for metadata in METADATA {
        differ(stage, "/etcdserverpb.KV/Range", b"\x0a\x01a", Some(metadata)).await;
    }
}

async fn differ(
    stage: &mut Stage<'_>,
    path: &'static str,
    body: &'static [u8],
    metadata: Option<(&'static str, &'static [u8])>,
) {
    stage.asked += 1;
    let (ours, theirs) = tokio::join!(
        ask(&stage.ours, path, body, metadata),
        ask(&stage.theirs, path, body, metadata)
    );
    if ours != theirs {
        let asked = format!("{path} {:?} {metadata:?}", Bytes::from_static(body));
        stage.fault(format!("{asked}:\n   ours {ours}\n   etcd {theirs}"));
    }
}

/// Code and text of the refusal, or that there was none: what is in an answer other calls compare.
async fn ask(
    target: &Target,
    path: &'static str,
    body: &'static [u8],
    metadata: Option<(&'static str, &'static [u8])>,
) -> String {
    let channel = match connect(&target.endpoint()).await {
        Ok(channel) => channel,
        Err(error) => return format!("{error:#}"),
    };
    let mut request = Request::new(Bytes::from_static(body));
    if let Some((name, value)) = metadata {
        match MetadataValue::try_from(value) {
            Ok(value) => drop(request.metadata_mut().insert(name, value)),
            Err(error) => return format!("{error}"),
        }
    }
    let mut client = Grpc::new(channel);
    if let Err(error) = client.ready().await {
        return format!("{error}");
    }
    match client.unary(request, PathAndQuery::from_static(path), Raw).await {
        Ok(_) => "an answer".to_owned(),
        // protobuf-go puts a no-break space after its name in some builds, so that nobody compares its texts.
        Err(status) => format!("{:?}: {}", status.code(), status.message().replace('\u{a0}', " ")),
    }
}

/// Bodies as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(body);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
