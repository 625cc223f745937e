//! The exporter of traces: OTLP over gRPC, in batches, to the configured collector.
//!
//! A collector that is away costs spans, never work: the queue is bounded and drops.

use agentforge_config::{Common, Url};
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// A provider that exports to `endpoint`. Connects when the first batch is sent; sampling follows
/// OTEL_TRACES_SAMPLER. Needs a running tokio runtime.
pub(super) fn provider(
    name: &'static str,
    common: &Common,
    endpoint: &Url,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let mut builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str());
    if endpoint.scheme() == "https" {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let resource = Resource::builder()
        .with_service_name(name)
        .with_attributes([
            KeyValue::new("service.namespace", "agentforge"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("deployment.environment.name", common.env.clone()),
            KeyValue::new("agentforge.mission", common.mission.clone()),
            KeyValue::new("agentforge.site", common.site.clone()),
        ])
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(builder.build()?).with_resource(resource).build())
}
