//! What the tactical API counts. Names and labels are an interface: `docs/METRICS.md` is made from here.

use crate::event::{Channel, Notice};
use agentforge_metrics::{Counter, Gauge, Histogram, Metric, buckets};

const CHANNELS: &[&str] = &["sse", "ws"];
const REJECTIONS: &[&str] =
    &["subject", "too_large", "malformed", "title", "coordinates", "polygon", "severity", "time", "evidence_id"];
const REFUSALS: &[&str] = &[
    "client_cert_required",
    "unauthorized",
    "permission_denied",
    "too_many_requests",
    "origin_not_allowed",
    "host_not_allowed",
    "proxy_not_allowed",
    "invalid_argument",
    "too_many_clients",
    "too_many_clients_ip",
    "unavailable",
    "upgrade_required",
];

/// Events that were written to clients.
pub const PUBLISHED: Metric = Metric::counter(
    "tactical_alerts_published_total",
    &["channel"],
    "Events delivered to clients, counted after the write to their socket; channel is sse or ws.",
)
.of(&[CHANNELS]);
/// Clients that hold a slot; the limits count these.
pub const CLIENTS: Metric = Metric::gauge("tactical_stream_clients", &["channel"], "Clients that hold a slot now.");
/// Messages that are not events.
pub const REJECTED: Metric = Metric::counter(
    "tactical_events_rejected_total",
    &["reason"],
    "Messages on the stream that were ignored because they are invalid.",
)
.of(&[REJECTIONS]);
/// Clients that were cut off.
pub const DROPPED: Metric = Metric::counter(
    "tactical_clients_dropped_total",
    &["channel", "reason"],
    "Clients that the API disconnected: slow_consumer, protocol (WebSocket), restart, unavailable (the stream cannot be read) or busy (too many clients wait for it); the last three are asked to reconnect.",
)
.of(&[CHANNELS, &["slow_consumer", "protocol", "restart", "unavailable", "busy"]]);
/// Clients that were not let in.
pub const REFUSED: Metric = Metric::counter(
    "tactical_clients_refused_total",
    &["channel", "reason"],
    "Clients that were refused, by the code of the refusal.",
)
.of(&[CHANNELS, REFUSALS]);
/// How late events are.
pub const LAG: Metric = Metric::histogram(
    "tactical_delivery_lag_seconds",
    buckets::REQUEST_SECONDS,
    &["channel"],
    "From the stream's timestamp to the write to a socket; measured for up to 16 clients of each event.",
)
.of(&[CHANNELS]);
/// Gaps reported to clients.
pub const GAPS: Metric = Metric::counter(
    "tactical_gaps_total",
    &["reason"],
    "Notices written to clients: expired (older than the stream keeps), conflated, reset (another stream), source_away and source_back (the stream is unavailable; available again).",
)
.of(&[&["expired", "conflated", "reset", "source_away", "source_back"]]);
/// States passed over for slow clients.
pub const CONFLATED: Metric = Metric::counter(
    "tactical_events_conflated_total",
    &[],
    "Older states that slow clients did not get, because a newer one of the same marker waited.",
);
/// Events read again for clients that resumed.
pub const REPLAYED: Metric = Metric::counter(
    "tactical_events_replayed_total",
    &[],
    "Events read from the stream for clients that resumed from further back than the events in memory.",
);
/// The picture's size.
pub const FEATURES: Metric = Metric::gauge("tactical_features", &["kind"], "Markers and zones in the current picture.");
/// Evidence asked for.
pub const EVIDENCE: Metric = Metric::counter(
    "tactical_evidence_requests_total",
    &["outcome"],
    "Requests for evidence: served, forged, expired, too_long (signed for longer than EVIDENCE_SIGNING_TTL), unknown, unavailable, busy (too many of one address).",
)
.of(&[&["served", "forged", "expired", "too_long", "unknown", "unavailable", "busy"]]);
/// Evidence that a marker may not link to.
pub const WITHHELD: Metric = Metric::counter(
    "tactical_evidence_withheld_total",
    &[],
    "Markers and zones of the stream that named another site's evidence; they are shown without a link.",
);
/// Secrets of links.
pub const EVIDENCE_SECRETS: Metric = Metric::gauge(
    "tactical_evidence_secrets",
    &[],
    "Secrets of EVIDENCE_SIGNING_SECRET that verify links to evidence: more than one during a rotation.",
);
/// Changes of the secrets' file.
pub const EVIDENCE_SECRET_RELOADS: Metric = Metric::counter(
    "tactical_evidence_secret_reloads_total",
    &["outcome"],
    "Changes of the file that EVIDENCE_SIGNING_SECRET_FILE names: applied, or refused, which keeps the earlier secrets.",
)
.of(&[&["applied", "refused"]]);

/// All of them.
pub const METRICS: &[Metric] = &[
    PUBLISHED,
    CLIENTS,
    REJECTED,
    DROPPED,
    REFUSED,
    LAG,
    GAPS,
    CONFLATED,
    REPLAYED,
    FEATURES,
    EVIDENCE,
    WITHHELD,
    EVIDENCE_SECRETS,
    EVIDENCE_SECRET_RELOADS,
];

/// Handles that are used for every event.
pub struct Handles {
    /// Events delivered, by channel.
    pub published: [Counter; 2],
    /// Lag, by channel.
    pub lag: [Histogram; 2],
    /// Notices, by kind.
    pub notices: [Counter; 5],
    /// States passed over.
    pub conflated: Counter,
}

impl Handles {
    /// Makes them; every series is there from the start.
    pub fn new() -> Self {
        let channels = [Channel::Sse, Channel::Ws].map(Channel::as_str);
        // No client yet, which is a value too.
        channels.iter().for_each(|channel| CLIENTS.shift(&[channel], 0.0));
        Self {
            published: channels.map(|c| PUBLISHED.counter_handle(&[c])),
            lag: channels.map(|c| LAG.histogram_handle(&[c])),
            notices: Notice::ALL.map(|reason| GAPS.counter_handle(&[reason.as_str()])),
            conflated: CONFLATED.counter_handle(&[]),
        }
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::new()
    }
}

/// The gauge of clients on a channel.
pub fn clients(channel: Channel) -> Gauge {
    CLIENTS.gauge_handle(&[channel.as_str()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanitise::Rejection;

    #[test]
    fn values_of_labels_are_those_of_the_code() {
        assert_eq!(REJECTIONS, Rejection::ALL.map(Rejection::as_str));
        assert_eq!(GAPS.values[0], Notice::ALL.map(Notice::as_str));
        assert_eq!(CHANNELS, [Channel::Sse, Channel::Ws].map(Channel::as_str));
    }

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}
