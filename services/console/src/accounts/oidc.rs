//! Login by an OpenID provider: the code flow with PKCE.
//!
//! The provider is one of ACCESS_ISSUERS, and what its token says counts as it does at every other surface: the door
//! verifies it, and gives the name and the role. A user of that name is added at the first login, without a password.
//! After the login the browser comes to the first page, wherever it was before.

use super::{
    caller::Caller,
    cookies,
    keys::random,
    opening::begin,
    provider::{Oidc, Tokens},
    state::Accounts,
    users::Change,
};
use crate::{
    metrics,
    problem::{Problem, missing, unavailable},
};
use agentforge_access::{Principal, Role, now};
use agentforge_door::Shown;
use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use serde::Deserialize;
use tracing::warn;

/// Keeps the state of a login that is under way, for `/auth/oidc` only.
const COOKIE: &str = "af_oidc";
/// How long a person may take at the provider, seconds.
const UNDER_WAY: i64 = 600;

/// The routes; without a provider they answer 404.
pub(super) fn routes() -> Router<Accounts> {
    Router::new().route("/auth/oidc/start", get(start)).route("/auth/oidc/callback", get(callback))
}

fn configured(accounts: &Accounts) -> Result<&Oidc, Problem> {
    accounts.0.oidc.as_ref().ok_or_else(|| missing("OpenID provider here (CONSOLE_OIDC_ISSUER)"))
}

async fn start(State(accounts): State<Accounts>, caller: Caller) -> Result<Response, Problem> {
    let oidc = configured(&accounts)?;
    accounts.0.limits.address("oidc", caller.address)?;
    let found = oidc.discovery().await.map_err(|problem| away(&problem))?;
    let fresh = || random().map_err(|e| unavailable(e.to_string()));
    let (state, verifier) = (fresh()?, fresh()?);
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let mut url = found.authorization_endpoint;
    let redirect = redirect(&accounts, &caller.headers);
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &oidc.config.client)
        .append_pair("redirect_uri", &redirect)
        .append_pair("scope", &oidc.config.scope)
        .append_pair("state", &state)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    if let Some(resource) = &oidc.config.resource {
        url.query_pairs_mut().append_pair("resource", resource);
    }
    let text = format!("{state}.{verifier}.{}", now() + UNDER_WAY);
    let value = format!("{text}.{}", accounts.0.keys.seal(COOKIE, &text));
    // The way back is a navigation from the provider's site: Strict would leave the cookie out.
    Ok(went(url.as_str(), &cookie(&accounts, &value, UNDER_WAY)))
}

#[derive(Deserialize)]
struct Back {
    code: Option<String>,
    state: Option<String>,
}

async fn callback(
    State(accounts): State<Accounts>,
    caller: Caller,
    Query(back): Query<Back>,
) -> Result<Response, Problem> {
    let oidc = configured(&accounts)?;
    accounts.0.limits.address("oidc", caller.address)?;
    let refused = |why: &str| {
        metrics::LOGINS.inc(&["refused", "credentials"]);
        warn!(why, "a login by the OpenID provider failed");
        accounts.0.limits.failed(caller.address, "", "oidc");
        went("/?login=failed", &cookie(&accounts, "", 0))
    };
    let (Some(code), Some(state)) = (back.code, back.state) else { return Ok(refused("the provider sent no code")) };
    let Some(verifier) = verifier(&accounts, &caller.headers, &state) else {
        return Ok(refused("the login was not begun in this browser, or too long ago"));
    };
    let tokens = match oidc.tokens(&code, &verifier, &redirect(&accounts, &caller.headers)).await {
        Ok(tokens) => tokens,
        Err(problem) => return Ok(refused(&problem)),
    };
    let Some(principal) = principal(&accounts, tokens).await else {
        return Ok(refused("its token is not accepted here (ACCESS_ISSUERS, ACCESS_AUDIENCE, ACCESS_ROLES)"));
    };
    let users = &accounts.0.users;
    match users.get(&principal.name).await? {
        Some(user) if user.disabled => return Ok(refused("the user is disabled")),
        Some(_) => {
            let change = Change { role: Some(principal.role), ..Change::default() };
            users.change(&principal.name, &change).await?;
        }
        None => users.add(&principal.name, principal.role, None).await?,
    }
    let mut response = begin(&accounts, &caller, &principal.name, "oidc", "oidc").await?;
    *response.status_mut() = StatusCode::SEE_OTHER;
    *response.body_mut() = axum::body::Body::empty();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    headers.append(header::SET_COOKIE, cookie(&accounts, "", 0));
    Ok(response)
}

/// Whose token it is, as the door judges it at every request.
async fn principal(accounts: &Accounts, tokens: Tokens) -> Option<Principal> {
    for token in [tokens.access_token, tokens.id_token].into_iter().flatten() {
        let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else { continue };
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        if let Ok(principal) = accounts.0.door.admit(&Shown::new(None, &headers), Role::Read).await {
            // What scopes limit has no place in a session.
            return principal.scopes.is_all().then_some(principal);
        }
    }
    None
}

/// The verifier of the login that this browser began with this state.
fn verifier(accounts: &Accounts, headers: &HeaderMap, state: &str) -> Option<String> {
    let value = cookies::one(headers, COOKIE)?;
    let (text, seal) = value.rsplit_once('.')?;
    let mut parts = text.split('.');
    let (own, verifier, ends) = (parts.next()?, parts.next()?, parts.next()?.parse::<i64>().ok()?);
    let is_good = accounts.0.keys.is_sealed(COOKIE, text, seal) && own == state && ends > now();
    is_good.then(|| verifier.to_owned())
}

fn redirect(accounts: &Accounts, headers: &HeaderMap) -> String {
    let base = match &accounts.0.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            format!("{}://{host}", if accounts.0.is_secure { "https" } else { "http" })
        }
    };
    format!("{base}/auth/oidc/callback")
}

fn cookie(accounts: &Accounts, value: &str, age: i64) -> HeaderValue {
    let secure = if accounts.0.is_secure { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path=/auth/oidc; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("random text and seals are ASCII")
}

fn went(to: &str, cookie: &HeaderValue) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to), (header::SET_COOKIE, cookie.clone())]).into_response()
}

fn away(problem: &str) -> Problem {
    warn!(problem, "the OpenID provider cannot be used");
    unavailable("the OpenID provider cannot be reached (CONSOLE_OIDC_ISSUER)")
}
