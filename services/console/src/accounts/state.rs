//! Accounts, put together: what handlers need of them, and the tasks behind them.

use super::{
    audit, identity::Identity, keys::Keys, limits::Limits, password::Passwords, provider::Oidc, sessions::Sessions,
    users::Users,
};
use crate::{config::Config, metrics, store::Database};
use agentforge_access::Role;
use agentforge_config::ExposeSecret;
use agentforge_door::{Audit, Door};
use agentforge_jetstream::Nats;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

/// Between two rounds of forgetting.
const UPKEEP: Duration = Duration::from_secs(10);
/// The user of a developer's machine.
const DEV_USER: &str = "admin";

/// Accounts and what handlers need of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) users: Users,
    pub(super) sessions: Sessions,
    pub(super) passwords: Passwords,
    pub(super) keys: Keys,
    pub(super) identity: Identity,
    pub(super) door: Door,
    pub(super) limits: Limits,
    pub(super) audit: Audit,
    pub(super) access_ttl: Duration,
    pub(super) session_ttl: Duration,
    pub(super) is_secure: bool,
    /// Where people reach the console; `None`: the address that the request names.
    pub(super) public_url: Option<Url>,
    /// What pages are given with the session.
    pub(super) settings: Value,
    pub(super) oidc: Option<Oidc>,
    pub(super) dev_link: Option<String>,
}

impl Accounts {
    /// Of these settings. Takes the time of one check of a password.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(config: &Config, database: Database, keys: Keys, nats: Nats) -> Result<Self, String> {
        let upstreams = &config.upstreams;
        let settings = json!({
            "env": config.common.env,
            "version": env!("CARGO_PKG_VERSION"),
            "grafana_url": config.grafana.as_ref().map(Url::as_str),
            "orchestrator": upstreams.orchestrator.is_some(),
            "broadcaster": upstreams.broadcaster.is_some(),
            "tactical": upstreams.tactical.is_some(),
            "exporter": upstreams.exporter.is_some(),
            "syncdaemon": upstreams.syncdaemon.is_some(),
            "prometheus": upstreams.prometheus.is_some(),
            "alertmanager": upstreams.alertmanager.is_some(),
        });
        Ok(Self(Arc::new(Inner {
            users: Users(database.clone()),
            sessions: Sessions::new(database),
            passwords: Passwords::new()?,
            identity: Identity::new(keys.clone()),
            keys,
            limits: Limits::new(config),
            audit: Audit::new(nats, config.common.env.clone(), config.door.clone(), audit::CALLS),
            door: config.door.clone(),
            access_ttl: config.access_ttl,
            session_ttl: config.session_ttl,
            is_secure: config.is_secure(),
            public_url: config.public_url.clone(),
            settings,
            oidc: config.oidc.clone().map(Oidc::new).transpose().map_err(|e| e.to_string())?,
            dev_link: config.dev_link.as_ref().map(|link| link.expose_secret().to_owned()),
        })))
    }

    /// Who a caller is, for the services behind the console.
    pub fn identity(&self) -> Identity {
        self.0.identity.clone()
    }

    /// Makes the link of a developer's machine, and forgets what is over, until the stop.
    pub async fn keep(self, stop: CancellationToken) {
        let mut link = self.0.dev_link.clone();
        loop {
            if let Some(token) = &link
                && self.first_link(token).await.is_ok()
            {
                link = None;
            }
            self.0.limits.upkeep();
            match self.0.sessions.upkeep().await {
                Ok(count) => metrics::SESSIONS.set(&[], count as f64),
                // Readiness says it.
                Err(error) if error.is_retryable() => {}
                Err(error) => warn!(error = &error as &dyn std::error::Error, "old sessions cannot be removed"),
            }
            // A developer waits for the link.
            let wait = if link.is_some() { Duration::from_millis(100) } else { UPKEEP };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn first_link(&self, token: &str) -> Result<(), crate::store::Error> {
        let users = &self.0.users;
        if users.get(DEV_USER).await?.is_none() {
            users.add(DEV_USER, Role::Admin, None).await?;
        }
        users.link(DEV_USER, token).await
    }
}
