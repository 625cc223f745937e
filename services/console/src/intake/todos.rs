//! The routes of the todo application, as its clients know them: another view of the items of the board.
//!
//! A todo has a text and is done or not. What the board knows beyond that is left as it is.

use super::api::{BODY_BYTES_MAX, PAGE_MAX, key};
use super::board::{Intake, Refusal};
use super::item::{Item, NewItem, TODO_DONE, TODO_NOT_DONE};
use super::store::Filter;
use crate::needs::needs;
use crate::problem::Problem;
use agentforge_access::{Principal, Role};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// The detail for an id that does not exist, or not any more.
const MISSING: &str = "Todo not found";

/// The routes that need a caller.
pub fn router(intake: Intake) -> Router {
    Router::new()
        .route("/todos", get(list).post(create))
        .route("/todos/{id}", get(read).put(change).delete(delete))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(intake)
}

/// `/be-health`, which needs none.
pub fn health_router(intake: Intake, env: &str) -> Router {
    let env = env.to_owned();
    let health = move |State(intake): State<Intake>| {
        let env = env.clone();
        async move { Json(health(&intake, &env).await) }
    };
    Router::new().route("/be-health", get(health)).with_state(intake)
}

/// A todo.
#[derive(Serialize)]
struct Todo {
    id: Uuid,
    text: String,
    status: &'static str,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
}

impl From<Item> for Todo {
    fn from(item: Item) -> Self {
        let status = item.status.todo();
        Self { id: item.id, text: item.text, status, created_at: item.created_at, updated_at: item.updated_at }
    }
}

#[derive(Deserialize)]
struct Continued {
    cursor: Option<Uuid>,
}

/// The newest 1,000. A link in the header `Link` continues, where there are more.
async fn list(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Query(continued): Query<Continued>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let filter = Filter { before: continued.cursor, ..Filter::default() };
    let items = intake.store().items(&filter, PAGE_MAX).await.map_err(Refusal::Store)?;
    let next = items.last().filter(|_| items.len() as i64 == PAGE_MAX).map(|last| last.id);
    let mut answer = Json(items.into_iter().map(Todo::from).collect::<Vec<_>>()).into_response();
    if let Some(next) = next {
        let link = format!("</todos?cursor={next}>; rel=\"next\"");
        answer.headers_mut().insert(header::LINK, HeaderValue::from_str(&link).expect("a UUID is ASCII"));
    }
    Ok(answer)
}

#[derive(Deserialize)]
struct NewTodo {
    text: String,
}

async fn create(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    let new: NewTodo = serde_json::from_slice(&body).map_err(|e| unfit(e.to_string()))?;
    let key = key(&headers, &new.text)?;
    let item = intake.create(&caller, NewItem { text: new.text, ..NewItem::default() }, key).await?;
    Ok((StatusCode::CREATED, Json(Todo::from(item))).into_response())
}

async fn read(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Read)?;
    let item = intake.store().item(known(&id)?).await.map_err(Refusal::Store)?;
    Ok(Json(Todo::from(item.ok_or_else(missing)?)).into_response())
}

/// Absent and null leave a field as it is.
#[derive(Deserialize)]
struct Update {
    text: Option<String>,
    status: Option<String>,
}

async fn change(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    let update: Update = serde_json::from_slice(&body).map_err(|e| unfit(e.to_string()))?;
    let done = match update.status.as_deref() {
        None => None,
        Some(TODO_DONE) => Some(true),
        Some(TODO_NOT_DONE) => Some(false),
        Some(_) => return Err(unfit(format!("status is {TODO_NOT_DONE} or {TODO_DONE}"))),
    };
    let changed = intake.put(known(&id)?, update.text, done).await;
    Ok(Json(Todo::from(changed.map_err(in_words)?)).into_response())
}

async fn delete(
    State(intake): State<Intake>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    needs(&caller, Role::Operator)?;
    intake.delete(known(&id)?).await.map_err(in_words)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The health of the back end, as probes of the todo application read it: 200 also without the database.
async fn health(intake: &Intake, env: &str) -> Value {
    let is_production = env == "production";
    let mode = if is_production { "production" } else { "development" };
    let mut body = json!({
        "status": "healthy",
        "service": "todo-backend",
        "environment": {"is_production": is_production, "mode": mode},
    });
    match intake.store().total().await {
        Ok(total) => body["todos_count"] = total.into(),
        Err(error) => {
            body["todos_count"] = "unavailable".into();
            body["database_status"] = format!("error: {error}").into();
        }
    }
    body
}

/// Any text may be asked for; what is not a UUID does not exist.
fn known(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| missing())
}

fn missing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", MISSING)
}

fn unfit(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_argument", detail)
}

fn in_words(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Missing => missing(),
        other => other.into(),
    }
}
