//! W3C trace context and X-Request-ID in message headers, so that submit, job and tool call are one trace, and
//! their log lines are found by the id that the caller has.
//!
//! Uses the propagator that the process installed; without one, nothing is written or read.

use async_nats::HeaderMap;
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that has the id of the request that a message goes back to.
pub const REQUEST_ID: &str = "X-Request-ID";
/// Longest id taken from a message, in characters.
const REQUEST_ID_MAX: usize = 128;

struct Carrier<'a>(&'a mut HeaderMap);
struct Reading<'a>(&'a HeaderMap);

impl Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The two headers of W3C are static names; a value with a line break would break the
        // protocol's frame, and no propagator makes one.
        if !value.contains(['\r', '\n']) {
            self.0.insert(key, value.as_str());
        }
    }
}

impl Extractor for Reading<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

/// Writes the trace context of `span` into headers.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    inject_context(&span.context(), headers);
}

/// Writes the trace context of the current span into headers.
pub fn inject_current(headers: &mut HeaderMap) {
    inject(&Span::current(), headers);
}

/// Writes a trace context into headers.
pub fn inject_context(context: &Context, headers: &mut HeaderMap) {
    global::get_text_map_propagator(|p| p.inject_context(context, &mut Carrier(headers)));
}

/// The trace context that headers carry; an empty one when there is none.
pub fn extract(headers: Option<&HeaderMap>) -> Context {
    let Some(headers) = headers else { return Context::new() };
    global::get_text_map_propagator(|p| p.extract(&Reading(headers)))
}

/// The request id that headers carry: 1 to 128 printable characters, else none.
pub fn request_id(headers: Option<&HeaderMap>) -> Option<&str> {
    let id = headers?.get(REQUEST_ID)?.as_str();
    ((1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())).then_some(id)
}

/// Makes the trace context in headers the parent of `span`.
pub fn set_parent(span: &Span, headers: Option<&HeaderMap>) {
    // An error means that no trace layer is installed: then there is nothing to link.
    let _ = span.set_parent(extract(headers));
}

/// A span below the trace context in headers, if that trace is sampled; else no span, which costs nothing.
pub fn child_of(headers: Option<&HeaderMap>, make: impl FnOnce() -> Span) -> Span {
    let parent = extract(headers);
    if !parent.span().span_context().is_sampled() {
        return Span::none();
    }
    let span = make();
    let _ = span.set_parent(parent);
    span
}

/// As [`child_of`], for a message on its way out: what the headers carry is then the new span.
pub fn carried_on(headers: &mut HeaderMap, make: impl FnOnce() -> Span) -> Span {
    let span = child_of(Some(headers), make);
    if !span.is_disabled() {
        inject(&span, headers);
    }
    span
}

/// A span below the current one, if its trace is sampled; else no span.
pub fn child_of_current(make: impl FnOnce() -> Span) -> Span {
    match Span::current().context().span().span_context().is_sampled() {
        true => make(),
        false => Span::none(),
    }
}

/// The current span as a W3C traceparent.
pub fn current_traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject_current(&mut headers);
    headers.get("traceparent").map(|value| value.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_short_and_printable() {
        let long = "x".repeat(REQUEST_ID_MAX + 1);
        for (id, taken) in [("my-id/7", true), ("", false), ("a b", false), ("a\"b", true), (long.as_str(), false)] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, id);
            assert_eq!(request_id(Some(&headers)), taken.then_some(id), "{id}");
        }
        assert_eq!(request_id(None), None);
    }

    #[test]
    fn headers_carry_what_a_propagator_sets_and_no_line_breaks() {
        let mut headers = HeaderMap::new();
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        Carrier(&mut headers).set("traceparent", value.into());
        Carrier(&mut headers).set("tracestate", "a\r\nEvil: 1".into());
        assert_eq!(Reading(&headers).get("traceparent"), Some(value));
        assert_eq!(Reading(&headers).get("tracestate"), None);
        assert_eq!(Reading(&headers).keys(), ["traceparent"]);
    }
}
