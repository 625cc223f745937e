//! What the sampler counts. The names are those that dashboards and alerts of other installations know.

use agentforge_metrics::{Bounded, Metric};

/// Services in metrics, in the life of a process: targets can be renamed while it runs.
pub static SERVICES: Bounded = Bounded::new(256);

/// Bounds with those of the classes (150 and 400 ms) and of the alerts (700 and 800 ms) among them.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0];

/// Both sources of targets.
pub const SOURCES: [&str; 2] = ["persisted", "env"];

/// All probes.
pub const LATENCY: Metric = Metric::histogram(
    "internal_service_latency_seconds",
    SECONDS,
    &["service", "success"],
    "How long probes took, connection included; of failed ones until it was clear that they fail.",
)
.of(&[&[], &["true", "false"]]);
/// Of the newest successful probe.
pub const LAST_MS: Metric = Metric::gauge(
    "internal_service_latency_last_ms",
    &["service"],
    "Milliseconds that the newest successful probe took; a failure leaves it as it is.",
);
/// Of the newest probe.
pub const CLASS: Metric = Metric::gauge(
    "internal_service_latency_class",
    &["service"],
    "The newest probe: 0 good (at most 150 ms), 1 warn (at most 400 ms), 2 high, 3 failed.",
);
/// All of them.
pub const ATTEMPTS: Metric =
    Metric::counter("internal_service_latency_attempts_total", &["service"], "Probes, successful or not.");
/// Those that were answered.
pub const OK: Metric = Metric::counter(
    "internal_service_latency_ok_total",
    &["service"],
    "Probes that were answered with a status below 400.",
);
/// How many targets there are, and where they come from.
pub const TARGETS: Metric = Metric::gauge(
    "internal_service_latency_targets",
    &["source"],
    "Services that are sampled, by where the list comes from: persisted (latency_targets.json) or env. Only one of the two series exists.",
)
.of(&[&SOURCES]);

/// All of them.
pub const METRICS: &[Metric] = &[LATENCY, LAST_MS, CLASS, ATTEMPTS, OK, TARGETS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}
