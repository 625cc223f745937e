//! Where webhooks go while they are measured: sinks as processes of their own.

use crate::process::{sibling, spawn, until_written};
use agentforge_client::rest;
use agentforge_stack::{child::Child, sink::Stats};
use agentforge_terminal::{Failure, Result};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A sink as a process.
pub struct SinkProcess {
    _child: Child,
    /// Where it listens.
    pub url: String,
}

impl SinkProcess {
    /// Starts it, and waits until it listens.
    pub async fn start(dir: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let ready = dir.join(format!("{name}.json"));
        let _ = std::fs::remove_file(&ready);
        let mut command = sibling("agentforge-stack")?;
        command.arg("webhook-sink").arg("--ready-file").arg(&ready).args(more);
        let log = dir.join(format!("{name}.log"));
        let child = spawn(&command, &log).await?;
        let url = until_written(&ready, name, &log).await?["url"].as_str().unwrap_or_default().to_owned();
        Ok(Self { _child: child, url })
    }

    /// What it counted, or with DELETE what it forgets.
    pub async fn stats(&self, method: &str, path: &str) -> Result<Stats> {
        let failed = |why: String| Failure::new(format!("the sink does not answer: {why}"));
        let (_, text) = rest::call(&self.url, method, path, None, "", STALL_MAX).await.map_err(failed)?;
        serde_json::from_str(&text).map_err(|e| failed(e.to_string()))
    }

    /// Counts from zero.
    pub async fn reset(&self) -> Result {
        self.stats("DELETE", "/").await.map(drop)
    }

    /// Waits for `count` different events.
    pub async fn until(&self, count: u64) -> Result<Stats> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let stats = self.stats("GET", "/").await?;
            if stats.ids >= count {
                return Ok(stats);
            }
            if stats.ids != last {
                (last, moved) = (stats.ids, Instant::now());
            }
            if moved.elapsed() > STALL_MAX {
                return Err(Failure::new(format!(
                    "{} of {count} events arrived, then none for {STALL_MAX:?}",
                    stats.ids
                )));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}
