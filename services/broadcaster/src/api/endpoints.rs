//! Endpoints made, changed and taken out by the API. Those of the settings are shown, paused and resumed here, and
//! changed where they are written.
//!
//! A secret is shown once: in the answer to the call that makes it.

use super::{
    app::{Api, known},
    problem::{Problem, invalid, unavailable},
    view::EndpointView,
};
use crate::{
    delivery::dispatcher::TestOutcome,
    endpoints::{
        declaration::{Declaration, Start},
        retry_4xx::Retry4xx,
    },
    payload::render::Format,
    registry::{
        Registry,
        managed::{ChangeError, ManagedEndpoint, OVERLAP_MAX, Refusal, new_secret},
        state::EndpointState,
        subscription::Subscription,
    },
};
use agentforge_config::parse_duration;
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

/// How long an answer waits for this replica to apply a change, and between checks.
const APPLIED_WAIT_MAX: Duration = Duration::from_secs(3);
const APPLIED_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// How long a replaced secret keeps signing by default.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Away(_) | ChangeError::Sealed(_) => unavailable(detail),
            ChangeError::Refused(Refusal::Invalid(_)) => invalid(detail),
            ChangeError::Refused(Refusal::Taken(_)) => Self::new(StatusCode::CONFLICT, "already_exists", detail),
            ChangeError::Refused(Refusal::Missing(_)) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            ChangeError::Refused(Refusal::Overlapping(_)) => {
                Self::new(StatusCode::CONFLICT, "failed_precondition", detail)
            }
        }
    }
}

/// One endpoint, with what the API knows about it.
#[derive(Serialize, ToSchema)]
pub(super) struct EndpointDetails {
    #[serde(flatten)]
    shown: EndpointView,
    timeout: String,
    retry_4xx: String,
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Timestamp>,
    /// When secrets that were replaced end; until then they sign, too.
    secrets_end_at: Vec<Timestamp>,
}

impl EndpointDetails {
    fn of(registry: &Registry, subscription: &Subscription, entry: Option<&ManagedEndpoint>) -> Self {
        let endpoint = &subscription.endpoint;
        Self {
            shown: EndpointView::of(registry, subscription),
            timeout: format!("{:?}", endpoint.timeout),
            retry_4xx: endpoint.retry_4xx.to_string(),
            headers: endpoint.headers.iter().map(|(name, _)| name.to_string()).collect(),
            created_at: entry.map(|entry| entry.created_at),
            updated_at: entry.map(|entry| entry.updated_at),
            secrets_end_at: entry.map(|entry| entry.overlaps(Timestamp::now())).unwrap_or_default(),
        }
    }
}

/// Show an endpoint
///
/// Its state and settings; never its URL, secret or headers.
#[utoipa::path(
    get, path = "/v1/endpoints/{name}", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "The endpoint", body = EndpointDetails))
)]
pub(super) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = known(&api, &name)?;
    let managed = if api.registry.is_managed(&name) {
        api.registry.context().managed.read().await.map_err(|e| unavailable(e.to_string()))?
    } else {
        None
    };
    let entry = managed.as_ref().and_then(|managed| managed.get(&name));
    Ok(Json(EndpointDetails::of(&api.registry, &subscription, entry)).into_response())
}

/// An endpoint to create: what the endpoints file says of one, and whether it gets a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEndpoint {
    /// 1 to 63 letters, digits or hyphens, starting with a letter or digit; the label of metrics and logs. It cannot be
    /// changed.
    name: String,
    /// Where requests go: http or https. It is never shown again.
    url: String,
    /// Subjects of events, with wildcards; without them, those of BROADCASTER_SUBJECTS.
    subjects: Option<Vec<String>>,
    /// Whether requests are signed; without it, they are unless the format is slack, teams or discord.
    signed: Option<bool>,
    /// The key of signatures. Without one, a key is made and the answer shows it once.
    secret: Option<String>,
    /// Further keys, each of which signs too.
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    format: Format,
    /// How long a request may take, such as 10s: 100ms to 5m.
    timeout: Option<String>,
    /// Requests per second, 0.01 to 100,000; without it, as many as `concurrency` lets through.
    rate: Option<f64>,
    /// Requests at once, 1 to 1024.
    concurrency: Option<usize>,
    retry_4xx: Option<Retry4xx>,
    /// Headers of requests in addition to those of the broadcaster. Values are never shown again.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    start: Start,
}

impl From<NewEndpoint> for Declaration {
    fn from(new: NewEndpoint) -> Self {
        // Whether it is signed decides only whether a secret is made.
        let NewEndpoint {
            signed: _,
            name,
            url,
            subjects,
            secret,
            secrets,
            format,
            timeout,
            rate,
            concurrency,
            retry_4xx,
            headers,
            start,
        } = new;
        Self { name, url, subjects, secret, secrets, format, timeout, rate, concurrency, retry_4xx, headers, start }
    }
}

/// What of an endpoint is changed; what is absent stays, and null is the default.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document's shape: the body is read as a map, where null and absence differ")]
pub(super) struct EndpointPatch {
    /// Where requests go: http or https. What waits goes there too.
    url: Option<String>,
    /// Subjects of events, with wildcards.
    subjects: Option<Vec<String>>,
    format: Option<Format>,
    /// How long a request may take, such as 10s: 100ms to 5m.
    timeout: Option<String>,
    /// Requests per second, 0.01 to 100,000.
    rate: Option<f64>,
    /// Requests at once, 1 to 1024.
    concurrency: Option<usize>,
    retry_4xx: Option<Retry4xx>,
    /// Headers by name: one with a value is set, one with null is removed, others stay.
    headers: Option<BTreeMap<String, Option<String>>>,
}

/// Create an endpoint
///
/// The answer has the secret, once, where none was given.
#[utoipa::path(
    post, path = "/v1/endpoints", tag = "Endpoints",
    request_body = NewEndpoint,
    responses((status = 201, description = "Created", body = Created))
)]
pub(super) async fn create(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let wanted: NewEndpoint = json_of(&body)?;
    let signed = wanted.signed;
    let mut written = Declaration::from(wanted);
    let has_secret = written.secret.is_some() || !written.secrets.is_empty();
    if signed == Some(false) && has_secret {
        return Err(invalid("signed is false and there is a secret"));
    }
    let secret = (!has_secret && signed.unwrap_or(!written.format.is_for_people())).then(new_secret);
    written.secret = written.secret.or_else(|| secret.clone());
    let name = written.name.clone();
    if api.registry.is_declared(&name) {
        return Err(ChangeError::Refused(Refusal::Taken(name)).into());
    }
    let context = api.registry.context();
    check_url(&api, &written.url)?;
    let now = Timestamp::now();
    context.managed.change(|managed| managed.create(written.clone(), &context.config.defaults, now)).await?;
    applied(|| api.registry.is_managed(&name)).await;
    let shown = Created { name, source: "api", created_at: now, secret };
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// What may not be called would only wait. Another URL is refused with the rest of the declaration.
fn check_url(api: &Api, url: &str) -> Result<(), Problem> {
    match url::Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            let policy = api.registry.context().dialer.policy();
            policy.check_url(&url).map_err(|refusal| invalid(format!("url: {refusal}")))
        }
        _ => Ok(()),
    }
}

/// Change an endpoint
///
/// Changes what the body names. What waits for the endpoint, its retries included, is sent to its new place.
#[utoipa::path(
    patch, path = "/v1/endpoints/{name}", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    request_body = EndpointPatch,
    responses((status = 200, description = "The endpoint", body = EndpointDetails))
)]
pub(super) async fn update(State(api): State<Api>, Path(name): Path<String>, body: Bytes) -> Result<Response, Problem> {
    changeable(&api, &name)?;
    let patch: serde_json::Map<String, Value> = json_of(&body)?;
    if let Some(url) = patch.get("url").and_then(Value::as_str) {
        check_url(&api, url)?;
    }
    let (context, now) = (api.registry.context(), Timestamp::now());
    let defaults = &context.config.defaults;
    let managed = context.managed.change(|managed| managed.update(&name, &patch, defaults, now)).await?;
    let wanted = managed.get(&name).and_then(|entry| entry.endpoint(defaults, now));
    let is_applied =
        |subscription: Arc<Subscription>| wanted.as_ref().is_none_or(|wanted| subscription.endpoint == *wanted);
    applied(|| api.registry.get(&name).is_some_and(is_applied)).await;
    get(State(api), Path(name)).await
}

/// Waits until this replica works by what was changed; the others follow within seconds. A caller that asks next sees
/// its change, and what is published next is for the new endpoint.
async fn applied(is_so: impl Fn() -> bool) {
    let until = Instant::now() + APPLIED_WAIT_MAX;
    while !is_so() && Instant::now() < until {
        sleep(APPLIED_CHECK_INTERVAL).await;
    }
}

/// Refuses what only the settings can change.
fn changeable(api: &Api, name: &str) -> Result<(), Problem> {
    if api.registry.is_declared(name) {
        Err(Problem::new(
            StatusCode::CONFLICT,
            "read_only",
            format!("endpoint {name} is of WEBHOOK_URL or the endpoints file; change it there"),
        ))
    } else {
        Ok(())
    }
}

/// Delete an endpoint
///
/// Only one that the API created.
#[utoipa::path(
    delete, path = "/v1/endpoints/{name}", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "Deleted", body = Deleted))
)]
pub(super) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    changeable(&api, &name)?;
    let context = api.registry.context();
    context.managed.change(|managed| managed.delete(&name)).await?;
    // A later one of the same name starts from scratch.
    let cleared = context.states.change(&name, |state| *state = EndpointState::default()).await;
    cleared.map_err(|e| unavailable(e.to_string()))?;
    applied(|| api.registry.get(&name).is_none()).await;
    Ok(Json(Deleted { endpoint: name, deleted: true }).into_response())
}

/// How a secret is rotated.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rotation {
    /// The new one; without it, one is made.
    secret: Option<String>,
    /// How long the old ones sign too, such as 24h; 0s to 30d.
    overlap: Option<String>,
}

/// Endpoints, as they are listed.
#[derive(Serialize, ToSchema)]
pub(super) struct EndpointList {
    endpoints: Vec<EndpointView>,
}

/// An endpoint that was created.
#[derive(Serialize, ToSchema)]
pub(super) struct Created {
    name: String,
    source: &'static str,
    created_at: Timestamp,
    /// The secret, where one was made; it is shown once.
    secret: Option<String>,
}

/// An endpoint that was deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Its name, which is free again.
    endpoint: String,
    /// Always true: a failure is a problem instead.
    deleted: bool,
}

/// Whether an endpoint is paused after the call.
#[derive(Serialize, ToSchema)]
pub(super) struct Pausing {
    /// The endpoint's name.
    endpoint: String,
    /// While it is true, events wait in the stream.
    paused: bool,
}

/// An endpoint that is called again after it answered 410.
#[derive(Serialize, ToSchema)]
pub(super) struct Enabled {
    /// The endpoint's name.
    endpoint: String,
    /// Always true: a failure is a problem instead.
    enabled: bool,
}

/// A secret that was rotated.
#[derive(Serialize, ToSchema)]
pub(super) struct Rotated {
    endpoint: String,
    /// The secret, where one was made; it is shown once.
    secret: Option<String>,
    /// Until then the old ones sign too.
    old_secrets_end_at: Timestamp,
}

/// Rotate the secret
///
/// The old one signs too, for the overlap.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/rotate", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    request_body = Rotation,
    responses((status = 200, description = "The new secret, where none was given", body = Rotated))
)]
pub(super) async fn rotate(State(api): State<Api>, Path(name): Path<String>, body: Bytes) -> Result<Response, Problem> {
    changeable(&api, &name)?;
    let wanted: Rotation = if body.is_empty() { Rotation::default() } else { json_of(&body)? };
    let overlap = match wanted.overlap.as_deref().map(parse_duration) {
        None => OVERLAP,
        Some(Ok(overlap)) if overlap <= OVERLAP_MAX => overlap,
        Some(_) => return Err(invalid("overlap is not a duration from 0s to 30d")),
    };
    let now = Timestamp::now();
    let until = now.checked_add(overlap).map_err(|_| invalid("overlap is too long"))?;
    let is_given = wanted.secret.is_some();
    let secret = wanted.secret.unwrap_or_else(new_secret);
    let before = api.registry.get(&name);
    api.registry.context().managed.change(|managed| managed.rotate(&name, secret.trim(), until, now)).await?;
    let is_same = |now: &Arc<Subscription>| before.as_ref().is_some_and(|before| Arc::ptr_eq(before, now));
    applied(|| api.registry.get(&name).is_none_or(|now| !is_same(&now))).await;
    let shown = (!is_given).then_some(secret);
    Ok(Json(Rotated { endpoint: name, secret: shown, old_secrets_end_at: until }).into_response())
}

/// Pause an endpoint
///
/// Its events wait.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/pause", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "Paused", body = Pausing))
)]
pub(super) async fn pause(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    set_paused(&api, &name, Some(Timestamp::now())).await
}

/// Resume an endpoint
///
/// What waited is sent.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/resume", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "Resumed", body = Pausing))
)]
pub(super) async fn resume(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    set_paused(&api, &name, None).await
}

async fn set_paused(api: &Api, name: &str, since: Option<Timestamp>) -> Result<Response, Problem> {
    let subscription = known(api, name)?;
    let change = |state: &mut EndpointState| state.paused = since.map(|since| state.paused.unwrap_or(since));
    api.registry.context().states.change(name, change).await.map_err(|e| unavailable(e.to_string()))?;
    subscription.dispatcher.flow.set_paused(since.is_some());
    subscription.check_now.notify_one();
    Ok(Json(Pausing { endpoint: name.to_owned(), paused: since.is_some() }).into_response())
}

/// A body as JSON. What is said of a wrong one repeats no value: it may be a secret.
fn json_of<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| {
        let text = e.to_string();
        let known = ["unknown field", "missing field", "duplicate field"];
        let plain = match known.iter().find(|start| text.starts_with(**start)) {
            Some(_) => text.split(" at line").next().unwrap_or_default().to_owned(),
            None => format!("line {}, column {}: no JSON, or a value of the wrong type", e.line(), e.column()),
        };
        invalid(plain)
    })
}

/// List endpoints
///
/// Names and states; never URLs, secrets or headers.
#[utoipa::path(
    get, path = "/v1/endpoints", tag = "Endpoints", operation_id = "list_endpoints",
    responses((status = 200, description = "All of them", body = EndpointList))
)]
pub(super) async fn list(State(api): State<Api>) -> Response {
    let shown: Vec<EndpointView> =
        api.registry.all().iter().map(|subscription| EndpointView::of(&api.registry, subscription)).collect();
    Json(EndpointList { endpoints: shown }).into_response()
}

/// Send a test event
///
/// Once, now, signed as events are. It is not kept.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/test", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "What the endpoint answered", body = TestOutcome))
)]
pub(super) async fn test(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = known(&api, &name)?;
    Ok(Json(subscription.dispatcher.test().await).into_response())
}

/// Enable an endpoint that answered 410
///
/// It gets events again, as after its creation.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/enable", tag = "Endpoints",
    params(("name" = String, Path, description = "The endpoint's name")),
    responses((status = 200, description = "Enabled", body = Enabled))
)]
pub(super) async fn enable(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = known(&api, &name)?;
    let changed = api.registry.context().states.change(&name, |state| state.disabled = None).await;
    changed.map_err(|e| unavailable(e.to_string()))?;
    subscription.check_now.notify_one();
    Ok(Json(Enabled { endpoint: name, enabled: true }).into_response())
}
