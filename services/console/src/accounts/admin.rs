//! Users, for admins. Each change is in the audit log before it is made; where it cannot be, nothing is done.

use super::{
    body::Body,
    caller::Caller,
    clock::{micros, moment},
    keys::random,
    state::Accounts,
    users::{Change, LINK_US, PAGE_MAX, User, check, role},
};
use crate::problem::{Problem, forbidden, invalid, missing, unavailable};
use agentforge_access::{Principal, Role};
use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Users of a page, unless the caller asks otherwise.
const PAGE_DEFAULT: i64 = 50;

/// Refuses all others, before anything is recorded.
pub(super) async fn only_admins(request: Request, next: Next) -> Response {
    match request.extensions().get::<Principal>() {
        Some(caller) if caller.role.includes(Role::Admin) => next.run(request).await,
        _ => forbidden("users are for admins").into_response(),
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<i64>,
    #[serde(default)]
    cursor: String,
}

pub(super) async fn list(State(accounts): State<Accounts>, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(invalid(format!("limit is a number from 1 to {PAGE_MAX}")));
    }
    let users = accounts.0.users.list(&page.cursor, limit).await?;
    let is_full = i64::try_from(users.len()).is_ok_and(|count| count == limit);
    let next = users.last().filter(|_| is_full).map(|last| last.name.clone());
    Ok(Json(json!({"users": users, "next_cursor": next})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    role: String,
    password: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Link {
    url: String,
    expires_at: String,
}

pub(super) async fn add(
    State(accounts): State<Accounts>,
    Body(asked): Body<NewUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let inner = &accounts.0;
    check(&asked.name, asked.password.as_deref()).map_err(invalid)?;
    let role = role(&asked.role).map_err(invalid)?;
    let hash = hash(&accounts, asked.password.as_deref()).await?;
    match inner.users.add(&asked.name, role, hash.as_deref()).await {
        Err(error) if error.is_duplicate() => {
            Err(Problem::new(StatusCode::CONFLICT, "already_exists", format!("there is a user {}", asked.name)))
        }
        added => {
            added?;
            Ok((StatusCode::CREATED, Json(known(&accounts, &asked.name).await?)))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changed {
    role: Option<String>,
    disabled: Option<bool>,
    password: Option<String>,
}

pub(super) async fn change(
    State(accounts): State<Accounts>,
    Extension(caller): Extension<Principal>,
    Path(name): Path<String>,
    Body(asked): Body<Changed>,
) -> Result<Json<User>, Problem> {
    let role = asked.role.as_deref().map(role).transpose().map_err(invalid)?;
    check(&name, asked.password.as_deref()).map_err(invalid)?;
    if *caller.name == *name && (asked.disabled == Some(true) || role.is_some_and(|role| role != Role::Admin)) {
        return Err(own());
    }
    let password = hash(&accounts, asked.password.as_deref()).await?;
    let is_new_login = password.is_some() || asked.disabled == Some(true);
    if !accounts.0.users.change(&name, &Change { role, disabled: asked.disabled, password }).await? {
        return Err(missing("such user"));
    }
    if is_new_login && *caller.name != *name {
        accounts.0.sessions.revoke_all(&name, "", "changed").await?;
    }
    accounts.0.sessions.forget_all();
    Ok(Json(known(&accounts, &name).await?))
}

pub(super) async fn remove(
    State(accounts): State<Accounts>,
    Extension(caller): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if *caller.name == *name {
        return Err(own());
    }
    let removed = accounts.0.users.remove(&name).await?;
    accounts.0.sessions.forget_all();
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(missing("such user")) }
}

pub(super) async fn link(
    State(accounts): State<Accounts>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<(StatusCode, Json<Link>), Problem> {
    let inner = &accounts.0;
    if known(&accounts, &name).await?.disabled {
        return Err(invalid("the user is disabled"));
    }
    let token = random().map_err(|e| unavailable(e.to_string()))?;
    inner.users.link(&name, &token).await?;
    let base = match &inner.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => {
            let host = caller.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            format!("{}://{host}", if inner.is_secure { "https" } else { "http" })
        }
    };
    let link = Link { url: format!("{base}/once/{token}"), expires_at: moment(micros() + LINK_US) };
    Ok((StatusCode::CREATED, Json(link)))
}

pub(super) async fn revoke(State(accounts): State<Accounts>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    known(&accounts, &name).await?;
    let revoked = accounts.0.sessions.revoke_all(&name, "", "admin").await?;
    Ok(Json(json!({"revoked": revoked})))
}

async fn known(accounts: &Accounts, name: &str) -> Result<User, Problem> {
    accounts.0.users.get(name).await?.ok_or_else(|| missing("such user"))
}

async fn hash(accounts: &Accounts, password: Option<&str>) -> Result<Option<String>, Problem> {
    match password {
        Some(password) => {
            accounts.0.passwords.hash(password).await.map(Some).map_err(|busy| unavailable(busy.to_string()))
        }
        None => Ok(None),
    }
}

fn own() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "conflict",
        "admins do not disable, demote or remove themselves; another admin does",
    )
}
