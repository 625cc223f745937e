//! How many connections the listeners of this process hold: each its own number, all together what the limit of open
//! files leaves.
//!
//! A part of the files is kept for what the service itself opens: its database, its connection to NATS, its probes.

use agentforge_config::Common;
use rustix::process::{Resource, getrlimit};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Before any settings were read: in tests.
const MAX: usize = 8192;
/// Prometheus and the kubelet need few.
const PROBES_MAX: usize = 64;
/// This part of the open files is kept.
const KEPT_SHARE: usize = 4;
/// And no more than this: no service opens more itself.
const KEPT_MAX: usize = 4096;

static SOCKETS: OnceLock<Sockets> = OnceLock::new();

/// What one listener may hold.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    pub(super) max: usize,
    pub(super) per_address_max: usize,
    /// The places of all listeners together; `None` for those that must always answer.
    pub(super) shared: Option<Arc<Semaphore>>,
}

/// Takes the settings for the listeners of this process. The first call decides.
pub(crate) fn configure(common: &Common) {
    SOCKETS.get_or_init(|| {
        let shared = getrlimit(Resource::Nofile).current.map(|files| {
            let files = usize::try_from(files).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(shared_max(files)))
        });
        Sockets { max: common.connections_max, per_address_max: common.connections_per_address, shared }
    });
}

fn shared_max(files: usize) -> usize {
    let kept = (files / KEPT_SHARE).min(KEPT_MAX);
    (files - kept).clamp(1, Semaphore::MAX_PERMITS)
}

impl Sockets {
    /// For a listener that serves callers.
    pub(super) fn for_callers() -> Self {
        SOCKETS.get().cloned().unwrap_or(Self { max: MAX, per_address_max: MAX / 2, shared: None })
    }

    /// For a listener that must answer regardless of callers: few, its own, out of the files that are kept.
    pub(super) fn for_probes() -> Self {
        Self { max: PROBES_MAX, per_address_max: PROBES_MAX / 2, shared: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_files_is_kept() {
        assert_eq!(shared_max(1024), 768);
        assert_eq!(shared_max(20_000), 15_904);
        assert_eq!(shared_max(1 << 30), (1 << 30) - KEPT_MAX);
        assert_eq!(shared_max(usize::MAX), Semaphore::MAX_PERMITS);
    }
}
