//! The ready file: what runs where, for scripts. Written whole or not at all, and again when a
//! process was restarted.

use agentforge_terminal::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What runs where.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// The NATS server; the site's, with `--edge`.
    pub nats: NatsReady,
    /// The NATS server of the hub, with `--edge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<NatsReady>,
    /// The services, by name.
    pub services: BTreeMap<&'static str, ServiceReady>,
}

/// Where NATS is.
#[derive(Clone, Debug, Serialize)]
pub struct NatsReady {
    /// The URL for clients, nats://….
    pub url: String,
    /// Monitoring; null when the server is not ours.
    pub monitor: Option<String>,
    /// Process id; null when the server is not ours, or between an end and a restart.
    pub pid: Option<u32>,
}

/// Where a service is. Services write the same into their own ready files.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServiceReady {
    /// REST and health.
    pub http: Option<String>,
    /// The address of the gRPC listener, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// The page of metrics.
    pub metrics: Option<String>,
    /// Process id; null between an end and a restart.
    pub pid: Option<u32>,
}

impl Ready {
    /// The base URL of a service's REST.
    pub fn http(&self, service: &str) -> Option<&str> {
        self.services.get(service)?.http.as_deref()
    }

    /// Writes it.
    ///
    /// # Errors
    /// The path cannot be written.
    pub fn write(&self, path: &Path) -> Result {
        let temporary = PathBuf::from(format!("{}.{}.tmp", path.display(), std::process::id()));
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        let written = std::fs::write(&temporary, text + "\n").and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            Failure::new(format!("the ready file {} cannot be written: {e}", path.display()))
        })
    }
}

/// Removes a ready file, so that its addresses are not used.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}
