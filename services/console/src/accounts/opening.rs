//! Sessions as browsers get them: the cookies, and what a page knows of itself.

use super::{
    caller::Caller,
    clock::{micros, moment},
    cookies,
    guard::nobody,
    sessions::Session,
    state::Accounts,
};
use crate::{metrics, problem::Problem};
use agentforge_access::{Role, now};
use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::time::Duration;
use tracing::info;

/// A new session, regardless of what the browser had before: nothing that it sent becomes part of it.
pub(super) async fn begin(
    accounts: &Accounts,
    caller: &Caller,
    user: &str,
    kind: &'static str,
    reason: &'static str,
) -> Result<Response, Problem> {
    let inner = &accounts.0;
    let address = caller.address.to_canonical().to_string();
    let id = inner.sessions.begin(user, kind, inner.session_ttl, &address, caller.agent()).await?;
    inner.users.logged_in(user).await?;
    inner.limits.succeeded(caller.address, user);
    metrics::LOGINS.inc(&["ok", reason]);
    info!(user, kind, %address, "logged in");
    let session = inner.sessions.read(&id).await?.ok_or_else(nobody)?;
    Ok(with_cookies(accounts, &session, 1))
}

/// The answer to a login or a renewal.
pub(super) fn with_cookies(accounts: &Accounts, session: &Session, generation: i64) -> Response {
    let inner = &accounts.0;
    let left = Duration::from_micros(u64::try_from(session.expires_at - micros()).unwrap_or_default());
    let ttl = inner.access_ttl.min(left);
    let ends = now().saturating_add(i64::try_from(ttl.as_secs()).unwrap_or_default());
    let cookies = cookies::both(&inner.keys, &session.id, ends, generation, (ttl, left), inner.is_secure);
    let mut response = Json(view(accounts, session, ends)).into_response();
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// What pages know of their session.
pub(super) fn view(accounts: &Accounts, session: &Session, ends: i64) -> Value {
    let may = |role: Role| session.role.includes(role);
    json!({
        "user": session.user,
        "role": session.role.as_str(),
        "csrf": cookies::csrf(&accounts.0.keys, &session.id),
        "expires_at": moment(ends.saturating_mul(1_000_000)),
        "session_ends_at": moment(session.expires_at),
        "can": {"submit": may(Role::Submit), "operate": may(Role::Operator), "admin": may(Role::Admin)},
        "settings": accounts.0.settings,
    })
}
