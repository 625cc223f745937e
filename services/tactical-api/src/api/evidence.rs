//! A signed link opened: checked first, then looked up, then streamed, whole or in part.

use super::{
    problem::{problem, unavailable},
    state::Api,
};
use crate::{
    evidence::{
        Error, Evidence,
        conditions::{Verdict, decide},
        span::{RequestedRange, Span},
    },
    links::Checked,
    metrics::EVIDENCE,
};
use agentforge_runtime::http::Problem;
use axum::{
    body::Body,
    extract::{ConnectInfo, Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{net::SocketAddr, sync::Arc};

/// The Fetch standard's word on who may embed an answer.
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The digest of the whole file, also when a part of it is sent (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Open a signed link
///
/// Whole, in part (`Range`) or not at all (`If-None-Match`, `HEAD`). The link itself is the permission.
#[utoipa::path(
    get, path = "/v1/evidence/{token}", tag = "Evidence",
    params(
        ("token" = String, Path, description = "What follows the prefix of a link"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what is there already"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 206, description = "A part of it", content_type = "application/octet-stream"),
        (status = 304, description = "It is what the caller has"),
    )
)]
pub async fn get(
    State(api): State<Arc<Api>>,
    token: Result<Path<String>, PathRejection>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // Anything but text cannot be one of our links.
    let token = token.map_or_else(|_| String::new(), |Path(token)| token);
    let (outcome, response) = match open(&api, &token, peer, &method, &headers).await {
        Ok(response) => ("served", response),
        Err((outcome, problem)) => (outcome, private(problem.into_response())),
    };
    EVIDENCE.inc(&[outcome]);
    response
}

async fn open(
    api: &Api,
    token: &str,
    peer: SocketAddr,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, (&'static str, Problem)> {
    let id = match api.signer.check(token, jiff::Timestamp::now().as_second()) {
        Checked::Valid(id) => id,
        Checked::Expired => {
            return Err(("expired", problem(StatusCode::GONE, "link_expired", "this link is over")));
        }
        Checked::TooLong => {
            let detail = "this link is for longer than EVIDENCE_SIGNING_TTL allows";
            return Err(("too_long", problem(StatusCode::FORBIDDEN, "link_invalid", detail)));
        }
        Checked::Forged => {
            return Err(("forged", problem(StatusCode::FORBIDDEN, "link_invalid", "this link is not one of ours")));
        }
    };
    let unavailable = |error: Error| {
        if matches!(error, Error::Busy) {
            let refusal = problem(StatusCode::TOO_MANY_REQUESTS, "too_many_reads", error.to_string());
            return ("busy", refusal.with(header::RETRY_AFTER, HeaderValue::from_static("5")));
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "evidence cannot be read");
        ("unavailable", unavailable("the evidence cannot be read now"))
    };
    let place = api.evidence.place(api.access.address(peer, headers)).map_err(unavailable)?;
    let found = api.evidence.find(&id).await.map_err(unavailable)?;
    let Some(evidence) = found else {
        return Err(("unknown", problem(StatusCode::NOT_FOUND, "not_found", "there is no such evidence")));
    };
    let etag = format!("\"{}\"", evidence.sha256);
    let span = match decide(method, headers, &etag, evidence.size) {
        Verdict::Send(RequestedRange::Whole) => None,
        Verdict::Send(RequestedRange::Part(span)) => Some(span),
        Verdict::NotModified => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            insert(&mut response, header::ETAG, etag);
            return Ok(private(response));
        }
        Verdict::Failed => {
            let refusal = problem(StatusCode::PRECONDITION_FAILED, "changed", "it is not the file that was meant");
            let mut response = refusal.into_response();
            insert(&mut response, header::ETAG, etag);
            return Ok(private(response));
        }
        Verdict::Send(RequestedRange::Nothing) => {
            let mut response =
                problem(StatusCode::RANGE_NOT_SATISFIABLE, "range", "outside of the file").into_response();
            insert(&mut response, header::CONTENT_RANGE, format!("bytes */{}", evidence.size));
            return Ok(private(response));
        }
    };
    let part = span.unwrap_or(Span { start: 0, len: evidence.size });
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(api.evidence.read(&evidence, part, place).await.map_err(unavailable)?)
    };
    Ok(private(answer(&evidence, &etag, span, part, body)))
}

fn answer(evidence: &Evidence, etag: &str, span: Option<Span>, part: Span, body: Body) -> Response {
    let mut response = Response::new(body);
    let digest = hex::decode(&evidence.sha256).map(|bytes| STANDARD.encode(bytes)).unwrap_or_default();
    insert(&mut response, header::CONTENT_TYPE, evidence.content_type.clone());
    insert(&mut response, header::CONTENT_LENGTH, part.len.to_string());
    insert(&mut response, header::ETAG, etag.to_owned());
    insert(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    insert(&mut response, REPR_DIGEST, format!("sha-256=:{digest}:"));
    insert(&mut response, header::CONTENT_DISPOSITION, disposition(&evidence.name));
    // Regardless of its type, none of our pages runs it, and none of another site shows it.
    insert(&mut response, header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned());
    insert(&mut response, CORP, "same-origin".to_owned());
    if span.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (first, last) = (part.start, part.start + part.len - 1);
        insert(&mut response, header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", evidence.size));
    }
    response
}

/// Under which name a file is saved (RFC 6266, appendix D): one that all programs read, and its own.
fn disposition(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    // What would end the text, a path, or a percent sign that some decode.
    let plain = |c: char| if c.is_ascii_graphic() && !"\"\\%/:*?<>|".contains(c) || c == ' ' { c } else { '_' };
    let fallback: String = name.chars().map(plain).collect();
    // A name that begins with a dot hides the file.
    let fallback = match fallback.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => fallback,
    };
    let own = utf8_percent_encode(&name, NON_ALPHANUMERIC);
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{own}")
}

/// A link is a secret, and its evidence is for anyone who has it.
fn private(mut response: Response) -> Response {
    insert(&mut response, header::CACHE_CONTROL, "no-store".to_owned());
    insert(&mut response, header::REFERRER_POLICY, "no-referrer".to_owned());
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
    response
}

/// A value that no header can have is left out.
fn insert(response: &mut Response, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
