//! One declared metric and how to record it.
//!
//! Label values are given in the order of the declared labels. Asking for a handle costs a lookup
//! and some allocations: code that records per message keeps the handle.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only ever rises; the name ends with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations counted in buckets with these upper bounds, ascending, in the metric's unit.
    Histogram(&'static [f64]),
}

/// The unit of a metric, taken from the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Count,
    /// Seconds (also for timestamps: seconds since 1970).
    Seconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1.
    Ratio,
}

/// One declared metric; a constant in the `metrics.rs` of its owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The full name, such as `agentforge_jobs_submitted_total`.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Its unit, from the name: `_seconds`, `_bytes`, `_ratio` (before `_total`), else a count.
    pub unit: Unit,
    /// The labels' names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for `# HELP` and the catalogue.
    pub help: &'static str,
}

static METADATA: Metadata<'static> = Metadata::new("agentforge", Level::INFO, None);

impl Metric {
    /// Declares a counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: unit_of(name), labels, help }
    }

    /// Declares a gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: unit_of(name), labels, help }
    }

    /// Declares a histogram; `buckets` are upper bounds in its unit, ascending.
    pub const fn histogram(
        name: &'static str,
        buckets: &'static [f64],
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram(buckets), unit: unit_of(name), labels, help }
    }

    /// The counter with these label values, registered if new.
    pub fn counter_handle(&self, label_values: &[&str]) -> Counter {
        debug_assert!(matches!(self.kind, Kind::Counter), "{} is not a counter", self.name);
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(label_values), &METADATA))
    }

    /// The gauge with these label values, registered if new.
    pub fn gauge_handle(&self, label_values: &[&str]) -> Gauge {
        debug_assert!(matches!(self.kind, Kind::Gauge), "{} is not a gauge", self.name);
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(label_values), &METADATA))
    }

    /// The histogram with these label values, registered if new.
    pub fn histogram_handle(&self, label_values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{} is not a histogram", self.name);
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(label_values), &METADATA))
    }

    /// Adds one to a counter.
    pub fn inc(&self, label_values: &[&str]) {
        self.add(label_values, 1);
    }

    /// Adds to a counter.
    pub fn add(&self, label_values: &[&str], amount: u64) {
        self.counter_handle(label_values).increment(amount);
    }

    /// Sets a gauge.
    pub fn set(&self, label_values: &[&str], value: f64) {
        self.gauge_handle(label_values).set(value);
    }

    /// Adds to a gauge; a negative amount lowers it.
    pub fn shift(&self, label_values: &[&str], amount: f64) {
        self.gauge_handle(label_values).increment(amount);
    }

    /// Sets a gauge to the present time, in seconds since 1970.
    pub fn set_now(&self, label_values: &[&str]) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.set(label_values, now.as_secs_f64());
    }

    /// Records an observation in a histogram, in its unit.
    pub fn observe(&self, label_values: &[&str], value: f64) {
        self.histogram_handle(label_values).record(value);
    }

    fn key(&self, label_values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), label_values.len(), "{} has labels {:?}", self.name, self.labels);
        if self.labels.is_empty() {
            return Key::from_static_name(self.name);
        }
        let labels = self.labels.iter().zip(label_values);
        let labels: Vec<Label> = labels.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(self.name, labels)
    }
}

const fn unit_of(name: &str) -> Unit {
    let name = strip_suffix(name.as_bytes(), b"_total");
    if ends_with(name, b"_seconds") {
        Unit::Seconds
    } else if ends_with(name, b"_bytes") {
        Unit::Bytes
    } else if ends_with(name, b"_ratio") {
        Unit::Ratio
    } else {
        Unit::Count
    }
}

const fn ends_with(text: &[u8], end: &[u8]) -> bool {
    if end.len() > text.len() {
        return false;
    }
    let offset = text.len() - end.len();
    let mut index = 0;
    while index < end.len() {
        if text[offset + index] != end[index] {
            return false;
        }
        index += 1;
    }
    true
}

const fn strip_suffix<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    match ends_with(text, end) {
        true => text.split_at(text.len() - end.len()).0,
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_from_names() {
        let cases = [
            ("a_seconds", Unit::Seconds),
            ("a_seconds_total", Unit::Seconds),
            ("a_timestamp_seconds", Unit::Seconds),
            ("a_bytes", Unit::Bytes),
            ("a_ratio", Unit::Ratio),
            ("a_total", Unit::Count),
            ("seconds_left", Unit::Count),
        ];
        for (name, unit) in cases {
            assert_eq!(unit_of(name), unit, "{name}");
        }
    }
}
