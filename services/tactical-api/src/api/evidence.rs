//! A signed link opened: checked first, then looked up, then streamed, whole or in part.

use super::{Api, problem::Problem};
use crate::{
    evidence::{
        Error, Evidence,
        span::{Asked, Span, asked},
    },
    links::Checked,
    metrics::EVIDENCE,
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::sync::Arc;

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// `GET /v1/evidence/{token}`; `HEAD` too.
pub async fn get(
    State(api): State<Arc<Api>>,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    // What is no text is no link of ours either.
    let token = token.map_or_else(|_| String::new(), |Path(token)| token);
    let (outcome, response) = match open(&api, &token, &headers).await {
        Ok(response) => ("served", response),
        Err((outcome, problem)) => (outcome, private(problem.into_response())),
    };
    EVIDENCE.inc(&[outcome]);
    response
}

async fn open(api: &Api, token: &str, headers: &HeaderMap) -> Result<Response, (&'static str, Problem)> {
    let id = match api.signer.check(token, jiff::Timestamp::now().as_second()) {
        Checked::Valid(id) => id,
        Checked::Expired => {
            return Err(("expired", Problem::new(StatusCode::GONE, "link_expired", "this link is over")));
        }
        Checked::Forged => {
            return Err((
                "forged",
                Problem::new(StatusCode::FORBIDDEN, "link_invalid", "this link is not one of ours"),
            ));
        }
    };
    let unavailable = |error: Error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "evidence cannot be read");
        ("unavailable", Problem::unavailable("the evidence cannot be read now"))
    };
    let found = api.evidence.find(&id).await.map_err(unavailable)?;
    let Some(evidence) = found else {
        return Err(("unknown", Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such evidence")));
    };
    let etag = format!("\"{}\"", evidence.sha256);
    let is_other = headers.get(header::IF_RANGE).is_some_and(|given| given.as_bytes() != etag.as_bytes());
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).filter(|_| !is_other);
    let span = match asked(range, evidence.size) {
        Asked::Whole => None,
        Asked::Part(span) => Some(span),
        Asked::Nothing => {
            let mut response =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", "outside of the file").into_response();
            insert(&mut response, header::CONTENT_RANGE, format!("bytes */{}", evidence.size));
            return Ok(private(response));
        }
    };
    let part = span.unwrap_or(Span { start: 0, len: evidence.size });
    let body = api.evidence.read(&evidence, part).await.map_err(unavailable)?;
    Ok(private(answer(&evidence, &etag, span, part, Body::from_stream(body))))
}

fn answer(evidence: &Evidence, etag: &str, span: Option<Span>, part: Span, body: Body) -> Response {
    let mut response = Response::new(body);
    let digest = hex::decode(&evidence.sha256).map(|bytes| STANDARD.encode(bytes)).unwrap_or_default();
    let name = percent_encode(&evidence.name, NON_ALPHANUMERIC);
    insert(&mut response, header::CONTENT_TYPE, evidence.content_type.clone());
    insert(&mut response, header::CONTENT_LENGTH, part.len.to_string());
    insert(&mut response, header::ETAG, etag.to_owned());
    insert(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    insert(&mut response, REPR_DIGEST, format!("sha-256=:{digest}:"));
    insert(&mut response, header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{name}"));
    if span.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (first, last) = (part.start, part.start + part.len - 1);
        insert(&mut response, header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", evidence.size));
    }
    response
}

/// A link is a secret, and what it leads to is for whoever has it.
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
