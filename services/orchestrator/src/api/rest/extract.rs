//! Requests as typed values: bodies under their limits, JSON with the field at fault, known queries.
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
use std::str::FromStr;
use tokio::sync::OwnedSemaphorePermit;

/// A JSON body and its share of the memory for bodies, to be held until the request is done.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) OwnedSemaphorePermit);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let (bytes, held) = read_body(request, api, BODY_MAX_BYTES).await?;
        Ok(Self(from_json(&bytes)?, held))
    }
}

/// As [`JsonBody`], but an empty body and `null` are the default.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let typed = is_json(request.headers());
        let (bytes, _held) = read_body(request, api, BODY_MAX_BYTES).await?;
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

/// Whether the body says that it is JSON, or says nothing.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers).as_deref() {
        None | Some("application/json") => Ok(()),
        Some(t) if t.starts_with("application/") && t.ends_with("+json") => Ok(()),
        Some(t) => {
            let detail = format!("the content-type is {t:?}; send content-type: application/json");
            Err(Problem::http(HttpOnly::UnsupportedMediaType, detail))
        }
    }
}

/// Reads a body of at most `max` bytes, in time, within the memory for all bodies.
pub(crate) async fn read_body(
    request: Request,
    api: &Api,
    max: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
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
    let held = api.bodies.take(announced.unwrap_or(max))?;
    let read = collect(request.into_body(), max, announced.unwrap_or(0));
    let bytes = tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Problem::http(HttpOnly::RequestTimeout, detail)
    })?;
    match bytes {
        Ok(Some(bytes)) => Ok((bytes, held)),
        Ok(None) => Err(too_large()),
        Err(e) => Err(Problem::from(Error::new(Code::InvalidArgument, format!("the body could not be read: {e}")))),
    }
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

/// A query string of known parameters.
pub(crate) struct Query<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Query<'a> {
    /// Splits a query.
    ///
    /// # Errors
    /// Names a parameter that the route does not have.
    pub(crate) fn parse(raw: Option<&'a str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name);
            let Some(known_name) = known.iter().find(|k| **k == name) else {
                let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::field(
                    &name,
                    format!("there is no query parameter {name:?}; this route has {list}"),
                ));
            };
            pairs.push((*known_name, value));
        }
        Ok(Self(pairs))
    }

    /// The parameter's only value; an empty one is none.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.0.iter().filter(|(n, _)| *n == name).map(|(_, v)| decode(v));
        let value = values.next();
        if values.next().is_some() {
            return Err(Problem::field(name, format!("{name} is given more than once")));
        }
        Ok(value.filter(|v| !v.is_empty()))
    }

    /// All values of the parameter, repeated or as a comma-separated list. A comma inside a value is written `%2C`.
    pub(crate) fn many(&self, name: &'static str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, _)| *n == name).flat_map(|(_, v)| v.split(','));
        values.map(decode).filter(|v| !v.is_empty()).collect()
    }

    /// The parameter's value as a number or another parsed type.
    pub(crate) fn parsed<T: FromStr>(&self, name: &'static str, expected: &str) -> Result<Option<T>, Problem> {
        self.one(name)?
            .map(|v| v.parse().map_err(|_| Problem::field(name, format!("{name} is {v:?}; expected {expected}"))))
            .transpose()
    }

    /// The size of a page; 0 when none is given.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        Ok(self.parsed("limit", "a whole number")?.unwrap_or(0))
    }
}

/// Percent-decodes one part of a query.
fn decode(raw: &str) -> String {
    let raw = raw.replace('=', "%3D");
    url::form_urlencoded::parse(raw.as_bytes()).next().map(|(k, _)| k.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rest::types::SubmitBody;

    #[test]
    fn queries_are_lists_and_single_values_of_known_names() {
        let known = &["state", "label", "limit", "tool"];
        let raw = "state=queued,running&state=dead&label=team%3Dred%2Cblue&label=a=b,c=d&limit=5&tool=";
        let q = Query::parse(Some(raw), known).ok().unwrap();
        assert_eq!(q.many("state"), ["queued", "running", "dead"]);
        assert_eq!(q.many("label"), ["team=red,blue", "a=b", "c=d"]);
        assert_eq!(q.limit().ok(), Some(5));
        assert_eq!(q.one("tool").ok(), Some(None));
        assert_eq!(q.one("state").unwrap_err().field_name(), Some("state"));
        let unknown = Query::parse(Some("stat=queued"), known).err().unwrap();
        assert_eq!(unknown.field_name(), Some("stat"));
        let q = Query::parse(Some("limit=-1"), known).ok().unwrap();
        assert_eq!(q.limit().unwrap_err().field_name(), Some("limit"));
    }

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
        assert!(is_json(&HeaderMap::new()).is_ok());
    }
}
