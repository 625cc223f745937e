//! What each connection is doing, for its own timer and for the search for a place: silent, at a head, in a request,
//! or between two.
//!
//! Read and written without locks, several times for each request. Times are milliseconds since the process began.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;

/// When a connection ends that is in no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    /// Without a byte of the client.
    pub(super) silent: Duration,
    /// From the first byte of a request to the end of its head.
    pub(super) head: Duration,
    /// After an answer.
    pub(super) between: Duration,
    /// Without a request of a known caller, from the start: no answer to a stranger prolongs it. `None` where
    /// requests need no known caller.
    pub(super) unknown: Option<Duration>,
}

/// What a connection in no request waits for. Ordered: what comes first goes first when places are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The first byte.
    Silent = 0,
    /// The rest of a request's head.
    Head = 1,
    /// The next request.
    Between = 2,
}

/// Shared by the connection, its requests and the places of its listener.
#[derive(Debug)]
pub(super) struct Activity {
    requests: AtomicU32,
    phase: AtomicU8,
    since: AtomicU64,
    began: u64,
    is_known: AtomicBool,
    /// Requests of HTTP/2 share the connection with pings and settings, which are not heads.
    is_multiplexed: AtomicBool,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Activity {
    pub(super) fn new(is_multiplexed: bool) -> Arc<Self> {
        let began = now();
        Arc::new(Self {
            requests: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Silent as u8),
            since: AtomicU64::new(began),
            began,
            is_known: AtomicBool::new(false),
            is_multiplexed: AtomicBool::new(is_multiplexed),
        })
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Silent,
            1 => Phase::Head,
            _ => Phase::Between,
        }
    }

    fn enter(&self, phase: Phase) {
        self.since.store(now(), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Bytes have arrived.
    pub(super) fn heard(&self) {
        let is_head = match self.phase() {
            Phase::Silent => true,
            Phase::Head => false,
            Phase::Between => !self.is_multiplexed.load(Relaxed),
        };
        if is_head && self.requests.load(Relaxed) == 0 {
            self.enter(Phase::Head);
        }
    }

    /// The handshake of TLS is done: what was heard so far was not of a request.
    pub(super) fn secured(&self) {
        self.enter(Phase::Silent);
    }

    /// A request's head is complete; the request lasts as long as what is returned.
    pub(super) fn request(self: &Arc<Self>, is_multiplexed: bool) -> InRequest {
        self.is_multiplexed.store(is_multiplexed, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.enter(Phase::Between);
        InRequest(self.clone())
    }

    /// A request came from a known caller.
    pub(super) fn known(&self) {
        self.is_known.store(true, Relaxed);
    }

    /// What it waits for and since when; `None` in a request.
    pub(super) fn waiting(&self) -> Option<(Phase, u64)> {
        (self.requests.load(Relaxed) == 0).then(|| (self.phase(), self.since.load(Relaxed)))
    }

    /// When it must end unless something happens, and why; `None` in a request.
    pub(super) fn limit(&self, waits: &Waits) -> Option<(Instant, &'static str)> {
        let (phase, since) = self.waiting()?;
        let (wait, reason) = match phase {
            Phase::Silent => (waits.silent, "silent"),
            Phase::Head => (waits.head, "head"),
            Phase::Between => (waits.between, "idle"),
        };
        let at = *START + Duration::from_millis(since) + wait;
        match waits.unknown.filter(|_| !self.is_known.load(Relaxed)) {
            Some(unknown) => {
                let end = *START + Duration::from_millis(self.began) + unknown;
                Some(if end < at { (end, "unknown") } else { (at, reason) })
            }
            None => Some((at, reason)),
        }
    }
}

/// A request that is not answered to its end.
#[derive(Debug)]
pub(super) struct InRequest(Arc<Activity>);

impl Drop for InRequest {
    fn drop(&mut self) {
        // First: a check in between finds a request, not an old wait.
        self.0.since.store(now(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// What a request's handlers may say about its connection; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller(pub(super) Arc<Activity>);

impl Caller {
    /// The caller has shown who it is, so its connection may stay when it is idle.
    pub fn is_known(&self) {
        self.0.known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits {
        silent: Duration::from_secs(60),
        head: Duration::from_secs(10),
        between: Duration::from_secs(180),
        unknown: None,
    };

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit_and_a_request_has_none() {
        let activity = Activity::new(false);
        let left = |activity: &Activity, waits: &Waits| {
            activity.limit(waits).map(|(at, reason)| ((at - Instant::now()).as_secs_f64().round() as u64, reason))
        };
        assert_eq!(left(&activity, &WAITS), Some((60, "silent")));
        activity.heard();
        tokio::time::advance(Duration::from_secs(4)).await;
        // More bytes of the same head do not prolong it.
        activity.heard();
        assert_eq!(left(&activity, &WAITS), Some((6, "head")));
        let (one, two) = (activity.request(false), activity.request(false));
        drop(one);
        assert_eq!(left(&activity, &WAITS), None);
        tokio::time::advance(Duration::from_secs(400)).await;
        drop(two);
        assert_eq!(left(&activity, &WAITS), Some((180, "idle")));
        activity.heard();
        assert_eq!(left(&activity, &WAITS), Some((10, "head")));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_no_heads_and_a_stranger_stays_no_longer_for_its_requests() {
        let activity = Activity::new(true);
        let waits = Waits { unknown: Some(Duration::from_secs(60)), ..WAITS };
        activity.heard();
        drop(activity.request(true));
        tokio::time::advance(Duration::from_secs(20)).await;
        activity.heard();
        drop(activity.request(true));
        let (end, reason) = activity.limit(&waits).unwrap();
        assert_eq!(((end - Instant::now()).as_secs_f64().round() as u64, reason), (40, "unknown"));
        activity.known();
        assert_eq!(activity.limit(&waits).unwrap().1, "idle");
    }
}
