//! Bodies of requests as typed values: under their limits, JSON with the field at fault.
//!
//! What does not fit is refused with its name: nothing a caller sent is silently ignored.

use super::problem::{HttpOnly, Problem};
use super::state::Api;
use crate::api::limits::{BODY_MAX_BYTES, BODY_TIMEOUT};
use crate::error::{Code, Error};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use std::io;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        is_json(request.headers())?;
        Ok(Self(from_json(&read_body(request, BODY_MAX_BYTES).await?)?))
    }
}

/// As [`JsonBody`], but an empty body and `null` are the default.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let typed = is_json(request.headers());
        let bytes = read_body(request, BODY_MAX_BYTES).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        typed?;
        // `null` says no more than an empty body.
        from_json::<Option<T>>(&bytes).map(|body| Self(body.unwrap_or_default()))
    }
}

/// The media type of a body, without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("unreadable");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether the body says that it is JSON. A page of another site can send one that says nothing, or is text.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers).as_deref() {
        Some("application/json") => Ok(()),
        Some(t) if t.starts_with("application/") && t.ends_with("+json") => Ok(()),
        Some(t) => {
            let detail = format!("the content-type is {t:?}; send content-type: application/json");
            Err(Problem::http(HttpOnly::UnsupportedMediaType, detail))
        }
        None => {
            let detail = "there is no content-type; send content-type: application/json";
            Err(Problem::http(HttpOnly::UnsupportedMediaType, detail))
        }
    }
}

/// Reads a body of at most `max` bytes, in time. The chassis counts it in the memory for all bodies until the answer.
pub(crate) async fn read_body(request: Request, max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("the body has more than {max} bytes, the most for this route");
        Problem::from(Error::new(Code::TooLarge, message))
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > max) {
        return Err(too_large());
    }
    match collect(request.into_body(), max, announced.unwrap_or(0)).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(too_large()),
        Err(e) if is_late(&e) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::http(HttpOnly::RequestTimeout, detail))
        }
        Err(e) => Err(Problem::from(Error::new(Code::InvalidArgument, format!("the body could not be read: {e}")))),
    }
}

/// Whether the chassis ended the reading because it took too long.
fn is_late(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
    .filter_map(|cause| cause.downcast_ref::<io::Error>())
    .any(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// `None` when the body is larger than `max`.
async fn collect(body: Body, max: usize, expected: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::with_capacity(expected.min(max));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

/// JSON into a value; a refusal names place and field.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // The usual case is read without keeping track of the path.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let e = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => return Err(Problem::field("", "the body has something after its JSON value")),
        Err(e) => e,
    };
    let path = e.path().to_string();
    let problem = e.into_inner();
    if !problem.is_data() {
        return Err(Problem::field("", format!("the body is not JSON: {problem}")));
    }
    let text = problem.to_string();
    let field = named_field(&text).unwrap_or(if path == "." { "" } else { &path });
    Err(Problem::field(field, text.clone()))
}

/// The name in serde's words on a field that is not known or given twice; its path does not have it.
fn named_field(text: &str) -> Option<&str> {
    ["unknown field `", "duplicate field `"].iter().find_map(|words| text.strip_prefix(words)?.split('`').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rest::types::SubmitBody;

    #[test]
    fn json_faults_name_the_field_and_the_place() {
        let table = [
            (r#"{"tool":"echo","arg":{}}"#, Some("arg"), "unknown field `arg`"),
            (r#"{"tool":7}"#, Some("tool"), "line 1 column"),
            (r#"{"tool":"echo","labels":{"a":1}}"#, Some("labels.a"), "expected a string"),
            (r#"{"tool":"echo","max_attempts":-1}"#, Some("max_attempts"), "-1"),
            (r#"{"tool":"echo","tool":"x"}"#, Some("tool"), "duplicate field"),
            (r#"{"tool":"#, None, "the body is not JSON: EOF"),
            ("{\n\"tool\": nope}", None, "line 2 column"),
            (r#"{"tool":"echo"} {}"#, None, "after its JSON value"),
            (r#"[]"#, None, "expected struct SubmitBody"),
            ("", None, "the body is not JSON"),
        ];
        for (body, field, detail) in table {
            let problem = from_json::<SubmitBody>(body.as_bytes()).err().unwrap();
            assert!(problem.detail().contains(detail), "{body}: {}", problem.detail());
            assert_eq!(problem.field_name(), field, "{body}: {}", problem.detail());
        }
    }

    #[test]
    fn args_are_taken_byte_for_byte() {
        let args = "{ \"n\" : 12345678901234567890.10,\n \"u\":\"\\u00e9\" }";
        let body = format!(r#"{{"tool":"echo","args":{args}}}"#);
        let read: SubmitBody = from_json(body.as_bytes()).ok().unwrap();
        assert_eq!(read.args.unwrap().get(), args);
    }

    #[test]
    fn other_media_types_are_refused() {
        let with = |t: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(t))]))
        };
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            assert_eq!(with(bad).unwrap_err().code(), "unsupported_media_type");
        }
        assert_eq!(is_json(&HeaderMap::new()).unwrap_err().code(), "unsupported_media_type");
    }
}
