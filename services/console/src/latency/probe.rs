//! One probe: a fresh connection, one GET, the head and a little of the body. Bounded in time and bytes.
//!
//! A redirect is an answer and is not followed. The connection is new each time, so that every sample means the same,
//! and a name is resolved each time, against the rules for outgoing calls: link-local and metadata addresses stay closed
//! also to a name on the list.

use super::stats::Sample;
use super::targets::Target;
use agentforge_egress::{Dialer, Policy};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a body that are read; what is longer is cut off, and the probe is over.
const BODY_MAX: usize = 64 * 1024;

/// Makes probes of a set of targets.
#[derive(Clone, Debug)]
pub struct Prober {
    targets: Arc<[Target]>,
    dialer: Dialer,
    timeout: Duration,
}

impl Prober {
    /// For these targets, which were checked against the list.
    ///
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn new(targets: &[Target], authorities: Option<&PathBuf>, timeout: Duration) -> Result<Self, String> {
        let hosts: Vec<String> = targets.iter().map(Target::host).collect();
        let (policy, _) = Policy::from_entries(hosts.iter().map(String::as_str));
        let dialer = Dialer::new(policy, authorities.map(PathBuf::as_path)).map_err(|e| e.to_string())?;
        Ok(Self { targets: targets.into(), dialer, timeout })
    }

    /// What it may ask.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Asks once. Never longer than the timeout.
    pub async fn probe(&self, target: &Target) -> Sample {
        let (ts, began) = (to_the_millisecond(Timestamp::now()), Instant::now());
        let status = tokio::time::timeout(self.timeout, self.ask(target)).await.ok().flatten();
        Sample::new(ts, began.elapsed().as_secs_f64() * 1_000.0, status)
    }

    async fn ask(&self, target: &Target) -> Option<u16> {
        let place = agentforge_egress::Target::new(&target.url).ok()?;
        let mut connection = self.dialer.connect(&place).await.ok()?;
        let request = Request::builder()
            .method(Method::GET)
            .uri(place.path().clone())
            .header(header::HOST, place.host_header())
            .header(header::USER_AGENT, concat!("agentforge-console/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::new()))
            .ok()?;
        let answer = connection.send(request, BODY_MAX).await.ok()?;
        Some(answer.status.as_u16())
    }
}

/// Two hundred times of each service are sent to every page: digits that say nothing are left out.
pub(super) fn to_the_millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
