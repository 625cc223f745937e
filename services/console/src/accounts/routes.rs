//! Login, renewal, logout, sessions, passwords, and one-time links.
//!
//! An unknown user, a disabled one and a wrong password get the same answer after the same work.

use super::{
    admin,
    body::Body,
    caller::Caller,
    clock::micros,
    cookies,
    guard::{check_csrf, nobody, session},
    oidc,
    opening::{begin, view, with_cookies},
    password::{BYTES_MAX, check_new},
    sessions::{CONCURRENT_US, Session},
    state::Accounts,
    users::Change,
};
use crate::{
    metrics,
    problem::{Problem, invalid, missing, unavailable},
};
use agentforge_access::{Principal, is_name};
use agentforge_door::audited;
use agentforge_runtime::http::PROBLEM_MEDIA_TYPE;
use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

/// Longest token of a link, bytes.
const LINK_BYTES_MAX: usize = 512;

/// What needs no session.
pub(crate) fn public(accounts: Accounts) -> Router {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/session", get(show))
        .route("/auth/refresh", post(refresh))
        .route("/auth/logout", post(logout))
        .route("/auth/once/{token}", post(once))
        .route("/.well-known/jwks.json", get(jwks))
        .merge(oidc::routes())
        .with_state(accounts)
}

/// What needs one; the guard is around it.
pub(crate) fn protected(accounts: Accounts) -> Router {
    let audit = accounts.0.audit.clone();
    let users = Router::new()
        .route("/api/users", get(admin::list).post(admin::add))
        .route("/api/users/{name}", patch(admin::change).delete(admin::remove))
        .route("/api/users/{name}/link", post(admin::link))
        .route("/api/users/{name}/sessions", delete(admin::revoke))
        .layer(from_fn_with_state(audit, audited))
        .layer(axum::middleware::from_fn(admin::only_admins));
    Router::new()
        .route("/auth/sessions", get(sessions))
        .route("/auth/sessions/{id}", delete(end_session))
        .route("/auth/password", post(password))
        .merge(users)
        .with_state(accounts)
}

/// What services read as ACCESS_CONSOLE_KEYS.
async fn jwks(State(accounts): State<Accounts>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], accounts.0.keys.jwks())
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn login(
    State(accounts): State<Accounts>,
    caller: Caller,
    Body(asked): Body<Login>,
) -> Result<Response, Problem> {
    let refused = |reason: &'static str| {
        move |problem: Problem| {
            metrics::LOGINS.inc(&["refused", reason]);
            problem
        }
    };
    let inner = &accounts.0;
    inner.limits.address("login", caller.address).map_err(refused("rate"))?;
    caller.is_own_page(inner.public_url.as_ref())?;
    inner.limits.user("login", &asked.user).map_err(refused("rate"))?;
    inner.limits.may_try(caller.address, &asked.user).map_err(refused("locked_out"))?;
    // A name that no user can have takes as long as any other.
    let name = if is_name(&asked.user) { asked.user.as_str() } else { "" };
    let hash = inner.users.hash(name).await.map_err(|e| refused("unavailable")(e.into()))?;
    let shown = if asked.password.len() > BYTES_MAX { "" } else { asked.password.as_str() };
    let checked = inner.passwords.is_right(shown, hash.as_deref()).await;
    let is_right = checked.map_err(|busy| refused("busy")(unavailable(busy.to_string())))?;
    if !is_right {
        inner.limits.failed(caller.address, &asked.user, "password");
        return Err(refused("credentials")(wrong("the user or the password is not right")));
    }
    begin(&accounts, &caller, &asked.user, "password", "ok").await.map_err(refused("unavailable"))
}

async fn once(
    State(accounts): State<Accounts>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let refused = |reason: &'static str| {
        move |problem: Problem| {
            metrics::LOGINS.inc(&["refused", reason]);
            problem
        }
    };
    let inner = &accounts.0;
    inner.limits.address("once", caller.address).map_err(refused("rate"))?;
    caller.is_own_page(inner.public_url.as_ref())?;
    inner.limits.may_try(caller.address, "").map_err(refused("locked_out"))?;
    let token = if token.len() > LINK_BYTES_MAX { "" } else { token.as_str() };
    let Some(user) = inner.users.use_link(token).await.map_err(|e| refused("unavailable")(e.into()))? else {
        inner.limits.failed(caller.address, "", "link");
        return Err(refused("credentials")(wrong("the link is used, older than 15 minutes, or not one of ours")));
    };
    begin(&accounts, &caller, &user, "once", "once").await.map_err(refused("unavailable"))
}

fn wrong(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_credentials", detail)
}

async fn show(State(accounts): State<Accounts>, headers: HeaderMap) -> Result<Response, Problem> {
    let Some(access) = cookies::access(&accounts.0.keys, &headers) else { return Ok(logged_out(&accounts)) };
    match session(&accounts, &headers).await? {
        Some(session) => Ok(Json(view(&accounts, &session, access.number)).into_response()),
        None => Ok(logged_out(&accounts)),
    }
}

/// The page shows the login: with the provider, if there is one.
fn logged_out(accounts: &Accounts) -> Response {
    let Some(provider) = &accounts.0.oidc else { return nobody().into_response() };
    let mut body: Value = serde_json::from_str(&nobody().to_json()).unwrap_or_default();
    body["oidc"] = provider.name().into();
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, PROBLEM_MEDIA_TYPE)], body.to_string()).into_response()
}

async fn refresh(State(accounts): State<Accounts>, caller: Caller) -> Result<Response, Problem> {
    let counted = |result: &'static str| metrics::REFRESHES.inc(&[result]);
    let inner = &accounts.0;
    inner.limits.address("refresh", caller.address).inspect_err(|_| counted("rate"))?;
    caller.is_own_page(inner.public_url.as_ref())?;
    let Some(shown) = cookies::refresh(&inner.keys, &caller.headers) else {
        counted("invalid");
        return Err(nobody());
    };
    // As the database has it: another replica may have renewed it a moment ago.
    let Some(mut session) = inner.sessions.read(&shown.id).await? else {
        counted("ended");
        return Ok(over(&accounts));
    };
    if shown.number == session.generation {
        if inner.sessions.renew(&shown.id, shown.number).await? {
            counted("ok");
            return Ok(with_cookies(&accounts, &session, shown.number + 1));
        }
        // Another request was faster.
        match inner.sessions.read(&shown.id).await? {
            Some(now) => session = now,
            None => {
                counted("ended");
                return Ok(over(&accounts));
            }
        }
    }
    let is_concurrent = shown.number + 1 == session.generation && micros() - session.renewed_at < CONCURRENT_US;
    if is_concurrent {
        // The browser has the newer cookies, or gets them with the other answer. A thief gets nothing.
        counted("concurrent");
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    counted("reused");
    inner.sessions.revoke(&shown.id, None, "reused").await?;
    warn!(user = session.user, address = %caller.address, "an old refresh token was used; the session is revoked");
    Ok(over(&accounts))
}

fn over(accounts: &Accounts) -> Response {
    without_cookies(accounts, nobody().into_response())
}

fn without_cookies(accounts: &Accounts, mut response: Response) -> Response {
    for cookie in cookies::none(accounts.0.is_secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn logout(State(accounts): State<Accounts>, caller: Caller) -> Result<Response, Problem> {
    let inner = &accounts.0;
    caller.is_own_page(inner.public_url.as_ref())?;
    // The access token may be past its end by now.
    let (access, refresh) =
        (cookies::access(&inner.keys, &caller.headers), cookies::refresh(&inner.keys, &caller.headers));
    if let Some(of) = access.or(refresh)
        && inner.sessions.read(&of.id).await?.is_some()
    {
        check_csrf(&accounts, &of.id, &Method::POST, &caller.headers)?;
        inner.sessions.revoke(&of.id, None, "logout").await?;
    }
    Ok(without_cookies(&accounts, StatusCode::NO_CONTENT.into_response()))
}

/// Sessions and passwords are those of people.
fn own(session: Option<Extension<Session>>) -> Result<Session, Problem> {
    session.map(|Extension(session)| session).ok_or_else(|| invalid("this is for sessions; a bearer token has none"))
}

async fn sessions(
    State(accounts): State<Accounts>,
    session: Option<Extension<Session>>,
) -> Result<Json<Value>, Problem> {
    let session = own(session)?;
    let list = accounts.0.sessions.list(&session.user, &session.id).await?;
    Ok(Json(json!({"sessions": list})))
}

async fn end_session(
    State(accounts): State<Accounts>,
    Extension(caller): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    // Admins end sessions of others through the user.
    let revoked = accounts.0.sessions.revoke(&id, Some(&caller.name), "revoked").await?;
    if revoked { Ok(StatusCode::NO_CONTENT) } else { Err(missing("such session of yours")) }
}

#[derive(Deserialize)]
struct NewPassword {
    current: Option<String>,
    new: String,
}

async fn password(
    State(accounts): State<Accounts>,
    session: Option<Extension<Session>>,
    caller: Caller,
    Body(asked): Body<NewPassword>,
) -> Result<StatusCode, Problem> {
    let (inner, session) = (&accounts.0, own(session)?);
    inner.limits.address("password", caller.address)?;
    check_new(&session.user, &asked.new).map_err(invalid)?;
    let hash = inner.users.hash(&session.user).await?;
    // Who came by a link made by an admin may have forgotten the password.
    if hash.is_some() && session.kind != "once" {
        inner.limits.may_try(caller.address, &session.user)?;
        let current = asked.current.unwrap_or_default();
        let current = if current.len() > BYTES_MAX { "" } else { current.as_str() };
        let checked = inner.passwords.is_right(current, hash.as_deref()).await;
        if !checked.map_err(|busy| unavailable(busy.to_string()))? {
            inner.limits.failed(caller.address, &session.user, "password");
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "invalid_credentials",
                "the current password is not right",
            ));
        }
    }
    let hash = inner.passwords.hash(&asked.new).await.map_err(|busy| unavailable(busy.to_string()))?;
    inner.users.change(&session.user, &Change { password: Some(hash), ..Change::default() }).await?;
    let others = inner.sessions.revoke_all(&session.user, &session.id, "password").await?;
    info!(user = session.user, others, "password changed; the user's other sessions are over");
    Ok(StatusCode::NO_CONTENT)
}
