//! The services behind the console, asked with the identity of the caller.
//!
//! Only what the list of [`rules`] has; streams pass through; nothing of the browser's goes along but a few headers, and no
//! cookie, in neither direction.

mod answer;
mod rules;
mod shared;

use crate::{
    accounts::Identity,
    bounds::BODY_BYTES_MAX,
    config::Upstreams,
    problem::{Problem, forbidden, missing, unavailable},
    whole::whole,
};
use agentforge_access::Principal;
use agentforge_runtime::http::RequestId;
use answer::Passed;
use axum::{
    Extension, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use rules::{Allowed, SERVICES, Service};
use shared::{Question, Shared, Turn};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tracing::debug;
use url::Url;

/// For a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Until an answer begins.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Between two pieces of it. Streams have heartbeats every 15 s or less.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// Requests and streams at once.
const CONCURRENT_MAX: usize = 2_048;
/// Of a browser's request, what services may need.
const SENT: [HeaderName; 6] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::IF_NONE_MATCH,
    header::RANGE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("idempotency-key"),
];

/// What forwards requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    identity: Identity,
    places: Arc<Semaphore>,
    upstreams: Upstreams,
    shared: Shared,
}

impl Proxy {
    /// To these services.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(upstreams: Upstreams, identity: Identity) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .read_timeout(PIECE_MAX)
            .build()?;
        let places = Arc::new(Semaphore::new(CONCURRENT_MAX));
        Ok(Self(Arc::new(Inner { client, identity, places, upstreams, shared: Shared::default() })))
    }

    fn base(&self, service: &Service) -> Option<&Url> {
        let upstreams = &self.0.upstreams;
        match service.name {
            "orchestrator" => upstreams.orchestrator.as_ref(),
            "broadcaster" => upstreams.broadcaster.as_ref(),
            "tactical" => upstreams.tactical.as_ref(),
            "exporter" => upstreams.exporter.as_ref(),
            "syncdaemon" => upstreams.syncdaemon.as_ref(),
            "prometheus" => upstreams.prometheus.as_ref(),
            "alertmanager" => upstreams.alertmanager.as_ref(),
            _ => None,
        }
    }
}

/// Everything below the services' names; the guard is around it.
pub(crate) fn router(proxy: Proxy) -> Router {
    SERVICES
        .iter()
        .fold(Router::new(), |router, service| router.route(&format!("/api/{}/{{*path}}", service.name), any(forward)))
        .with_state(proxy)
}

async fn forward(
    State(proxy): State<Proxy>,
    Extension(caller): Extension<Principal>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/api/").unwrap_or_default();
    let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let service = SERVICES.iter().find(|service| service.name == name).ok_or_else(|| missing("such service"))?;
    let Some(base) = proxy.base(service) else {
        return Err(missing(&format!("{} here ({})", service.name, service.setting)));
    };
    match service.allows(parts.method.as_str(), rest) {
        Allowed::For(role) if caller.role.includes(role) => {}
        Allowed::For(role) => return Err(forbidden(format!("this needs the role {}", role.as_str()))),
        Allowed::OtherMethod => {
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "the method is not allowed here",
            ));
        }
        Allowed::Unknown => return Err(missing("such address of the service")),
    }
    let url = address(base, rest, parts.uri.query()).ok_or_else(|| missing("such address of the service"))?;
    let place = proxy.0.places.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        unavailable(format!("{CONCURRENT_MAX} requests are on their way; the limit is {CONCURRENT_MAX}"))
    })?;
    // Before its turn: a caller whose body comes slowly keeps no other waiting.
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body has more than 1 MiB, or did not arrive whole",
        )
    })?;
    let question = Question::of(service, &parts, rest, &caller);
    let turn = match &question {
        Some(question) => proxy.0.shared.turn(question).await,
        None => Turn::Alone,
    };
    let slot = match turn {
        Turn::Known(document, headers) => return Ok(whole(&document, headers, &parts.headers)),
        Turn::Ask(slot) => Some(slot),
        Turn::Alone => None,
    };
    let mut headers = sent(&parts.headers);
    if service.is_packed
        && let Some(codings) = parts.headers.get(header::ACCEPT_ENCODING)
    {
        headers.insert(header::ACCEPT_ENCODING, codings.clone());
    }
    if slot.is_some() {
        // The document is for others too.
        headers.remove(header::IF_NONE_MATCH);
        headers.remove(header::RANGE);
    }
    if service.is_ours
        && let Ok(value) = HeaderValue::from_str(&proxy.0.identity.bearer(&caller))
    {
        headers.insert(header::AUTHORIZATION, value);
    }
    if let Some(id) = parts.extensions.get::<RequestId>().and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    let asked = proxy.0.client.request(parts.method.clone(), url).headers(headers).body(body).send();
    let answer = match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            debug!(service = service.name, %error, "a service did not answer");
            return Err(away(service));
        }
        Err(_) => {
            let detail = format!("the {} did not answer within {} s", service.name, ANSWER_MAX.as_secs());
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", detail));
        }
    };
    if answer.status() == StatusCode::UNAUTHORIZED {
        // It would look as if the session were over.
        let detail = format!("the {} does not accept the console's word (ACCESS_CONSOLE_KEYS)", service.name);
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "upstream_refused", detail));
    }
    if !parts.method.is_safe() {
        proxy.0.shared.forget(service.name);
    }
    let is_alike = answer.headers().contains_key(shared::ALIKE);
    Ok(match answer::pass(answer, &parts.method, place).await {
        Ok(Passed::Whole(document, headers)) => {
            if let (Some(slot), Some(question)) = (slot, &question) {
                proxy.0.shared.keep(question, slot, &document, &headers, is_alike);
            }
            whole(&document, headers, &parts.headers)
        }
        Ok(Passed::Streamed(response)) => response,
        Err(()) => away(service).into_response(),
    })
}

fn away(service: &Service) -> Problem {
    let detail = format!("the {} cannot be reached ({})", service.name, service.setting);
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_unavailable", detail)
}

/// The service's own address. One that the rules of URLs turn into another path is none.
fn address(base: &Url, path: &str, query: Option<&str>) -> Option<Url> {
    let prefix = base.path().trim_end_matches('/');
    let wanted = format!("{prefix}{path}");
    let mut url = base.clone();
    url.set_path(&wanted);
    url.set_query(query);
    url.set_fragment(None);
    (url.path() == wanted).then_some(url)
}

fn sent(headers: &HeaderMap) -> HeaderMap {
    let one = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    SENT.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_where_the_rules_have_it() {
        let base = Url::parse("http://127.0.0.1:8080/af/").unwrap();
        let of = |path: &str| address(&base, path, Some("a=b")).map(|url| url.to_string());
        assert_eq!(of("/v1/jobs/1"), Some("http://127.0.0.1:8080/af/v1/jobs/1?a=b".into()));
        assert_eq!(of("/v1/jobs:counts"), Some("http://127.0.0.1:8080/af/v1/jobs:counts?a=b".into()));
        for path in ["/v1/jobs/..", "/v1/jobs/%2e%2e", "/v1/jobs/%2E.", "/v1/jobs/.", "/v1/jobs/\\..\\x"] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
