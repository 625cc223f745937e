//! The trace of a command that a person runs: one root span, which calls to services carry on.
//!
//! Without a collector the trace has its ids all the same, so that the services' spans and logs are one trace.
//! Touches no global of the process: a command has no log subscriber.

use super::otlp;
use agentforge_config::Otlp;
use opentelemetry::Context;
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;

/// A trace that is under way.
#[derive(Debug)]
pub struct CommandTrace {
    provider: SdkTracerProvider,
    context: Context,
    is_exported: bool,
}

impl CommandTrace {
    /// Begins the root span `name` of `service`, exported to `collector` where there is one. Whether the trace is
    /// sampled is for OTEL_TRACES_SAMPLER to say; it is by default. Needs a running tokio runtime.
    ///
    /// # Errors
    /// A collector whose address the exporter refuses.
    pub fn begin(service: &'static str, name: &str, collector: Option<&Otlp>) -> Result<Self, ExporterBuildError> {
        let provider = match collector {
            Some(collector) => otlp::provider(otlp::resource(service, None), &[], collector)?,
            None => SdkTracerProvider::builder().build(),
        };
        let tracer = provider.tracer("agentforge");
        let builder = tracer.span_builder(name.to_owned()).with_kind(SpanKind::Client);
        let span = tracer.build_with_context(builder, &Context::new());
        let is_exported = collector.is_some() && span.span_context().is_sampled();
        Ok(Self { provider, context: Context::new().with_span(span), is_exported })
    }

    /// The W3C traceparent for calls that belong to it.
    pub fn traceparent(&self) -> String {
        let mut carrier = Carrier::default();
        TraceContextPropagator::new().inject_context(&self.context, &mut carrier);
        carrier.traceparent
    }

    /// Ends the span, and sends it for at most `limit`. Whether it was sent, where it was to be.
    pub async fn end(self, failure: Option<String>, limit: Duration) -> bool {
        let span = self.context.span();
        if let Some(failure) = failure {
            span.set_status(Status::error(failure));
        }
        span.end();
        !self.is_exported || otlp::shut_down(self.provider, limit).await
    }
}

/// Takes the one header that is wanted.
#[derive(Default)]
struct Carrier {
    traceparent: String,
}

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == "traceparent" {
            self.traceparent = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_collector_there_is_a_trace_to_carry_on_and_nothing_to_wait_for() {
        let trace = CommandTrace::begin("cli", "agentforge job submit", None).unwrap();
        let traceparent = trace.traceparent();
        let parts: Vec<&str> = traceparent.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{traceparent}");
        assert!(parts[1].bytes().any(|b| b != b'0'), "{traceparent}");
        assert!(trace.end(Some("refused".to_owned()), Duration::ZERO).await);
    }
}
