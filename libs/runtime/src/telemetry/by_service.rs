//! Spans of several services in one process, each sent under its own `service.name`: maps of services need that.
//!
//! One layer and one provider make all spans, so parents are found across services. They are separated when a batch is
//! sent: a span belongs to the service that it names, as requests do, or else to the crate that its target begins with.

use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::collections::BTreeMap;
use std::time::Duration;

/// The exporter of a process that hosts services.
#[derive(Debug)]
pub(super) struct ByService {
    /// For spans of no service.
    pub(super) process: Otlp,
    /// By the service's name.
    pub(super) services: BTreeMap<&'static str, Otlp>,
}

impl ByService {
    fn all(&self) -> impl Iterator<Item = &Otlp> {
        self.services.values().chain([&self.process])
    }

    fn of(&self, span: &SpanData) -> Option<&'static str> {
        let name = service_of(span)?;
        self.services.keys().copied().find(|service| *service == name)
    }
}

impl SpanExporter for ByService {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut parts: BTreeMap<Option<&'static str>, Vec<SpanData>> = BTreeMap::new();
        for span in batch {
            parts.entry(self.of(&span)).or_default().push(span);
        }
        // One after the other, and all of them: what is lost of one service is not lost of the others.
        let mut result = Ok(());
        for (service, spans) in parts {
            let exporter = service.and_then(|name| self.services.get(name)).unwrap_or(&self.process);
            result = result.and(exporter.export(spans).await);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.all().map(|exporter| exporter.shutdown_with_timeout(timeout)).fold(Ok(()), Result::and)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.all().map(SpanExporter::force_flush).fold(Ok(()), Result::and)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.process.set_resource(resource);
        let shared = || resource.iter().map(|(key, value)| opentelemetry::KeyValue::new(key.clone(), value.clone()));
        for (name, exporter) in &mut self.services {
            let own = Resource::builder_empty().with_attributes(shared()).with_service_name(*name);
            exporter.set_resource(&own.build());
        }
    }
}

/// The service whose span it is: `agentforge_tactical_api::api` is tactical-api's.
fn service_of(span: &SpanData) -> Option<String> {
    let attribute = |wanted: &str| span.attributes.iter().find(|found| found.key.as_str() == wanted);
    if let Some(named) = attribute("service") {
        return Some(named.value.as_str().into_owned());
    }
    let target = attribute("target")?.value.as_str().into_owned();
    let name = target.strip_prefix("agentforge_")?.split("::").next()?;
    Some(name.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use std::time::SystemTime;

    #[test]
    fn a_span_is_of_the_service_that_it_names_or_whose_code_made_it() {
        let of = |attributes: &[(&'static str, &'static str)]| {
            service_of(&SpanData {
                span_context: SpanContext::NONE,
                parent_span_id: SpanId::INVALID,
                parent_span_is_remote: false,
                span_kind: SpanKind::Internal,
                name: "n".into(),
                start_time: SystemTime::UNIX_EPOCH,
                end_time: SystemTime::UNIX_EPOCH,
                attributes: attributes.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect(),
                dropped_attributes_count: 0,
                events: Default::default(),
                links: Default::default(),
                status: Status::Unset,
                instrumentation_scope: InstrumentationScope::default(),
            })
        };
        let request = [("target", "agentforge_runtime::http::instrument"), ("service", "orchestrator")];
        assert_eq!(of(&request).as_deref(), Some("orchestrator"));
        assert_eq!(of(&[("target", "agentforge_worker::job")]).as_deref(), Some("worker"));
        assert_eq!(of(&[("target", "agentforge_tactical_api")]).as_deref(), Some("tactical-api"));
        assert_eq!(of(&[("target", "sqlx::query")]), None);
        assert_eq!(of(&[]), None);
    }
}
