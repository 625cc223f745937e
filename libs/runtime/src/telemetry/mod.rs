//! Logs and traces: one subscriber per process, made of a log layer and a trace layer.
//!
//! The log layer writes to stderr what LOG_LEVEL asks for. The trace layer gives every span of ours
//! its ids, also when nothing is exported, so that log lines and messages can be matched.

mod by_service;
mod command;
mod fresh;
mod http;
mod json;
mod otlp;

pub use command::CommandTrace;
pub(crate) use otlp::shut_down;

use agentforge_config::{Common, LogFormat};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use tracing::level_filters::LevelFilter;
use tracing::{Span, error_span};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Spans that only name the service and the task in log lines. They last as long as the process
/// and would join all traces into one, so the trace layer leaves them out.
const SCOPE: &str = "agentforge_scope";

/// The end of targets whose spans belong to a trace that is not recorded. They name it in a field `traceparent`, which
/// log lines show as `trace_id`.
const UNRECORDED: &str = "::unrecorded";

/// The finest level of spans that traces have.
const TRACED: LevelFilter = LevelFilter::INFO;

/// Targets whose spans describe the transport of traces or of requests, not our work.
const NOT_TRACED: [&str; 10] = [
    SCOPE,
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry_otlp",
    "h2",
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "rustls",
];

/// What is wrong with a log filter, if anything; the words follow "the value".
///
/// # Errors
/// The filter library's explanation.
pub fn check_log_level(filter: &str) -> Result<(), String> {
    EnvFilter::builder().parse(filter).map(drop).map_err(|error| format!("is not a log filter: {error}"))
}

/// Installs subscriber and propagator, and the exporter if an endpoint is set. Without traces there is no layer
/// for them either: spans are what log lines say, and messages carry what callers sent. `services` are those that a
/// process of several hosts.
pub(crate) fn install(name: &'static str, services: &[&'static str], common: &Common) -> Option<SdkTracerProvider> {
    if !common.traces {
        install_layers(name, &common.log_level, common.log_format, None);
        return None;
    }
    let collector = common.otlp.as_ref();
    let exporter = collector.map(|collector| otlp::provider(otlp::resource(name, Some(common)), services, collector));
    let (provider, failure) = match exporter {
        Some(Ok(provider)) => (Some(provider), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let tracing = provider.clone().unwrap_or_else(ids_only);
    install_layers(name, &common.log_level, common.log_format, Some(tracing));
    if let Some(error) = failure {
        tracing::error!(%error, setting = "OTEL_EXPORTER_OTLP_ENDPOINT", "no traces are exported");
    }
    provider
}

/// Installs the subscriber without an exporter.
pub(crate) fn install_logs(name: &'static str, level: &str, format: LogFormat) {
    install_layers(name, level, format, Some(ids_only()));
}

/// Ids without recording; a caller's decision to sample is passed on.
fn ids_only() -> SdkTracerProvider {
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
    SdkTracerProvider::builder().with_sampler(sampler).build()
}

/// The span around everything a service does.
pub(crate) fn scope(service: &'static str) -> Span {
    error_span!(target: SCOPE, "service", service)
}

/// The span around a supervised task.
pub(crate) fn task_scope(service: &'static str, task: &'static str) -> Span {
    error_span!(target: SCOPE, parent: None, "task", service, task)
}

/// A panic as one log line.
pub(crate) fn log_panic(info: &PanicHookInfo<'_>) {
    let message = crate::error_text::panic_message_of(info);
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, panic = message, "panic");
}

fn install_layers(name: &'static str, level: &str, format: LogFormat, provider: Option<SdkTracerProvider>) {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let filter = EnvFilter::builder().parse(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logged = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let level = if provider.is_some() { logged.max(TRACED) } else { logged };
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(json::JsonLine::new(name))
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .compact()
            .with_ansi(wants_colour())
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    let targets = NOT_TRACED
        .iter()
        .fold(Targets::new().with_default(TRACED), |targets, target| targets.with_target(*target, LevelFilter::OFF));
    // Without a hint of its own it would ask for every callsite of every level.
    let recorded = filter_fn(|metadata| !metadata.target().ends_with(UNRECORDED)).with_max_level_hint(TRACED);
    let traces = provider.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("agentforge"))
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(targets.and(recorded))
    });
    // Refused if a test installed its own, which is then kept.
    let _ = Registry::default().with(logs).with(traces).with(fresh::Fresh { level }).try_init();
}

fn wants_colour() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && std::io::stderr().is_terminal()
}
