//! Verifies the audit log while the orchestrator runs: a part in each round, so that its cost has a bound, then what is new,
//! and once an hour everything again.
//!
//! Every orchestrator reads all chains, and relies on no other one's word. What it has read is its anchor. Whether pruning
//! is attested and checkpoints agree is left to `agentforge audit log --verify`, which has all entries before it.

use crate::app::App;
use crate::error::Error;
use crate::metrics;
use crate::reconcile::pause;
use agentforge_audit::{Chain, Finding, Follower};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// Entries of a round, over all chains: at most 20 MB from the database, and a tenth of a second of hashing.
const ROUND_ENTRIES_MAX: usize = 20_000;
/// Entries of one read.
const PAGE: u32 = 1_000;
/// After a start.
const FIRST_AFTER: Duration = Duration::from_secs(10);
/// Callers' commits go first.
const PAGE_PAUSE: Duration = Duration::from_millis(50);
/// From the beginning of one lap to the next, unless it takes longer. An entry that was changed after it was verified is
/// found in the next one.
const LAP_EVERY: Duration = Duration::from_secs(3600);
/// Findings of a lap that are logged; the others are counted.
const LOGGED_MAX: u64 = 20;

/// Verifies in rounds until `stop` fires.
///
/// # Errors
/// Never; the type is the supervisor's.
pub(crate) async fn check_loop(app: App, interval: Duration, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut check = Check::new();
    let mut wait = interval.min(FIRST_AFTER);
    metrics::AUDIT_FINDINGS.set(&[], 0.0);
    while pause(&stop, wait).await {
        wait = interval;
        if let Err(e) = check.round(&app, &stop).await {
            warn!(error = &e as &dyn std::error::Error, "the audit log could not be verified; trying again");
        }
    }
    Ok(())
}

/// Where the verification is.
struct Check {
    followers: BTreeMap<i64, Follower>,
    lap: Lap,
    rounds: usize,
}

/// One time over all entries.
#[derive(Debug)]
struct Lap {
    began: Instant,
    findings: u64,
    /// Whether its last entry was reached.
    is_whole: bool,
}

impl Lap {
    fn new() -> Self {
        Self { began: Instant::now(), findings: 0, is_whole: false }
    }
}

impl Check {
    fn new() -> Self {
        Self { followers: BTreeMap::new(), lap: Lap::new(), rounds: 0 }
    }

    async fn round(&mut self, app: &App, stop: &CancellationToken) -> Result<(), Error> {
        let mut chains = app.audit_chains().await?;
        // One that always has more than a round reads keeps the others from nothing.
        self.rounds = self.rounds.wrapping_add(1);
        let first = self.rounds % chains.len().max(1);
        chains.rotate_left(first);
        if self.lap.is_whole && self.lap.began.elapsed() >= LAP_EVERY {
            for chain in &chains {
                if let Some(follower) = self.followers.get_mut(&chain.head.chain) {
                    follower.again(chain);
                }
            }
            self.lap = Lap::new();
        }
        let mut left = ROUND_ENTRIES_MAX;
        for chain in &chains {
            let is_at_the_end = self.follow(app, chain, &mut left, stop).await?;
            if !is_at_the_end {
                return Ok(());
            }
        }
        if !self.lap.is_whole {
            self.lap.is_whole = true;
            debug!(findings = self.lap.findings, "every entry of the audit log was verified");
        }
        // What earlier laps found is over when a whole one finds nothing.
        metrics::AUDIT_FINDINGS.set(&[], self.lap.findings as f64);
        metrics::AUDIT_VERIFIED_AT.set(&[], agentforge_proto::time::Micros::now().0 as f64 / 1e6);
        Ok(())
    }

    /// Verifies the next entries of a chain; says whether it is at the chain's end.
    async fn follow(
        &mut self,
        app: &App,
        chain: &Chain,
        left: &mut usize,
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        let id = chain.head.chain;
        let mut follower = self.followers.get(&id).copied().unwrap_or_else(|| Follower::new(chain));
        if let Some(finding) = follower.resume(chain) {
            self.found(&[finding]);
        }
        self.followers.insert(id, follower);
        loop {
            if *left == 0 {
                return Ok(false);
            }
            let limit = PAGE.min(u32::try_from(*left).unwrap_or(PAGE));
            let page = app.audit_chain(id, follower.at().place, limit).await?;
            *left -= page.len().min(*left);
            let before = follower;
            let mut findings: Vec<Finding> = page.iter().flat_map(|entry| follower.take(entry)).collect();
            let is_last = page.len() < limit as usize;
            if is_last {
                findings.extend(follower.end(&chain.head));
            }
            if !findings.is_empty() {
                // Pruned while it was read: then it is read again, from there on.
                let now = app.audit_chains().await?;
                let base = now.iter().find(|chain| chain.head.chain == id).map_or(chain.base, |chain| chain.base);
                if base.place > before.at().place {
                    return Ok(false);
                }
            }
            metrics::AUDIT_VERIFIED.add(&[], page.len() as u64);
            self.found(&findings);
            self.followers.insert(id, follower);
            if is_last {
                return Ok(true);
            }
            if !pause(stop, PAGE_PAUSE).await {
                return Ok(false);
            }
        }
    }

    fn found(&mut self, findings: &[Finding]) {
        for finding in findings {
            self.lap.findings += 1;
            if self.lap.findings <= LOGGED_MAX {
                error!(%finding, "the audit log is not as it was written");
            }
        }
        if !findings.is_empty() {
            // At once: the rest of the lap may take hours.
            metrics::AUDIT_FINDINGS.set(&[], self.lap.findings as f64);
        }
    }
}
