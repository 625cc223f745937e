//! What an event says about itself. Pure: bytes in, a borrowed view out.
//!
//! An event is any JSON. Two forms are understood further: CloudEvents, and the flat objects of `todos.events`. Only
//! bytes that are not JSON are refused.

use crate::payload::text::clean;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Facts shown of an event in a chat message, at most.
const FACTS_MAX: usize = 12;
/// Characters of a fact, at most.
const FACT_CHARS: usize = 300;

/// An event, as far as it is understood.
#[derive(Debug, Default)]
pub struct Event<'a> {
    /// A CloudEvent of version 1.
    pub is_cloud_event: bool,
    /// Its type: of the CloudEvent, `todo.<action>` of a flat one.
    pub kind: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
}

/// Bytes that are not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the event is not JSON: {0}")]
pub struct NoJson(String);

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads an event.
///
/// # Errors
/// [`NoJson`]; the text names line and column, not the content.
pub fn parse(bytes: &[u8]) -> Result<Event<'_>, NoJson> {
    match serde_json::from_slice::<Fields<'_>>(bytes) {
        Ok(fields) => Ok(known(&fields)),
        // No object, or one that repeats a name: JSON all the same.
        Err(_) => match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(_) => Ok(Event::default()),
            Err(e) => Err(NoJson(format!("line {}, column {}", e.line(), e.column()))),
        },
    }
}

fn known<'a>(fields: &Fields<'a>) -> Event<'a> {
    let kind = text(fields.kind);
    let is_cloud_event = text(fields.specversion).is_some_and(|v| v.starts_with("1.")) && kind.is_some();
    let action = || text(fields.action).map(|action| Cow::Owned(format!("todo.{action}")));
    Event { is_cloud_event, kind: kind.or_else(action), data: fields.data }
}

fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?.get();
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Without an escape the text is in the bytes unchanged.
    if !inner.contains('\\') {
        Some(Cow::Borrowed(inner))
    } else {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    }
}

impl Event<'_> {
    /// Its `data`, or the event itself where it has none.
    pub fn content(&self, bytes: &[u8]) -> Option<serde_json::Value> {
        match self.data {
            Some(data) => serde_json::from_str(data.get()).ok(),
            None => serde_json::from_slice(bytes).ok(),
        }
    }

    /// Names and values for people: the scalars of `data`, or of the event itself, one level deep.
    pub fn facts(&self, bytes: &[u8]) -> Vec<(String, String)> {
        let Some(serde_json::Value::Object(object)) = self.content(bytes) else { return Vec::new() };
        let mut facts = Vec::new();
        for (name, value) in object {
            match value {
                serde_json::Value::Object(inner) => {
                    facts.extend(inner.into_iter().filter_map(|(inner, value)| Some((inner, scalar(&value)?))));
                }
                value => facts.extend(scalar(&value).map(|value| (name, value))),
            }
        }
        facts.truncate(FACTS_MAX);
        facts
    }
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(truth) => truth.to_string(),
        _ => return None,
    };
    Some(clean(&text).chars().take(FACT_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        let todo = br#"{"id":"7","text":"Buy milk","status":"open","action":"created"}"#;
        let event = parse(todo).unwrap();
        assert_eq!((event.is_cloud_event, event.kind.as_deref()), (false, Some("todo.created")));
        let cloud = br#"{"specversion":"1.0","type":"agentforge.job.dead","id":"a","data":{"job_id":"j","labels":{"team":"blue"}}}"#;
        let event = parse(cloud).unwrap();
        assert!(event.is_cloud_event);
        assert_eq!(event.kind.as_deref(), Some("agentforge.job.dead"));
        assert_eq!(event.facts(cloud), [("job_id".into(), "j".into()), ("team".into(), "blue".into())]);
    }

    #[test]
    fn any_json_is_an_event() {
        for odd in [
            "[1,2]",
            "\"text\"",
            "null",
            "7",
            r#"{"id":7,"type":["x"],"action":null}"#,
            r#"{"id":"a","id":"b"}"#,
            " {} ",
            r#"{"type":"a\u0041"}"#,
        ] {
            assert!(parse(odd.as_bytes()).is_ok(), "{odd}");
        }
        assert_eq!(parse(br#"{"type":"a\u0041"}"#).unwrap().kind.as_deref(), Some("aA"));
    }

    #[test]
    fn bytes_that_are_no_json_are_refused_without_repeating_them() {
        for bad in [&b""[..], b"secret", b"{", b"{}x", b"\xff\xfe", b"{\"a\":}"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("line") && !error.contains("secret"), "{error}");
        }
    }
}
