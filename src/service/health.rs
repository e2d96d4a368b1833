//! grpc.health.v1.Health for the service "", which stands for the whole server.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use quorate_core::api::pb::health::health_check_response::ServingStatus;
use quorate_core::api::pb::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::pb::health::health_server;

/// The service.
pub(crate) struct Health {
    serving: watch::Receiver<bool>,
    /// Whether a defragmentation keeps it from serving, in etcd's book (the gate `StopGRPCServiceOnDefrag`).
    defragmenting: watch::Receiver<bool>,
}

impl Health {
    pub(crate) fn new(
        serving: watch::Receiver<bool>,
        defragmenting: watch::Receiver<bool>,
    ) -> Self {
        Health { serving, defragmenting }
    }

    fn is_serving(&self) -> bool {
        *self.serving.borrow() && !*self.defragmenting.borrow()
    }
}

fn answer(serving: bool) -> HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

type Answers = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(self.is_serving())))
    }

    type WatchStream = Answers;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Answers>, Status> {
        if !request.into_inner().service.is_empty() {
            // Such a service may come later: the stream stays open, as grpc-go's does.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let stream = futures::stream::once(async move { Ok(unknown) });
            return Ok(Response::new(Box::pin(stream.chain(futures::stream::pending()))));
        }
        let (serving, defragmenting) = (self.serving.clone(), self.defragmenting.clone());
        let now = move || *serving.borrow() && !*defragmenting.borrow();
        let changes = stream::select(
            WatchStream::new(self.serving.clone()),
            WatchStream::new(self.defragmenting.clone()),
        );
        let mut last = None;
        let news = changes.filter_map(move |_changed| {
            let serving = now();
            let is_news = last.replace(serving) != Some(serving);
            std::future::ready(is_news.then(|| Ok(answer(serving))))
        });
        Ok(Response::new(Box::pin(news)))
    }
}

#[cfg(test)]
mod tests {
    use super::health_server::Health as _;
    use super::*;

    #[tokio::test]
    async fn only_the_whole_server_has_a_health() {
        let (serving, watched) = watch::channel(true);
        let (defragmenting, watched_too) = watch::channel(false);
        let health = Health::new(watched, watched_too);
        let ask = |service: &str| Request::new(HealthCheckRequest { service: service.to_owned() });
        let told = health.check(ask("")).await.unwrap().into_inner();
        assert_eq!(told.status(), ServingStatus::Serving);
        let refused = health.check(ask("etcdserverpb.KV")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "unknown service"));
        let mut stream = health.watch(ask("")).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
        defragmenting.send_replace(true);
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert_eq!(
            health.check(ask("")).await.unwrap().into_inner().status(),
            ServingStatus::NotServing
        );
        defragmenting.send_replace(false);
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
        serving.send_replace(false);
        assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
}
