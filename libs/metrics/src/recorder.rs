//! The process's one recorder: installed once, extended by catalogues any number of times.
//!
//! The Prometheus recorder wants its buckets when it is built. Histograms that are declared after
//! the first install therefore get a recorder of their own behind the same global one, so that a
//! process may start services one by one. Rendering joins them.

use crate::metric::combinations;
use crate::{Kind, Metric, Unit, withdrawn};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Buckets of an undeclared histogram (a library's): seconds.
const UNDECLARED_BUCKETS: &[f64] = crate::buckets::REQUEST_SECONDS;

/// Renders the process's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Option<Arc<Shared>>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

static HANDLE: OnceLock<Handle> = OnceLock::new();

/// Installs the process's recorder with the buckets of `catalogue`, describes every metric and
/// starts counters and histograms at zero whose series are known beforehand. Further calls add what is new and
/// return the same handle. If another library installed a recorder first, ours stays empty.
pub fn install(catalogue: &[&[Metric]]) -> Handle {
    let handle = HANDLE.get_or_init(|| {
        let shared = Arc::new(Shared::new(catalogue));
        if metrics::set_global_recorder(Front(shared.clone())).is_ok() {
            shared.process.describe();
        }
        Handle(Some(shared))
    });
    if let Some(shared) = &handle.0 {
        shared.declare(catalogue);
    }
    handle.clone()
}

/// Decides that the process records nothing: each handle is one that does nothing, and the page is empty. The
/// first of this and [`install`] holds for the life of the process.
pub fn record_nothing() -> Handle {
    HANDLE.get_or_init(|| Handle(None)).clone()
}

impl Handle {
    /// The metrics in the Prometheus text format, families sorted by name; process_* is collected
    /// now. Reads /proc, which takes well under a millisecond.
    pub fn render(&self) -> String {
        let Some(shared) = &self.0 else { return String::new() };
        shared.process.collect();
        let mut text = shared.main_handle.render();
        for late in shared.late.read().unwrap_or_else(PoisonError::into_inner).iter() {
            text.push_str(&late.handle.render());
        }
        // Families are separated by an empty line; the recorder gives them in random order.
        let mut families: Vec<&str> = text.split("\n\n").filter(|family| !family.is_empty()).collect();
        families.sort_by_key(|family| family.lines().find_map(|line| line.strip_prefix("# TYPE ")));
        let mut out = String::with_capacity(text.len() + 1);
        for family in families {
            match withdrawn::any().then(|| withdrawn::without(family)) {
                None => out.push_str(family),
                Some(Some(shown)) => out.push_str(&shown),
                Some(None) => continue,
            }
            out.push_str("\n\n");
        }
        out
    }

    /// Moves observations into their buckets. Call it every few seconds: between calls each
    /// observation takes memory.
    pub fn upkeep(&self) {
        let Some(shared) = &self.0 else { return };
        shared.main_handle.run_upkeep();
        for late in shared.late.read().unwrap_or_else(PoisonError::into_inner).iter() {
            late.handle.run_upkeep();
        }
    }
}

struct Shared {
    main: PrometheusRecorder,
    main_handle: PrometheusHandle,
    late: RwLock<Vec<Late>>,
    declared: Mutex<BTreeMap<&'static str, Metric>>,
    process: metrics_process::Collector,
}

/// Histograms declared after the first install.
struct Late {
    names: Vec<&'static str>,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Shared {
    fn new(catalogue: &[&[Metric]]) -> Self {
        let main = build(catalogue.iter().flat_map(|list| list.iter()));
        let main_handle = main.handle();
        let mut declared = BTreeMap::new();
        for metric in catalogue.iter().flat_map(|list| list.iter()) {
            declared.entry(metric.name).or_insert(*metric);
        }
        let shared = Self {
            main,
            main_handle,
            late: RwLock::default(),
            declared: Mutex::default(),
            process: metrics_process::Collector::default(),
        };
        declared.values().for_each(|metric| shared.start(metric));
        *shared.declared.lock().unwrap_or_else(PoisonError::into_inner) = declared;
        shared
    }

    fn declare(&self, catalogue: &[&[Metric]]) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: BTreeMap<&'static str, Metric> = BTreeMap::new();
        for metric in catalogue.iter().flat_map(|list| list.iter()) {
            if !declared.contains_key(metric.name) {
                new.entry(metric.name).or_insert(*metric);
            }
        }
        if new.is_empty() {
            return;
        }
        self.add_late(&new);
        new.values().for_each(|metric| self.start(metric));
        declared.extend(new);
    }

    fn add_late(&self, new: &BTreeMap<&'static str, Metric>) {
        let histograms = new.values().filter(|metric| matches!(metric.kind, Kind::Histogram(_)));
        // One that was recorded before it was declared keeps its place: a family may appear only once.
        let rendered = self.main_handle.render();
        let names: Vec<_> = histograms
            .map(|metric| metric.name)
            .filter(|name| !rendered.contains(&format!("# TYPE {name} ")))
            .collect();
        if names.is_empty() {
            return;
        }
        let recorder = build(names.iter().filter_map(|name| new.get(name)));
        let late = Late { names, handle: recorder.handle(), recorder };
        self.late.write().unwrap_or_else(PoisonError::into_inner).push(late);
    }

    /// Describes a metric and makes the series show from the start that are known beforehand.
    fn start(&self, metric: &Metric) {
        let name = KeyName::from_const_str(metric.name);
        let known = if metric.is_closed() { combinations(&[], metric.values) } else { vec![] };
        let keys = known.iter().map(|labels| metric.key(labels));
        let metadata = Metadata::new("agentforge", metrics::Level::INFO, None);
        let unit = Some(unit_of(metric.unit));
        let help = SharedString::const_str(metric.help);
        match metric.kind {
            Kind::Counter => {
                self.main.describe_counter(name, unit, help);
                keys.for_each(|key| self.main.register_counter(&key, &metadata).increment(0));
            }
            Kind::Gauge => self.main.describe_gauge(name, unit, help),
            Kind::Histogram(_) => self.for_histogram(metric.name, |recorder| {
                recorder.describe_histogram(name, unit, help);
                keys.for_each(|key| drop(recorder.register_histogram(&key, &metadata)));
            }),
        }
    }

    fn for_histogram<T>(&self, name: &str, then: impl FnOnce(&PrometheusRecorder) -> T) -> T {
        let late = self.late.read().unwrap_or_else(PoisonError::into_inner);
        match late.iter().find(|late| late.names.contains(&name)) {
            Some(late) => then(&late.recorder),
            None => then(&self.main),
        }
    }
}

fn build<'a>(metrics: impl Iterator<Item = &'a Metric>) -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new().set_buckets(UNDECLARED_BUCKETS).expect("a constant that is not empty");
    for metric in metrics {
        if let Kind::Histogram(buckets) = metric.kind {
            let buckets = if buckets.is_empty() { UNDECLARED_BUCKETS } else { buckets };
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("buckets are not empty");
        }
    }
    builder.build_recorder()
}

fn unit_of(unit: Unit) -> metrics::Unit {
    match unit {
        Unit::Count | Unit::Ratio => metrics::Unit::Count,
        Unit::Seconds => metrics::Unit::Seconds,
        Unit::Bytes => metrics::Unit::Bytes,
    }
}

/// What the `metrics` facade sees: sends each histogram to the recorder that has its buckets.
struct Front(Arc<Shared>);

impl Recorder for Front {
    fn describe_counter(&self, name: KeyName, unit: Option<metrics::Unit>, help: SharedString) {
        self.0.main.describe_counter(name, unit, help);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<metrics::Unit>, help: SharedString) {
        self.0.main.describe_gauge(name, unit, help);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<metrics::Unit>, help: SharedString) {
        self.0.for_histogram(name.clone().as_str(), |recorder| recorder.describe_histogram(name, unit, help));
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.0.main.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.0.main.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.0.for_histogram(key.name(), |recorder| recorder.register_histogram(key, metadata))
    }
}
