//! Whether a service is live and ready, kept as named gates that its parts set.
//!
//! Ready: every required gate is open and no stop was asked for. Live: every heartbeat is recent.
//! The state is read by the admin endpoints and by tests; nothing here does I/O.

use crate::metrics;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The readiness of one service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    stop: CancellationToken,
    stopping: AtomicBool,
    gates: Mutex<BTreeMap<&'static str, State>>,
    hearts: Mutex<BTreeMap<&'static str, Arc<Heart>>>,
}

#[derive(Debug, Clone)]
struct State {
    ok: bool,
    required: bool,
    detail: String,
}

#[derive(Debug)]
struct Heart {
    start: Instant,
    last_beat_ms: AtomicU64,
    age_max: Duration,
}

/// One named condition of readiness. Clones set the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    name: &'static str,
}

/// The sign of life of one loop. Clones beat for the same loop.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Heart>);

impl Readiness {
    pub(crate) fn new(service: &'static str, stop: CancellationToken) -> Self {
        let (gates, hearts) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { service, stop, stopping: AtomicBool::new(false), gates, hearts }))
    }

    /// A gate, closed and "starting" until it is set. One that is not required shows in the body
    /// and holds nothing up. The same name again is the same gate.
    pub fn gate(&self, name: &'static str, required: bool) -> Gate {
        let starting = State { ok: false, required, detail: "starting".to_owned() };
        self.0.gates().entry(name).or_insert(starting).required = required;
        Gate { inner: self.0.clone(), name }
    }

    /// A heartbeat that counts as beaten now; without a beat for `age_max` the service is not live.
    pub fn heartbeat(&self, name: &'static str, age_max: Duration) -> Heartbeat {
        let heart = Arc::new(Heart { start: Instant::now(), last_beat_ms: AtomicU64::new(0), age_max });
        self.0.hearts().insert(name, heart.clone());
        Heartbeat(heart)
    }

    /// From now on not ready, regardless of the gates.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Whether callers' work can be done.
    pub fn is_ready(&self) -> bool {
        !self.0.is_stopping() && self.0.gates().values().all(|gate| gate.ok || !gate.required)
    }

    /// Whether every loop showed a sign of life in time.
    pub fn is_live(&self) -> bool {
        self.0.hearts().values().all(|heart| heart.is_beating())
    }

    /// The body of /readyz.
    pub fn ready_body(&self) -> Value {
        let ready = self.is_ready();
        metrics::READY.set(&[self.0.service], if ready { 1.0 } else { 0.0 });
        let gates = self.0.gates();
        let checks: Map<_, _> = gates.iter().map(|(name, gate)| ((*name).to_owned(), gate.body())).collect();
        json!({"ready": ready, "stopping": self.0.is_stopping(), "service": self.0.service, "checks": checks})
    }

    /// The body of /healthz.
    pub fn live_body(&self) -> Value {
        let hearts = self.0.hearts();
        let loops: Map<_, _> = hearts.iter().map(|(name, heart)| ((*name).to_owned(), heart.body())).collect();
        let live = hearts.values().all(|heart| heart.is_beating());
        json!({"live": live, "service": self.0.service, "version": env!("CARGO_PKG_VERSION"), "loops": loops})
    }
}

impl Inner {
    fn gates(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hearts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Heart>>> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst) || self.stop.is_cancelled()
    }
}

impl State {
    fn body(&self) -> Value {
        json!({"ok": self.ok, "required": self.required, "detail": self.detail})
    }
}

impl Heart {
    fn age(&self) -> Duration {
        let last = self.start + Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(last)
    }

    fn is_beating(&self) -> bool {
        self.age() <= self.age_max
    }

    fn body(&self) -> Value {
        json!({
            "ok": self.is_beating(),
            "last_progress_seconds_ago": self.age().as_secs(),
            "limit_seconds": self.age_max.as_secs(),
        })
    }
}

impl Gate {
    /// Opens or closes the gate. The detail is shown to anyone who can reach /readyz: a short,
    /// public text. A change is logged.
    pub fn set(&self, ok: bool, detail: impl Into<String>) {
        let detail = detail.into();
        let changed = {
            let mut gates = self.inner.gates();
            let Some(state) = gates.get_mut(self.name) else {
                return;
            };
            let changed = state.ok != ok;
            (state.ok, state.detail) = (ok, detail.clone());
            changed
        };
        if changed {
            tracing::info!(service = self.inner.service, gate = self.name, ok, detail, "readiness changed");
        }
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        self.inner.gates().get(self.name).is_some_and(|state| state.ok)
    }
}

impl Heartbeat {
    /// Records that the loop made progress now.
    pub fn beat(&self) {
        let now = self.0.start.elapsed().as_millis();
        self.0.last_beat_ms.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness() -> (Readiness, CancellationToken) {
        let stop = CancellationToken::new();
        (Readiness::new("test", stop.clone()), stop)
    }

    #[test]
    fn ready_is_all_required_gates_and_no_stop() {
        let (readiness, stop) = readiness();
        let (database, nats) = (readiness.gate("database", true), readiness.gate("nats", false));
        assert!(!readiness.is_ready(), "a gate starts closed");
        database.set(true, "");
        assert!(readiness.is_ready(), "nats is not required");
        nats.set(true, "connected");
        database.set(false, "locked");
        assert!(!readiness.is_ready());
        let body = readiness.ready_body();
        assert_eq!(body["ready"], false);
        assert_eq!(body["checks"]["database"], json!({"ok": false, "required": true, "detail": "locked"}));
        assert_eq!(body["checks"]["nats"], json!({"ok": true, "required": false, "detail": "connected"}));
        database.set(true, "");
        stop.cancel();
        assert!(!readiness.is_ready(), "a stop closes everything");
    }

    #[test]
    fn the_same_name_is_the_same_gate() {
        let (readiness, _) = readiness();
        let first = readiness.gate("nats", true);
        first.set(true, "");
        assert!(readiness.gate("nats", true).is_open());
        readiness.set_stopping();
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_loop_without_a_beat_is_not_live() {
        let (readiness, _) = readiness();
        let idle = readiness.heartbeat("slow", Duration::from_secs(600));
        let beat = readiness.heartbeat("pull", Duration::from_millis(300));
        assert!(readiness.is_live());
        let start = Instant::now();
        while readiness.is_live() {
            assert!(start.elapsed() < Duration::from_secs(10), "a missing beat is never noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(250), "noticed too early");
        idle.beat();
        assert!(!readiness.is_live(), "another loop's beat does not count");
        assert_eq!(readiness.live_body()["loops"]["pull"]["ok"], false);
        beat.beat();
        assert!(readiness.is_live());
        assert_eq!(readiness.live_body()["live"], true);
    }
}
