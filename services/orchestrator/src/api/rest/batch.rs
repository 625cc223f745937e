//! Many submissions in one request. Each is answered in its place; a refused one stops no other.
//!
//! All are submitted at once, so that they share commits.

use super::extract::{from_json, is_json, media_type, read_body};
use super::jobs::IDEMPOTENCY_KEY;
use super::problem::HttpOnly;
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{Accepted, BatchAnswer, BatchItem, SubmitBody};
use crate::api::limits::{BATCH_BODY_MAX_BYTES, BATCH_ITEMS_MAX};
use crate::api::{log_failure, trace};
use crate::caller::Caller;
use crate::error::{Code, Error};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::value::RawValue;

/// The media type of one JSON value per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Submit many jobs
///
/// At most 1000 submissions and 16 MiB, as a JSON array or as one JSON object per line (`application/x-ndjson`); the
/// answer comes in the same form. The status is 200 even if submissions were refused: check each answer. To send more,
/// use the gRPC stream SubmitJobs.
#[utoipa::path(
    post, path = "/v1/jobs:batch", tag = "Jobs", operation_id = "SubmitJobs",
    request_body(content((Vec<SubmitBody> = "application/json"), (SubmitBody = "application/x-ndjson"))),
    responses(
        (status = 200, description = "One answer a submission, in their order", content((BatchAnswer = "application/json"), (BatchItem = "application/x-ndjson"))),
    )
)]
pub(crate) async fn submit(api: Api, caller: Caller, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let lines = media_type(&headers).as_deref() == Some(NDJSON);
    if !lines {
        is_json(&headers).map_err(|p| {
            let detail = format!("{}, or content-type: {NDJSON}", p.detail());
            Problem::http(HttpOnly::UnsupportedMediaType, detail)
        })?;
    }
    if headers.contains_key(IDEMPOTENCY_KEY) {
        let message = "the header Idempotency-Key belongs to a single submission; give idempotency_key in each";
        return Err(Error::field("idempotency_key", message).into());
    }
    let bytes = read_body(request, BATCH_BODY_MAX_BYTES).await?;
    let parsed = if lines { parse_lines(&bytes)? } else { parse_array(&bytes)? };
    let origin = trace::Origin::of(&headers);
    let inputs = parsed.into_iter().map(|body| body.and_then(|body| Ok(body.into_input(origin.clone())?)));
    let answers = api.app.submit_all::<Problem>(&caller, inputs.collect()).await;
    let mut accepted = 0;
    let mut logged = false;
    let items = answers.into_iter().enumerate().map(|(index, answer)| match answer {
        Ok(answer) => {
            accepted += 1;
            let stored = Accepted { id: answer.id.to_string(), created: answer.created };
            BatchItem { index, accepted: Some(stored), refused: None }
        }
        Err(problem) => {
            // One word in the log for a batch: its failures have one cause.
            if let Some(cause) = problem.cause().filter(|c| !logged && c.code.http_status() >= 500) {
                logged = true;
                log_failure(cause, "SubmitJobs", origin.request_id.as_deref());
            }
            BatchItem { index, accepted: None, refused: Some((&problem).into()) }
        }
    });
    let items: Vec<_> = items.collect();
    if lines {
        return answer_lines(&items);
    }
    json(StatusCode::OK, &BatchAnswer { accepted, refused: items.len() - accepted, items })
}

type Parsed = Vec<Result<SubmitBody, Problem>>;

fn parse_array(bytes: &[u8]) -> Result<Parsed, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(bytes)
        .map_err(|e| Problem::field("", format!("the body is not a JSON array of submissions: {e}")))?;
    within(items.len())?;
    Ok(items.into_iter().map(|i| from_json(i.get().as_bytes())).collect())
}

fn parse_lines(bytes: &[u8]) -> Result<Parsed, Problem> {
    let lines = || bytes.split(|b| *b == b'\n').filter(|l| !l.iter().all(u8::is_ascii_whitespace));
    within(lines().take(BATCH_ITEMS_MAX + 1).count())?;
    Ok(lines().map(from_json).collect())
}

fn within(items: usize) -> Result<(), Problem> {
    if items > BATCH_ITEMS_MAX {
        let message = format!(
            "the batch has more than {BATCH_ITEMS_MAX} submissions, the most at once; use the gRPC stream SubmitJobs, or several"
        );
        return Err(Error::new(Code::TooLarge, message).into());
    }
    Ok(())
}

fn answer_lines(items: &[BatchItem]) -> Result<Response, Problem> {
    let mut body = Vec::with_capacity(items.len() * 80);
    for item in items {
        serde_json::to_writer(&mut body, item)
            .map_err(|e| Problem::from(Error::new(Code::Internal, format!("the answer could not be written: {e}"))))?;
        body.push(b'\n');
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_submission_is_refused_in_its_place() {
        for parsed in [
            parse_array(br#"[{"tool":"a"},{"tool":1},{"toool":"b"},{"tool":"c"}]"#),
            parse_lines(b"{\"tool\":\"a\"}\r\n{\"tool\":1}\n\n{\"toool\":\"b\"}\n{\"tool\":\"c\"}"),
        ] {
            let parsed = parsed.ok().unwrap();
            let seen: Vec<_> =
                parsed.iter().map(|p| p.as_ref().map_or_else(|p| p.field_name(), |b| Some(b.tool.as_str()))).collect();
            assert_eq!(seen, [Some("a"), Some("tool"), Some("toool"), Some("c")]);
            assert_eq!(parsed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
        }
    }

    #[test]
    fn the_size_of_a_batch_is_bounded() {
        let of = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        assert!(parse_array(of(1000).as_bytes()).is_ok());
        assert_eq!(parse_array(of(1001).as_bytes()).err().unwrap().code(), "too_large");
        assert_eq!(parse_lines("{}\n".repeat(1001).as_bytes()).err().unwrap().code(), "too_large");
        assert_eq!(parse_array(b"{}").err().unwrap().code(), "invalid_argument");
    }
}
