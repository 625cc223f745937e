//! Whether an endpoint's messages may go out now: its circuit, a pause, and our own egress rules.
//!
//! Shared by its dispatch tasks and its source, which are notified of each change.

use crate::{
    delivery::circuit::{Change, Circuit, Limits, Phase},
    metrics::Meters,
};
use agentforge_metrics::Gauge;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

/// Between checks while an endpoint is paused; the end of a pause is also notified.
const PAUSE_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The circuit and what else holds messages back, with their gauges.
pub struct FlowControl {
    endpoint: String,
    circuit: Mutex<Circuit>,
    gauge: Gauge,
    /// Why the egress rules forbid calling the endpoint, if they do.
    held: Mutex<Option<String>>,
    held_gauge: Gauge,
    /// An operator paused the endpoint.
    paused: AtomicBool,
    paused_gauge: Gauge,
    /// Whether the circuit is open; sent at each change.
    changes: watch::Sender<bool>,
    /// Whether events may stay in their streams while it is open.
    events_may_wait: AtomicBool,
}

impl FlowControl {
    pub fn new(endpoint: &str, limits: Limits, meters: &Meters) -> Self {
        let (gauge, held_gauge, paused_gauge) = (meters.circuit.clone(), meters.held.clone(), meters.paused.clone());
        [&gauge, &held_gauge, &paused_gauge].into_iter().for_each(|gauge| gauge.set(0.0));
        let circuit = Mutex::new(Circuit::new(limits));
        let (changes, events_may_wait) = (watch::Sender::new(false), AtomicBool::new(true));
        let (held, paused) = (Mutex::default(), AtomicBool::new(false));
        let endpoint = endpoint.to_owned();
        Self { endpoint, circuit, gauge, held, held_gauge, paused, paused_gauge, changes, events_may_wait }
    }

    /// Opens it with a probe due: it was open when the last process ended.
    pub fn reopen(&self) {
        self.lock().reopen(Instant::now());
        self.gauge.set(1.0);
        self.changes.send_replace(true);
    }

    /// The endpoint is disabled, or enabled with a closed circuit.
    pub fn set_disabled(&self, is_disabled: bool) {
        self.lock().succeeded();
        self.set_held(None);
        self.gauge.set(if is_disabled { 3.0 } else { 0.0 });
        self.changes.send_replace(false);
    }

    /// What may go out now. While it is paused nothing may, not even a probe.
    pub fn phase(&self) -> Phase {
        if self.is_paused() {
            Phase::Open { until: Instant::now() + PAUSE_CHECK_INTERVAL }
        } else {
            self.lock().phase(Instant::now())
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Pauses or resumes it.
    pub fn set_paused(&self, is_paused: bool) {
        if self.paused.swap(is_paused, Ordering::SeqCst) != is_paused {
            info!(endpoint = self.endpoint, is_paused, "paused or resumed");
            self.paused_gauge.set(if is_paused { 1.0 } else { 0.0 });
            self.changes.send_modify(|_| {});
        }
    }

    /// Notifies of changes; the value says whether the circuit is open.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// Whether events may stay in their streams while it is open.
    pub fn events_may_wait(&self) -> bool {
        self.events_may_wait.load(Ordering::SeqCst)
    }

    /// Sets it, as a check of the streams decided.
    pub fn set_events_may_wait(&self, may: bool) {
        if self.events_may_wait.swap(may, Ordering::SeqCst) != may {
            info!(endpoint = self.endpoint, may, "events may wait in their streams while the circuit is open");
            self.changes.send_modify(|_| {});
        }
    }

    /// A message goes out as the probe.
    pub fn begin_probe(&self) {
        self.lock().begin_probe();
        self.gauge.set(2.0);
    }

    /// The probe ended without an answer.
    pub fn abandon_probe(&self) {
        self.lock().abandon_probe(Instant::now());
        self.changes.send_replace(true);
    }

    /// The egress rules forbid calling the endpoint: its events wait, and probes find out whether they still do.
    pub fn hold(&self, why: String, was_probe: bool) {
        let change = self.lock().held(was_probe, Instant::now());
        self.set_held(Some(why));
        if change.is_some() {
            self.gauge.set(1.0);
            self.changes.send_replace(true);
        }
    }

    /// Why our own rules forbid to call the endpoint, if they do.
    pub fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_held(&self, why: Option<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == why {
            return;
        }
        match &why {
            Some(why) => warn!(endpoint = self.endpoint, why, "the endpoint may not be called; its events wait"),
            None => info!(endpoint = self.endpoint, "the endpoint may be called again"),
        }
        self.held_gauge.set(if why.is_some() { 1.0 } else { 0.0 });
        *held = why;
    }

    /// The endpoint accepted a message.
    pub fn succeeded(&self) {
        self.set_held(None);
        let change = self.lock().succeeded();
        if change == Some(Change::Closed) {
            info!(endpoint = self.endpoint, "the circuit closed");
            self.gauge.set(0.0);
            self.changes.send_replace(false);
        }
    }

    /// An attempt failed.
    pub fn failed(&self, was_probe: bool) {
        self.set_held(None);
        let change = self.lock().failed(was_probe, Instant::now());
        if let Some(Change::Opened { pause }) = change {
            let probe_in_seconds = pause.as_secs_f64();
            warn!(endpoint = self.endpoint, was_probe, probe_in_seconds, "the circuit is open");
            self.gauge.set(1.0);
            self.changes.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
