//! W3C trace context and X-Request-ID in message headers, so that submit, job and tool call are one trace, and
//! their log lines are found by the id that the caller has.
//!
//! Spans are made and written with the propagator that the process installed; what every job needs, recorded or
//! not, is read and written here.

use async_nats::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, Value, global,
    propagation::{Extractor, Injector},
    trace::{SpanContext, TraceContextExt, TraceFlags},
};
use std::sync::LazyLock;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that has the id of the request that a message goes back to.
pub const REQUEST_ID: &str = "X-Request-ID";
/// Longest id taken from a message, in characters.
const REQUEST_ID_MAX: usize = 128;

/// The header of W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The position of the flags in a traceparent, in version 00 and in all that may follow it.
const FLAGS: std::ops::Range<usize> = 53..55;

struct Carrier<'a>(&'a mut HeaderMap);
struct Reading<'a>(&'a HeaderMap);

impl Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The two headers of W3C are static names; a value with a line break would break the
        // protocol's frame, and no propagator makes one. Most traces have an empty tracestate.
        if !value.is_empty() && !value.contains(['\r', '\n']) {
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
    global::get_text_map_propagator(|p| p.inject_context(&span.context(), &mut Carrier(headers)));
}

/// Whether a caller that does not record its trace decides for us, too. The SDK reads the same variable.
static CALLER_DECIDES: LazyLock<bool> = LazyLock::new(|| {
    let sampler = std::env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
    sampler.is_empty() || sampler == "always_off" || sampler.starts_with("parentbased_")
});

/// A traceparent if its trace is not recorded: neither by the caller nor, according to OTEL_TRACES_SAMPLER, by us.
pub fn if_unrecorded(traceparent: &str) -> Option<&str> {
    (is_version_00(traceparent) && !flags(traceparent)?.is_sampled() && *CALLER_DECIDES).then_some(traceparent)
}

/// The traceparent of headers whose trace is not recorded. Code that works for such a trace passes it on unchanged, and
/// its span's target may end in `::unrecorded`: then the trace layer skips it.
pub fn unrecorded(headers: Option<&HeaderMap>) -> Option<&str> {
    if_unrecorded(headers?.get(TRACEPARENT)?.as_str())
}

/// What comes from outside is passed on only in the form that everybody reads alike.
fn is_version_00(traceparent: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        2 | 35 | 52 => byte == b'-',
        0 | 1 => byte == b'0',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    traceparent.len() == FLAGS.end && traceparent.bytes().enumerate().all(fits)
}

/// What messages from within a span carry, made once for all of them.
#[derive(Clone, Debug, Default)]
pub struct Parent {
    /// The span as a W3C traceparent; none where spans are not traced.
    pub traceparent: Option<String>,
    /// Whether its trace is recorded.
    pub is_sampled: bool,
}

impl Parent {
    /// Of a span; one that is disabled carries nothing. Anything set on the span later, such as its own parent, has no
    /// effect.
    pub fn of(span: &Span) -> Self {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        Self { traceparent: context.is_valid().then(|| traceparent(context)), is_sampled: context.is_sampled() }
    }

    /// Of a trace that is not recorded.
    pub fn unrecorded(traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), is_sampled: false }
    }

    /// Of the current span.
    pub fn current() -> Self {
        Self::of(&Span::current())
    }
}

/// A span context in the version 00 form.
fn traceparent(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{:032x}-{:016x}-{flags:02x}", context.trace_id(), context.span_id())
}

/// Whether headers carry a trace that is recorded. Checks only the flags, because most traces are not.
fn is_sampled(headers: Option<&HeaderMap>) -> bool {
    let traceparent = headers.and_then(|headers| headers.get(TRACEPARENT));
    traceparent.and_then(|value| flags(value.as_str())).is_some_and(|flags| flags.is_sampled())
}

/// The flags where a traceparent has them.
fn flags(traceparent: &str) -> Option<TraceFlags> {
    u8::from_str_radix(traceparent.get(FLAGS)?, 16).ok().map(TraceFlags::new)
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
    if !is_sampled(headers) {
        return Span::none();
    }
    // The flags of an invalid traceparent may be anything.
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

/// What is done with a message, in OpenTelemetry's words for messaging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is sent.
    Publish,
    /// It is worked on.
    Process,
}

impl Operation {
    /// Its name, and the type that it is of.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Publish => ("publish", "send"),
            Self::Process => ("process", "process"),
        }
    }

    /// The name of a span: the operation and where it is done, without what differs between missions and queues.
    pub fn span_name(self, subject: &str) -> String {
        format!("{} {}", self.words().0, destination(subject))
    }
}

/// The first two tokens of a subject: there are few of them.
fn destination(subject: &str) -> &str {
    subject.match_indices('.').nth(1).map_or(subject, |(end, _)| &subject[..end])
}

/// Says what a span is about, as a collector's views know it. Not by fields: log lines have those, too.
pub fn describe<const N: usize>(span: &Span, attributes: [(&'static str, Value); N]) {
    if span.is_disabled() {
        return;
    }
    for (key, value) in attributes {
        span.set_attribute(key, value);
    }
}

/// As [`describe`], for a span around one message.
pub fn describe_message(span: &Span, operation: Operation, subject: &str, id: String) {
    let (name, kind) = operation.words();
    describe(
        span,
        [
            ("messaging.system", "nats".into()),
            ("messaging.operation.name", name.into()),
            ("messaging.operation.type", kind.into()),
            ("messaging.destination.name", subject.to_owned().into()),
            ("messaging.message.id", id.into()),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_by_what_is_done_where() {
        for (subject, name) in [
            ("swarm.jobs.dev.default", "publish swarm.jobs"),
            ("agentforge.events.job.dev.accepted", "publish agentforge.events"),
            ("todos.events", "publish todos.events"),
            ("tactical", "publish tactical"),
        ] {
            assert_eq!(Operation::Publish.span_name(subject), name);
        }
    }

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
    fn whether_a_trace_is_sampled_is_read_from_its_flags() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (value, sampled) in [
            (format!("00-{ids}-01"), true),
            (format!("00-{ids}-03"), true),
            (format!("cc-{ids}-01-what-the-future-brings"), true),
            (format!("00-{ids}-00"), false),
            (format!("00-{ids}-02"), false),
            (format!("00-{ids}-"), false),
            ("é".repeat(40), false),
            (String::new(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value.as_str());
            assert_eq!(is_sampled(Some(&headers)), sampled, "{value}");
            let unrecorded = unrecorded(Some(&headers));
            assert_eq!(unrecorded.is_some(), value.ends_with("-00") || value.ends_with("-02"), "{value}");
        }
        for wrong in ["zz-", "00_", "0a-"] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, format!("{wrong}{ids}-00"));
            assert_eq!(unrecorded(Some(&headers)), None, "{wrong}");
        }
        assert!(!is_sampled(None));
    }

    #[test]
    fn a_traceparent_is_what_the_propagator_writes() {
        use opentelemetry::propagation::TextMapPropagator;
        let propagator = opentelemetry_sdk::propagation::TraceContextPropagator::new();
        for given in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000001-0000000000000001-00",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, given);
            let context = propagator.extract(&Reading(&headers));
            let mut written = HeaderMap::new();
            propagator.inject_context(&context, &mut Carrier(&mut written));
            let written = written.get(TRACEPARENT).unwrap().as_str();
            assert_eq!((traceparent(context.span().span_context()).as_str(), written), (given, given));
        }
    }

    #[test]
    fn headers_carry_what_a_propagator_sets_and_no_line_breaks() {
        let mut headers = HeaderMap::new();
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        Carrier(&mut headers).set("traceparent", value.into());
        Carrier(&mut headers).set("tracestate", "a\r\nEvil: 1".into());
        Carrier(&mut headers).set("tracestate", String::new());
        assert_eq!(Reading(&headers).get("traceparent"), Some(value));
        assert_eq!(Reading(&headers).get("tracestate"), None);
        assert_eq!(Reading(&headers).keys(), ["traceparent"]);
    }
}
