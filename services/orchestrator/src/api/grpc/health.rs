//! grpc.health.v1: SERVING while the service is ready.
//!
//! Our own, not tonic-health's, because watches must end when the service stops: an open one would
//! hold the stop up for the whole grace period.

use crate::api::operations::OPERATIONS;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Reports whether the service can do its callers' work; used by health checks.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often a watch checks the readiness.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Service {
    pub(super) ready: Ready,
    pub(super) stopping: CancellationToken,
}

impl Service {
    fn status(&self) -> ServingStatus {
        status(&self.ready, &self.stopping)
    }
}

fn status(ready: &Ready, stopping: &CancellationToken) -> ServingStatus {
    if !stopping.is_cancelled() && ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The empty name is the whole server; the others are our services.
fn is_known(service: &str) -> bool {
    let ours = |rpc: &str| rpc.trim_start_matches('/').split('/').next() == Some(service);
    service.is_empty() || OPERATIONS.iter().filter_map(|o| o.rpc).any(ours)
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(response(self.status())))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !is_known(&request.get_ref().service) {
            // The protocol asks for an answer, in case the service appears later.
            let unknown = stream::once(async { Ok(response(ServingStatus::ServiceUnknown)) });
            return Ok(Response::new(unknown.boxed()));
        }
        let state = (self.ready.clone(), self.stopping.clone(), None);
        let changes = stream::unfold(state, |(ready, stopping, sent)| async move {
            loop {
                let now = status(&ready, &stopping);
                if sent != Some(now) {
                    return Some((Ok(response(now)), (ready, stopping, Some(now))));
                }
                if stopping.is_cancelled() {
                    return None;
                }
                tokio::select! {
                    () = tokio::time::sleep(CHECK_INTERVAL) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_watch_follows_readiness_and_ends_with_the_service() {
        let ready = Arc::new(AtomicBool::new(false));
        let flag = ready.clone();
        let stopping = CancellationToken::new();
        let service = Service { ready: Arc::new(move || flag.load(Ordering::SeqCst)), stopping: stopping.clone() };
        let ask = |s: &str| Request::new(HealthCheckRequest { service: s.into() });
        let mut watch = service.watch(ask("agentforge.v1.Jobs")).await.unwrap().into_inner();
        let mut next = async || watch.next().await.map(|r| r.unwrap().status());
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        ready.store(true, Ordering::SeqCst);
        assert_eq!(next().await, Some(ServingStatus::Serving));
        assert_eq!(service.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
        stopping.cancel();
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
        assert_eq!(service.check(ask("nobody")).await.unwrap_err().code(), tonic::Code::NotFound);
    }
}
