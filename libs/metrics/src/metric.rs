//! One declared metric and how to record it.
//!
//! Label values are given in the order of the declared labels. Asking for a handle costs a lookup
//! and some allocations: code that records per message keeps the handle.

use crate::withdrawn;
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
    /// Bytes, never multiples such as KiB.
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
    /// The values that each label can have, in the labels' order, where they are a closed set; an empty list
    /// for a label of open values, and no lists at all where every label is such.
    pub values: &'static [&'static [&'static str]],
    /// One sentence for `# HELP` and the catalogue.
    pub help: &'static str,
}

static METADATA: Metadata<'static> = Metadata::new("agentforge", Level::INFO, None);

impl Metric {
    /// Declares a counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: unit_of(name), labels, values: &[], help }
    }

    /// Declares a gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: unit_of(name), labels, values: &[], help }
    }

    /// Declares a histogram; `buckets` are upper bounds in its unit, ascending.
    pub const fn histogram(
        name: &'static str,
        buckets: &'static [f64],
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram(buckets), unit: unit_of(name), labels, values: &[], help }
    }

    /// The same, with the values that its labels can have. A counter or histogram whose labels all have such a list is
    /// on the page from the start, at zero: a series that begins at one never shows a rate.
    pub const fn of(self, values: &'static [&'static [&'static str]]) -> Self {
        Self { values, ..self }
    }

    /// Puts the series on the page whose first labels are `given`, with every value that the others can have:
    /// for a counter or histogram with a label of open values, such as an endpoint, as soon as one is known.
    pub fn begin(&self, given: &[&str]) {
        for labels in combinations(given, self.values.get(given.len()..).unwrap_or_default()) {
            match self.kind {
                Kind::Counter => self.add(&labels, 0),
                Kind::Histogram(_) => drop(self.histogram_handle(&labels)),
                // Zero would be a statement.
                Kind::Gauge => {}
            }
        }
    }

    /// Whether every series that there can be is known beforehand.
    pub(crate) fn is_closed(&self) -> bool {
        self.labels.is_empty()
            || (self.values.len() == self.labels.len() && self.values.iter().all(|values| !values.is_empty()))
    }

    /// The counter with these label values, registered if new.
    pub fn counter_handle(&self, label_values: &[&str]) -> Counter {
        debug_assert!(matches!(self.kind, Kind::Counter), "{} is not a counter", self.name);
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(label_values), &METADATA))
    }

    /// The gauge with these label values, registered if new.
    pub fn gauge_handle(&self, label_values: &[&str]) -> Gauge {
        debug_assert!(matches!(self.kind, Kind::Gauge), "{} is not a gauge", self.name);
        withdrawn::show(self.name, self.labels, label_values);
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

    /// Takes a gauge's series off the page, because what it is about is gone. A later [`Metric::set`] brings it back; a
    /// handle that was made before does not.
    pub fn withdraw(&self, label_values: &[&str]) {
        debug_assert!(matches!(self.kind, Kind::Gauge), "{} is not a gauge", self.name);
        withdrawn::leave_out(self.name, self.labels, label_values);
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

    pub(crate) fn key(&self, label_values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), label_values.len(), "{} has labels {:?}", self.name, self.labels);
        if self.labels.is_empty() {
            return Key::from_static_name(self.name);
        }
        let labels = self.labels.iter().zip(label_values);
        let labels: Vec<Label> = labels.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(self.name, labels)
    }
}

/// Every choice of one value from each list, after `given`.
pub(crate) fn combinations<'a>(given: &[&'a str], lists: &[&[&'a str]]) -> Vec<Vec<&'a str>> {
    lists.iter().fold(vec![given.to_vec()], |begun, list| {
        let with = |start: &Vec<&'a str>| {
            let start = start.clone();
            list.iter().map(move |value| start.iter().copied().chain([*value]).collect::<Vec<_>>())
        };
        begun.iter().flat_map(with).collect()
    })
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
    if ends_with(text, end) { text.split_at(text.len() - end.len()).0 } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_made_once() {
        assert_eq!(combinations(&[], &[]), [Vec::<&str>::new()]);
        assert_eq!(combinations(&["e"], &[&["x", "y"]]), [["e", "x"], ["e", "y"]]);
        let all = combinations(&[], &[&["a", "b"], &["x", "y"]]);
        assert_eq!(all, [["a", "x"], ["a", "y"], ["b", "x"], ["b", "y"]]);
        assert!(combinations(&[], &[&["a"], &[]]).is_empty(), "an open label has no series beforehand");
    }

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
