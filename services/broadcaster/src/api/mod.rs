//! The API below /v1: endpoints, attempts, dead letters, and the intake of alerts.
//!
//! Asks for the token; without one it is open in ENV=dev on a loopback listener and closed elsewhere. An
//! open one takes no requests of web pages. Answers
//! hold names of endpoints, never URLs, secrets or headers. Refusals are problems with a stable code.

use crate::{
    delivery::outcome::chain,
    metrics::ALERTS,
    payload::alerts,
    redelivery::dead_letters::{self, DeadLetters, Filter, Redeliver},
    registry::{
        Fleet,
        subscription::{Running, Stage},
    },
};
use agentforge_config::{ExposeSecret, Secret};
use agentforge_jetstream::{HeaderMap as NatsHeaders, publish};
use agentforge_message_id::MsgId;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{net::IpAddr, sync::Arc};
use subtle::ConstantTimeEq;

mod deliveries;
mod endpoints;

/// Larger bodies are refused: Alertmanager's are some tens of kilobytes.
const BODY_MAX_BYTES: usize = 4 << 20;
/// Items of a list unless asked otherwise.
const LIMIT: usize = 100;

/// What handlers work with.
#[derive(Clone)]
pub struct Api {
    fleet: Fleet,
    dead_letters: DeadLetters,
    guard: Arc<Guard>,
}

/// Who may call.
enum Guard {
    Token(Secret),
    /// Callers that reach a loopback listener of a developer's machine.
    Open,
    Closed,
}

/// All routes.
pub fn router(fleet: &Fleet) -> Router {
    let config = &fleet.context().config;
    let guard = match &config.token {
        Some(token) => Guard::Token(token.clone()),
        None if config.common.is_dev() && is_loopback(config.common.bind_addr) => Guard::Open,
        None => Guard::Closed,
    };
    let context = fleet.context();
    let (clock, room) = (context.clock.clone(), context.room.clone());
    let dead_letters = DeadLetters::new(context.nats.clone(), &config.common.env, clock, room);
    let api = Api { fleet: fleet.clone(), dead_letters, guard: Arc::new(guard) };
    Router::new()
        .route("/v1/endpoints", get(list).post(endpoints::create))
        .route("/v1/endpoints/{name}", get(endpoints::get).patch(endpoints::update).delete(endpoints::delete))
        .route("/v1/endpoints/{name}/pause", post(endpoints::pause))
        .route("/v1/endpoints/{name}/resume", post(endpoints::resume))
        .route("/v1/endpoints/{name}/rotate", post(endpoints::rotate))
        .route("/v1/endpoints/{name}/test", post(test))
        .route("/v1/endpoints/{name}/enable", post(enable))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/replay", post(deliveries::replay))
        .route("/v1/dead-letters", get(list_dead))
        .route("/v1/dead-letters/{seq}", get(read_dead))
        .route("/v1/dead-letters/redeliver", post(redeliver))
        .route("/v1/alerts", post(take_alerts))
        .layer(from_fn_with_state(api.clone(), guarded))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(api)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback()
}

/// A refusal.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }
    fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
    }
    fn missing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"))
    }
    fn away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body =
            json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail });
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, 5.into());
        }
        response
    }
}

impl From<dead_letters::Error> for Problem {
    fn from(error: dead_letters::Error) -> Self {
        Self::away(chain(&error))
    }
}

async fn guarded(State(api): State<Api>, request: Request, next: Next) -> Response {
    let allowed = match &*api.guard {
        Guard::Open => match same_machine(request.headers()) {
            Ok(()) => Ok(()),
            Err(detail) => {
                return Problem::new(StatusCode::FORBIDDEN, "permission_denied", detail).into_response();
            }
        },
        Guard::Closed => {
            Err("set BROADCASTER_TOKEN; without it the API is open in ENV=dev on a loopback listener only")
        }
        Guard::Token(token) => match bearer(request.headers()) {
            Some(given) if bool::from(given.as_bytes().ct_eq(token.expose_secret().as_bytes())) => Ok(()),
            _ => Err("send `Authorization: Bearer TOKEN` with the value of BROADCASTER_TOKEN"),
        },
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(detail) => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Without a token a web page in a browser could reach a loopback port, by a cross-site request or by a name that it
/// points to 127.0.0.1. Browsers reveal both: by Origin and by Host.
fn same_machine(headers: &HeaderMap) -> Result<(), &'static str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| !is_local_name(host)) {
        return Err("without BROADCASTER_TOKEN the host must be localhost or an IP address");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    match origin.is_some() && origin == host {
        true => Ok(()),
        false => Err("without BROADCASTER_TOKEN requests from web pages of other origins are refused"),
    }
}

fn is_local_name(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// An endpoint as it is listed.
#[derive(Serialize)]
struct Shown {
    name: String,
    source: &'static str,
    subjects: Vec<String>,
    format: &'static str,
    concurrency: usize,
    rate: Option<f64>,
    signed: bool,
    state: &'static str,
    detail: String,
    circuit: &'static str,
    pending: u64,
}

impl Shown {
    fn of(fleet: &Fleet, running: &Running) -> Self {
        let endpoint = &running.endpoint;
        let (state, detail) = match (running.stage(), running.desk.gate.held()) {
            (Stage::Disabled, _) => ("disabled", "it answered 410; enable it, or change its URL".to_owned()),
            _ if running.desk.gate.is_paused() => ("paused", "somebody paused it; its events wait".to_owned()),
            (Stage::Active, Some(why)) => ("waiting", why),
            (Stage::Active, None) => ("active", String::new()),
            (Stage::Waiting(why), _) => ("waiting", why),
        };
        use crate::delivery::circuit::Phase;
        let circuit = match running.desk.gate.phase() {
            Phase::Closed => "closed",
            Phase::Open { .. } => "open",
            Phase::ProbeDue | Phase::Probing => "probing",
        };
        Self {
            name: endpoint.name.clone(),
            source: if fleet.is_made(&endpoint.name) { "api" } else { "settings" },
            subjects: endpoint.subjects.clone(),
            format: endpoint.format.as_str(),
            concurrency: endpoint.concurrency,
            rate: endpoint.rate,
            signed: !endpoint.signer.is_empty(),
            state,
            detail,
            circuit,
            pending: running.pending(),
        }
    }
}

async fn list(State(api): State<Api>) -> Response {
    let shown: Vec<Shown> = api.fleet.all().iter().map(|running| Shown::of(&api.fleet, running)).collect();
    Json(json!({ "endpoints": shown })).into_response()
}

fn known(api: &Api, name: &str) -> Result<Arc<Running>, Problem> {
    api.fleet.get(name).ok_or_else(|| Problem::missing("such endpoint"))
}

async fn test(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let running = known(&api, &name)?;
    Ok(Json(running.desk.test().await).into_response())
}

async fn enable(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let running = known(&api, &name)?;
    let changed = api.fleet.context().states.change(&name, |state| state.disabled = None).await;
    changed.map_err(|e| Problem::away(e.to_string()))?;
    running.look.notify_one();
    Ok(Json(json!({ "endpoint": name, "enabled": true })).into_response())
}

#[derive(Deserialize)]
struct Which {
    endpoint: Option<String>,
    reason: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

async fn list_dead(State(api): State<Api>, Query(which): Query<Which>) -> Result<Response, Problem> {
    let limit = which.limit.unwrap_or(LIMIT).clamp(1, dead_letters::PAGE_MAX);
    let filter = Filter { endpoint: name_of_endpoint(which.endpoint)?, reason: which.reason };
    let found = api.dead_letters.list(&filter, which.after.unwrap_or(0), limit).await?;
    let next_after = found.last().filter(|_| found.len() == limit).map(|last| last.seq);
    Ok(Json(json!({ "dead_letters": found, "next_after": next_after })).into_response())
}

async fn read_dead(State(api): State<Api>, Path(seq): Path<u64>) -> Result<Response, Problem> {
    let letter = api.dead_letters.read(seq).await?;
    Ok(Json(letter.ok_or_else(|| Problem::missing("such dead letter"))?).into_response())
}

async fn redeliver(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let mut wanted: Redeliver = serde_json::from_slice(&body).map_err(|e| Problem::invalid(e.to_string()))?;
    wanted.endpoint = name_of_endpoint(wanted.endpoint)?;
    if wanted.seqs.is_empty() && wanted.endpoint.is_none() && wanted.reason.is_none() && !wanted.all {
        return Err(Problem::invalid("name seqs, endpoint or reason, or set all to true"));
    }
    Ok(Json(api.dead_letters.redeliver(wanted).await?).into_response())
}

/// It becomes a token of a subject.
fn name_of_endpoint(given: Option<String>) -> Result<Option<String>, Problem> {
    match given {
        Some(name) if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            Err(Problem::invalid("endpoint is not the name of an endpoint"))
        }
        given => Ok(given),
    }
}

async fn take_alerts(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let events = alerts::events(&body, jiff::Timestamp::now()).map_err(Problem::invalid)?;
    let nats = &api.fleet.context().nats;
    if !nats.is_connected() {
        return Err(Problem::away("NATS is away; nothing was published"));
    }
    let mut published = 0;
    for event in events {
        let id = MsgId::outbox(&event.id);
        let sent = publish::publish(nats, event.subject, id, NatsHeaders::new(), event.body.into()).await;
        sent.map_err(|e| Problem::away(format!("{published} alerts were published, then: {}", chain(&e))))?;
        published += 1;
    }
    ALERTS.add(&[], published);
    Ok(Json(json!({ "published": published })).into_response())
}
