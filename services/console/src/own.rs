//! What the console owns besides accounts, put together: the latency sampler and the intake board.
//!
//! Their handlers decide what a caller may do; who that is comes as `Principal` in the request's extensions: from a
//! session, or here from a bearer token. In ENV=dev on a loopback listener no one is asked, as at the other services.

use crate::accounts::Identity;
use crate::config::Config;
use crate::jobs::Orchestrator;
use crate::problem::{Problem, forbidden};
use crate::store::Database;
use crate::whole::tagged;
use crate::{intake, latency};
use agentforge_access::{Denied, Principal, Role};
use agentforge_door::{Door, Refusal, Shown};
use agentforge_jetstream::Nats;
use agentforge_runtime::http::{ClientCertificate, same_machine};
use agentforge_runtime::{OnEnd, Supervisor};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The sampler and the board.
pub(crate) struct Own {
    latency: latency::Latency,
    intake: intake::Intake,
}

impl Own {
    /// On a database whose schema may still be on its way.
    pub(crate) fn new(config: &Config, database: &Database, identity: Identity) -> Result<Self, anyhow::Error> {
        let recent = Arc::new(latency::recent::Recent::default());
        let latency = latency::Latency::new(config.latency.clone(), recent).map_err(anyhow::Error::msg)?;
        let jobs = Orchestrator::new(config.upstreams.orchestrator.clone(), identity)?;
        let store = intake::store::Store::new(database.clone(), config.intake.limits);
        Ok(Self { latency, intake: intake::Intake::new(store, config.intake.clone(), Arc::new(jobs)) })
    }

    /// The routes.
    pub(crate) fn router(&self, config: &Config) -> Router {
        let is_lenient = config.common.is_dev() && config.common.bind_addr.is_loopback();
        Router::new()
            .merge(latency::router(self.latency.clone()))
            .merge(intake::router(self.intake.clone()))
            .merge(intake::todo_router(self.intake.clone()))
            .layer(from_fn_with_state((config.door.clone(), is_lenient), known))
            .layer(from_fn(tagged))
            .merge(intake::health_router(self.intake.clone(), &config.common.env))
    }

    /// Begins to probe, to send events and to count.
    pub(crate) fn spawn(self, supervisor: &Supervisor, nats: &Nats, stop: &CancellationToken) {
        let Self { latency, intake } = self;
        let done = |task: futures_util::future::BoxFuture<'static, ()>| async move {
            task.await;
            Ok::<(), anyhow::Error>(())
        };
        supervisor.spawn("latency", OnEnd::Stop, done(Box::pin(latency.run(stop.clone()))));
        let outbox = intake::outbox::run(intake.clone(), nats.clone(), stop.clone());
        supervisor.spawn("intake-events", OnEnd::Stop, done(Box::pin(outbox)));
        let counts = intake::outbox::keep_counts(intake, stop.clone());
        supervisor.spawn("intake-counts", OnEnd::Stop, done(Box::pin(counts)));
    }
}

/// Lets a request of a known caller pass.
async fn known(State((door, is_lenient)): State<(Door, bool)>, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Principal>().is_none() {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let certificate = request.extensions().get::<ClientCertificate>().map_or(&[][..], ClientCertificate::names);
        let shown = Shown::new(peer, request.headers()).with_certificate(certificate);
        let admitted = door.admit(&shown, Role::Read).await;
        let shows_nothing = request.headers().get(header::AUTHORIZATION).is_none();
        let principal = match admitted {
            Ok(principal) => principal,
            Err(Refusal::Denied(Denied::Closed | Denied::Missing)) if is_lenient && shows_nothing => {
                // A page of another origin in a browser on this machine could reach the port otherwise.
                match same_machine(request.headers(), request.uri()) {
                    Ok(()) => Principal::anyone(),
                    Err(foreign) => {
                        return forbidden(format!("without a session or a token {foreign}")).into_response();
                    }
                }
            }
            Err(refusal) => return in_words(&refusal).into_response(),
        };
        request.extensions_mut().insert(principal);
    }
    next.run(request).await
}

fn in_words(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Denied(Denied::Role(principal)) => {
            forbidden(format!("{} has the role {}, which does not allow this", principal.name, principal.role.as_str()))
        }
        Refusal::Denied(Denied::Jwt(fault)) if fault.is_without_rights() => forbidden(fault.in_words()),
        Refusal::Denied(Denied::Jwt(fault)) => Problem::unauthorized("unauthenticated", fault.in_words()),
        Refusal::Denied(Denied::Expired(_)) => {
            Problem::unauthorized("unauthenticated", "the token has expired; a new one is needed")
        }
        Refusal::Denied(_) => Problem::unauthorized(
            "unauthenticated",
            "log in, or send `Authorization: Bearer TOKEN` with a token of ACCESS_TOKENS_FILE or of an issuer",
        ),
        Refusal::Proxy => forbidden(refusal.to_string()),
        Refusal::LockedOut(wait) | Refusal::CallerRate(wait) | Refusal::AddressRate(wait) => {
            let wait = refusal.retry_after().unwrap_or(*wait);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", refusal.to_string())
                .with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)))
        }
    }
}
