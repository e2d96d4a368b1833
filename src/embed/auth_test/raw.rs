//! Calls by their paths, with bytes for messages: no method is forgotten because nobody wrote a client for it.

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::with;
use crate::service::raw::Raw;

/// One message to `path`; the first message of the answer, if there is one.
pub(super) async fn call(
    channel: &Channel,
    path: &'static str,
    message: Vec<u8>,
    token: &str,
) -> Result<Option<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|why| Status::unknown(why.to_string()))?;
    let request: Request<Bytes> = with(token, message.into());
    let path = PathAndQuery::from_static(path);
    let answer = client.server_streaming(request, path, Raw).await?;
    answer.into_inner().message().await
}
