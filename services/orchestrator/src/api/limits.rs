//! Limits on requests, shared by REST and gRPC. Limits on jobs are in `admission`.
//!
//! Each number has its reason. A gate refuses at once; a budget is waited for. The memory for bodies is the chassis's.

use crate::error::{Code, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body of a REST request and largest gRPC message, bytes: `args` of 1 MiB, escaped or with company.
pub const BODY_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Largest body of a REST batch, bytes.
pub const BATCH_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most submissions of one REST batch; gRPC streams have no bound.
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// A message of gRPC must have arrived in this time; that of bodies is the chassis's, and is the same.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Submissions of one gRPC stream that wait for their commit at once: several full commit groups.
pub const STREAM_INFLIGHT_MAX: usize = 1_024;
/// Their `args` together, bytes; at least one message.
pub const STREAM_INFLIGHT_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Streams (requests) of one gRPC connection at once.
pub const CONNECTION_STREAMS_MAX: u32 = 1_024;
/// Calls of the gRPC listener at once, streams included. That of the REST listener is a setting.
pub const CALLS_MAX: usize = 4_096;
/// Calls at once that need no token, such as watches of health: strangers take no places of callers.
pub const OPEN_CALLS_MAX: usize = 256;

/// Bounds how many requests are served at once. Refuses at once rather than queue.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    free: Arc<Semaphore>,
    max: usize,
    knob: &'static str,
}

impl Gate {
    /// `knob` names the setting that gives `max`, if there is one.
    pub(crate) fn new(max: usize, knob: &'static str) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max, knob }
    }

    /// A place, held until it is dropped.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.free.clone().try_acquire_owned().map_err(|_| {
            let (max, knob) = (self.max, self.knob);
            let knob = if knob.is_empty() { String::new() } else { format!(" ({knob})") };
            let message = format!("{max} requests are served already, the most at once{knob}; try again");
            Error::new(Code::TooManyRequests, message).retry_after(Duration::from_secs(1))
        })
    }
}

/// Bounds the bytes that one stream has under way, in steps of 1 KiB.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    max: u32,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let max = u32::try_from(max_bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    fn steps(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.max)
    }

    /// Waits until `bytes` are free. Takes the whole budget when they are more than that.
    pub(crate) async fn wait(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.free.clone().acquire_many_owned(self.steps(bytes)).await.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_refuses_the_one_too_many_and_names_the_knob() {
        let gate = Gate::new(1, "HTTP_CONCURRENCY");
        let place = gate.enter().unwrap();
        let e = gate.enter().unwrap_err();
        assert_eq!(e.code, Code::TooManyRequests);
        assert!(e.message.contains("HTTP_CONCURRENCY") && e.retry_after.is_some(), "{e}");
        drop(place);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn a_budget_is_given_back() {
        let budget = Budget::new(4096);
        let held = budget.wait(4096).await;
        assert!(tokio::time::timeout(Duration::from_millis(10), budget.wait(1)).await.is_err());
        drop(held);
        // More than all of it is all of it.
        drop(budget.wait(1 << 30).await);
    }
}
