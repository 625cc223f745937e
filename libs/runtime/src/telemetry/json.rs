//! One log event as one JSON object on one line.
//!
//! timestamp, level, target, message and service come first; then trace_id, and span_id if there is one, in
//! a trace; then the fields of the event and of the spans around it, the inner ones winning.

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Longest text of a field, in bytes; the rest is cut off.
const TEXT_MAX: usize = 8 * 1024;

/// Names that a field cannot take; one that tries gets an underscore.
const RESERVED: [&str; 5] = ["timestamp", "level", "target", "trace_id", "span_id"];

/// The format; `service` is the name for lines outside any service's scope.
pub(super) struct JsonLine {
    service: &'static str,
}

impl JsonLine {
    pub(super) fn new(service: &'static str) -> Self {
        Self { service }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Map::new();
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<N>>().map(|fields| fields.as_str());
            if let Some(Ok(Value::Object(of_span))) = formatted.map(serde_json::from_str) {
                fields.extend(of_span.into_iter().map(|(name, value)| (free_name(&name), value)));
            }
        }
        event.record(&mut Collect(&mut fields));
        let ids = trace_ids(ctx).or_else(|| Some((unrecorded_id(&mut fields)?, None)));
        let line = Line { service: self.service, event, fields, ids };
        line.write(&mut writer)
    }
}

struct Line<'a> {
    service: &'static str,
    event: &'a Event<'a>,
    fields: Map<String, Value>,
    /// Of the trace, and of the span where it is one of ours.
    ids: Option<(String, Option<String>)>,
}

impl Line<'_> {
    fn write(mut self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut timestamp = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = self.event.metadata();
        // Events of the `log` crate carry their origin as fields.
        let target = self.fields.remove("log.target").unwrap_or_else(|| metadata.target().into());
        for name in ["log.module_path", "log.file", "log.line"] {
            self.fields.remove(name);
        }
        let message = self.fields.remove("message").unwrap_or_else(|| "".into());
        let service = self.fields.remove("service").unwrap_or_else(|| self.service.into());
        write!(writer, "{{\"timestamp\":{}", Value::String(timestamp))?;
        write!(writer, ",\"level\":\"{}\",\"target\":{target}", metadata.level())?;
        write!(writer, ",\"message\":{message},\"service\":{service}")?;
        if let Some((trace_id, span_id)) = &self.ids {
            write!(writer, ",\"trace_id\":\"{trace_id}\"")?;
            if let Some(span_id) = span_id {
                write!(writer, ",\"span_id\":\"{span_id}\"")?;
            }
        }
        for (name, value) in &self.fields {
            write!(writer, ",{}:{value}", Value::String(name.clone()))?;
        }
        writeln!(writer, "}}")
    }
}

/// The trace that a span only for log lines belongs to.
fn unrecorded_id(fields: &mut Map<String, Value>) -> Option<String> {
    let traceparent = fields.remove("traceparent")?;
    let id = traceparent.as_str()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

fn trace_ids<S, N>(ctx: &FmtContext<'_, S, N>) -> Option<(String, Option<String>)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    tracing::dispatcher::get_default(|dispatch| {
        // The innermost span may be one that the trace layer leaves out.
        let ids = ctx.event_scope()?.map(|span| span.id());
        let mut contexts = ids.filter_map(|id| tracing_opentelemetry::get_otel_context(&id, dispatch));
        let context = contexts.find(|context| context.span().span_context().is_valid())?;
        let ids = context.span().span_context().clone();
        Some((ids.trace_id().to_string(), Some(ids.span_id().to_string())))
    })
}

fn free_name(name: &str) -> String {
    if RESERVED.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

/// Collects an event's fields as JSON values.
struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        self.0.insert(free_name(name), value);
    }
}

impl Visit for Collect<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, cut(value.to_owned()).into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, cut(crate::error_text::chain(value)).into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, cut(format!("{value:?}")).into());
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(act: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(JsonLine::new("process"))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
    }

    #[test]
    fn an_event_is_one_object_with_its_own_and_its_spans_fields() {
        let found = lines(|| {
            let _service = info_span!("service", service = "worker").entered();
            let _request = info_span!("request", request_id = "r-1", attempt = 1).entered();
            warn!(attempt = 2, ok = false, share = 0.5, level = "mine", "two\nlines \"quoted\"");
        });
        let line = &found[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "two\nlines \"quoted\"");
        assert_eq!(line["service"], "worker");
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["attempt"], 2, "the event's field wins");
        assert_eq!((&line["ok"], &line["share"]), (&Value::from(false), &Value::from(0.5)));
        assert_eq!(line["level_"], "mine", "a field cannot take the place of the level");
        assert_eq!(line["target"], module_path!());
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_span_for_log_lines_alone_names_its_trace() {
        let found = lines(|| {
            let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
            let _job = info_span!("job", traceparent, attempt = 1).entered();
            info!("done");
            let _rubbish = info_span!("job", traceparent = "rubbish").entered();
            info!("done");
        });
        assert_eq!(found[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&found[0]["attempt"], found[0].get("traceparent")), (&Value::from(1), None));
        assert_eq!((found[1].get("trace_id"), found[1].get("span_id")), (None, None));
    }

    #[test]
    fn outside_a_service_the_process_is_named_and_long_text_is_cut() {
        let found = lines(|| {
            info!(body = "é".repeat(TEXT_MAX), "long");
            let cause = std::io::Error::other("disk full");
            let error = crate::Error::Serve(cause);
            warn!(error = &error as &dyn std::error::Error, "failed");
        });
        assert_eq!(found[0]["service"], "process");
        assert!(found[0]["body"].as_str().unwrap().len() <= TEXT_MAX + 3);
        assert_eq!(found[1]["error"], "cannot serve HTTP: disk full");
        assert!(found[0].get("trace_id").is_none());
    }
}
