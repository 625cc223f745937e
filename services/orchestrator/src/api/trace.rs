//! What callers send along to find a request again: W3C traceparent and X-Request-ID.
//!
//! Both come from outside: they are checked here and dropped when malformed, never passed on as they are.

use agentforge_jetstream::trace as bus;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use uuid::Uuid;

/// Header and metadata key of the request's id.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// Header and metadata key of W3C trace context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a call gets that names no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A span, whose trace is recorded or not as the sampler says.
    Span,
    /// A trace that is only a name, for log lines and messages: nothing is exported, so a span would be useless.
    Name,
}

impl Root {
    /// By the settings.
    pub(crate) fn of(common: &agentforge_config::Common) -> Self {
        if common.traces && common.otlp.is_none() { Self::Name } else { Self::Span }
    }

    /// Names a trace where there is none yet.
    pub(crate) fn name(self, headers: &mut HeaderMap) {
        if self == Self::Name && !headers.contains_key(TRACEPARENT) {
            let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
            let traceparent = HeaderValue::try_from(format!("00-{trace:032x}-{span:016x}-00"));
            headers.insert(TRACEPARENT, traceparent.expect("digits and dashes"));
        }
    }
}

/// What a job keeps of the request that submitted it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) traceparent: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl Origin {
    /// The trace that a submission joins (this request's span where spans are traced, else the caller's), and the
    /// id that the edge gave the request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let own = bus::Parent::current().traceparent;
        let request_id = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self { traceparent: own.or_else(|| traceparent(headers)), request_id }
    }
}

/// Makes the caller's span the parent of `span`.
pub(crate) fn join(span: &Span, headers: &HeaderMap) {
    if let Some(parent) = traceparent(headers) {
        let mut carrier = async_nats::HeaderMap::new();
        carrier.insert(bus::TRACEPARENT, parent);
        bus::set_parent(span, Some(&carrier));
    }
}

/// The caller's traceparent if its trace is not recorded.
pub(crate) fn unrecorded(headers: &HeaderMap) -> Option<String> {
    traceparent(headers).filter(|traceparent| bus::if_unrecorded(traceparent).is_some())
}

/// The caller's traceparent in its version 00 form, when it is well-formed.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next().is_some();
    let version_fits = lower_hex(version, 2) && version != "ff" && (version != "00" || !more);
    let ids_fit =
        [(trace, 32), (span, 16)].iter().all(|(id, len)| lower_hex(id, *len) && id.bytes().any(|b| b != b'0'));
    (version_fits && ids_fit && lower_hex(flags, 2)).then(|| format!("00-{trace}-{span}-{flags}"))
}

/// The trace id of a checked traceparent.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.get(3..35)
}

/// The caller's request id when it is harmless, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|v| v.to_str().ok())
        .filter(|id| {
            (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b))
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn lower_hex(s: &str, len: usize) -> bool {
    s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_well_formed_traceparents_are_taken() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent(&headers("traceparent", good)).as_deref(), Some(good));
        assert_eq!(trace_id(good), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(unrecorded(&headers("traceparent", good)), None);
        let quiet = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert_eq!(unrecorded(&headers("traceparent", quiet)).as_deref(), Some(quiet));
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings";
        assert_eq!(traceparent(&headers("traceparent", later)).as_deref(), Some(good));
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(traceparent(&headers("traceparent", bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_is_named_where_nothing_is_exported_and_the_caller_names_none() {
        let mut named = HeaderMap::new();
        Root::Name.name(&mut named);
        let first = unrecorded(&named).expect("a traceparent that nobody records");
        Root::Name.name(&mut named);
        assert_eq!(unrecorded(&named), Some(first.clone()), "once");
        assert_eq!(Origin::of(&named).traceparent, Some(first.clone()));
        let mut other = HeaderMap::new();
        Root::Name.name(&mut other);
        assert_ne!(unrecorded(&other), Some(first));
        let mut none = HeaderMap::new();
        Root::Span.name(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_harmful_request_id_is_replaced() {
        assert_eq!(request_id(&headers(REQUEST_ID, "abc-1:2")), "abc-1:2");
        let long = "x".repeat(129);
        for bad in ["", "a b", "a\"b", long.as_str()] {
            let id = request_id(&headers(REQUEST_ID, bad));
            assert!(Uuid::parse_str(&id).is_ok(), "{bad:?} became {id:?}");
        }
    }
}
