//! etcdserverpb.KV: check, call, map the error, fill the header.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::credentials::admit;
use super::header::fill;
use super::metrics::KvCounts;
use super::pb::etcdserverpb::kv_server;
use super::status::status;
use crate::keyspace::KeyspaceError;
use crate::keyspace::auth::Gate;

/// The service.
pub(crate) struct Kv {
    gate: Gate,
    counts: KvCounts,
}

impl Kv {
    pub(crate) fn new(gate: Gate, counts: KvCounts) -> Self {
        Kv { gate, counts }
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let request = request.into_inner();
        if !request.serializable && keyspace.is_learner() {
            return Err(status(&KeyspaceError::NotForLearners));
        }
        let mut response = keyspace.range(request).await.map_err(|why| status(&why))?;
        self.counts.ranges.inc();
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    type RangeStreamStream = Chunks;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let chunks =
            keyspace.range_stream(request.into_inner()).await.map_err(|why| status(&why))?;
        self.counts.ranges.inc();
        let answered = chunks.map(move |chunk| {
            let mut chunk = chunk.map_err(|why| status(&why))?;
            // Only the last chunk has a header: only there is one filled.
            let last = chunk.range_response.as_mut().filter(|range| range.header.is_some());
            if let Some(range) = last {
                fill(&mut range.header, &keyspace);
            }
            Ok(chunk)
        });
        Ok(Response::new(Box::pin(answered)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.put(request.into_inner()).await.map_err(|why| status(&why))?;
        self.counts.puts.inc();
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.delete_range(request.into_inner()).await.map_err(|why| status(&why))?;
        self.counts.deletes.inc();
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.txn(request.into_inner()).await.map_err(|why| status(&why))?;
        self.counts.txn(&response);
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.compact(request.into_inner()).await.map_err(|why| status(&why))?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }
}
