//! The board over HTTP. A viewer reads, an operator writes.

use super::board::{Intake, Refusal};
use super::item::{Item, NewItem, Patch, Status, Step, TEXT_MAX};
use super::store::{Error, Filter};
use super::submit::SubmitError;
use crate::needs::needs;
use crate::problem::{Problem, invalid};
use agentforge_access::{Principal, Role};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Bytes of a body: the longest fields, escaped, fit.
pub(super) const BODY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of an Idempotency-Key.
const KEY_MAX: usize = 256;
/// Items of a page, unless the caller asks otherwise.
const PAGE_DEFAULT: i64 = 100;
/// At most.
pub(super) const PAGE_MAX: i64 = 1_000;
/// When something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The routes, with their state.
pub fn router(intake: Intake) -> Router {
    Router::new()
        .route("/api/intake", get(list).post(create))
        .route("/api/intake/counts", get(counts))
        .route("/api/intake/{id}", get(read).patch(change).delete(delete))
        .route("/api/intake/{id}/{step}", post(step))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(intake)
}

#[derive(Deserialize)]
struct Which {
    owner: Option<String>,
    tag: Option<String>,
    status: Option<String>,
    cursor: Option<Uuid>,
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Item>,
    next_cursor: Option<Uuid>,
}

async fn list(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let status = which.status.map(|word| {
        let words = Status::ALL.map(Status::as_str).join(", ");
        Status::from_word(&word).ok_or_else(|| invalid(format!("status is one of {words}")))
    });
    let filter = Filter {
        owner: which.owner,
        tag: which.tag.map(|tag| tag.to_lowercase()),
        status: status.transpose()?,
        before: which.cursor,
    };
    let limit = which.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let items = intake.store().items(&filter, limit).await.map_err(Refusal::Store)?;
    let next_cursor = items.last().filter(|_| items.len() as i64 == limit).map(|last| last.id);
    Ok(Json(Page { items, next_cursor }).into_response())
}

#[derive(Serialize)]
struct CountView {
    total: i64,
    by_status: serde_json::Map<String, serde_json::Value>,
    by_owner: Vec<OwnerCount>,
}

#[derive(Serialize)]
struct OwnerCount {
    owner: Option<String>,
    count: i64,
}

async fn counts(State(intake): State<Intake>, Extension(caller): Extension<Principal>) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let counts = intake.store().counts().await.map_err(Refusal::Store)?;
    let by_status = Status::ALL.iter().map(|s| (s.as_str().to_owned(), counts.by_status[*s as usize].into()));
    let owner = |(owner, count): &(String, i64)| OwnerCount {
        owner: Some(owner.clone()).filter(|owner| !owner.is_empty()),
        count: *count,
    };
    let view = CountView {
        total: counts.total(),
        by_status: by_status.collect(),
        by_owner: counts.by_owner.iter().map(owner).collect(),
    };
    Ok(Json(view).into_response())
}

async fn create(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    let new: NewItem = serde_json::from_slice(&body).map_err(|e| invalid(e.to_string()))?;
    let key = key(&headers, &new.text)?;
    let item = intake.create(&caller, new, key).await?;
    let location = HeaderValue::from_str(&format!("/api/intake/{}", item.id)).expect("a UUID is ASCII");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], shown(item)).into_response())
}

async fn read(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let item = intake.store().item(id).await.map_err(Refusal::Store)?;
    Ok(shown(item.ok_or(Refusal::Missing)?))
}

async fn change(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    let patch: Patch = serde_json::from_slice(&body).map_err(|e| invalid(e.to_string()))?;
    Ok(shown(intake.patch(id, version(&headers)?, patch).await?))
}

async fn delete(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    intake.delete(id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assignment {
    owner: Option<String>,
}

async fn step(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path((id, step)): Path<(Uuid, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    let version = version(&headers)?;
    let item = match step.as_str() {
        "triage" => intake.step(id, version, Step::Triage).await,
        "reject" => intake.step(id, version, Step::Reject).await,
        "done" => intake.step(id, version, Step::Done).await,
        "approve" => intake.approve(&caller, id, version).await,
        "assign" => {
            let assignment: Assignment = serde_json::from_slice(&body)
                .map_err(|e| invalid(format!("the body is {{\"owner\": \"…\"}} or {{\"owner\": null}}: {e}")))?;
            let patch = Patch { owner: Some(assignment.owner), ..Patch::default() };
            intake.patch(id, version, patch).await
        }
        _ => {
            let detail = "the steps are triage, approve, reject, done and assign";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
        }
    };
    Ok(shown(item?))
}

/// Under what a second try is known: the caller's key, or, of a schedule's job, its turn and the text.
pub(super) fn key(headers: &HeaderMap, text: &str) -> Result<Option<String>, Problem> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
    if let Some(key) = header("idempotency-key") {
        let is_key = (1..=KEY_MAX).contains(&key.len());
        let refused = || invalid(format!("Idempotency-Key is 1 to {KEY_MAX} visible ASCII characters"));
        return is_key.then(|| Some(format!("key:{key}"))).ok_or_else(refused);
    }
    let turn = header("agentforge-scheduled-at").filter(|turn| !turn.is_empty() && turn.len() <= KEY_MAX);
    // A text that is too long is refused anyway.
    Ok(turn.map(|turn| format!("turn:{turn}:{}", text.chars().take(TEXT_MAX).collect::<String>())))
}

/// An item with its version as ETag.
fn shown(item: Item) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", item.version)).expect("digits are ASCII");
    ([(header::ETAG, tag)], Json(item)).into_response()
}

/// The version in `If-Match`, if there is one.
fn version(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.trim_start_matches("W/").trim_matches('"').parse();
    version.map(Some).map_err(|_| invalid("If-Match is the ETag of the item"))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Missing => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            Refusal::Field(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_argument", detail),
            Refusal::Conflict(_) => Self::new(StatusCode::CONFLICT, "failed_precondition", detail),
            Refusal::Stale(_) => Self::new(StatusCode::PRECONDITION_FAILED, "aborted", detail),
            Refusal::Job(SubmitError::Forbidden(_)) => Self::new(StatusCode::FORBIDDEN, "permission_denied", detail),
            Refusal::Job(SubmitError::Refused(_)) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "failed_precondition", detail)
            }
            Refusal::Job(SubmitError::Unavailable(_)) => Self::unavailable(detail, RETRY_AFTER),
            Refusal::Store(Error::Full(_)) => Self::new(StatusCode::TOO_MANY_REQUESTS, "resource_exhausted", detail),
            Refusal::Store(Error::OutboxFull(_)) => Self::unavailable(detail, RETRY_AFTER),
            Refusal::Store(error @ Error::Database(_)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the intake board could not use its database");
                Self::unavailable(detail, RETRY_AFTER)
            }
            Refusal::Store(Error::Corrupt(what)) => {
                tracing::error!(what, "a stored item cannot be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a stored item cannot be read")
            }
        }
    }
}
