//! The exporter of traces: OTLP over gRPC or HTTP, in batches, to the configured collector.
//!
//! An unavailable collector costs spans, never work: the queue is bounded and drops.

use super::by_service::ByService;
use super::http::Sender;
use agentforge_config::{Common, Otlp, OtlpProtocol};
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;

/// A provider that exports to `collector`. Connects when the first batch is sent; sampling follows
/// OTEL_TRACES_SAMPLER. Spans of `services`, which the process hosts, are sent under their names, unless the environment
/// gives the process one. Needs a running tokio runtime.
pub(super) fn provider(
    resource: Resource,
    services: &[&'static str],
    collector: &Otlp,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let builder = SdkTracerProvider::builder().with_resource(resource);
    if services.is_empty() || is_named() {
        return Ok(builder.with_batch_exporter(exporter(collector)?).build());
    }
    let services = services.iter().map(|name| Ok((*name, exporter(collector)?))).collect::<Result<_, _>>()?;
    Ok(builder.with_batch_exporter(ByService { process: exporter(collector)?, services }).build())
}

fn exporter(collector: &Otlp) -> Result<SpanExporter, ExporterBuildError> {
    let endpoint = &collector.endpoint;
    if collector.protocol == OtlpProtocol::Http {
        // The exporter reads headers and time limits from the environment itself.
        let builder = SpanExporter::builder().with_http().with_http_client(Sender::new(endpoint));
        return builder.with_protocol(Protocol::HttpBinary).with_endpoint(endpoint.as_str()).build();
    }
    let mut builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str());
    if endpoint.scheme() == "https" {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    builder.build()
}

/// Who spans come from: this program, and for a service where it runs. What OTEL_SERVICE_NAME and
/// OTEL_RESOURCE_ATTRIBUTES say of it wins.
pub(super) fn resource(name: &'static str, common: Option<&Common>) -> Resource {
    let given = given_attributes();
    let place = common.into_iter().flat_map(|common| {
        [
            KeyValue::new("deployment.environment.name", common.env.clone()),
            KeyValue::new("agentforge.mission", common.mission.clone()),
            KeyValue::new("agentforge.site", common.site.clone()),
        ]
    });
    let ours =
        [KeyValue::new("service.namespace", "agentforge"), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let ours = ours.into_iter().chain(place).filter(|attribute| !given.iter().any(|key| key == attribute.key.as_str()));
    // The builder begins with what the environment says.
    let builder = Resource::builder().with_attributes(ours);
    if is_named() { builder.build() } else { builder.with_service_name(name).build() }
}

/// The keys of OTEL_RESOURCE_ATTRIBUTES.
fn given_attributes() -> Vec<String> {
    let given = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    given.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned())).collect()
}

/// Whether the environment names the service.
fn is_named() -> bool {
    std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || given_attributes().iter().any(|key| key == "service.name")
}

/// Sends what is left, for at most `limit`; whether all was sent. Nothing is exported after it.
pub(crate) async fn shut_down(provider: SdkTracerProvider, limit: Duration) -> bool {
    // Blocks while the batch is sent, so it must not hold a worker thread.
    let shut_down = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
    match tokio::time::timeout(limit + Duration::from_secs(1), shut_down).await {
        Ok(Ok(Ok(()))) => true,
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "traces were not all sent");
            false
        }
        _ => {
            tracing::warn!("traces were not all sent in time");
            false
        }
    }
}
