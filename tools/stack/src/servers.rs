//! The NATS servers of `dev`: one, or with `--edge` a site's, a hub's with its gate, and the link between them.
//!
//! Starts the hub before the site and stops it after, and makes the hub's streams of evidence, because a site makes
//! nothing at its hub. Restarts are the keepers' work, and the link is cut and restored on request.

use crate::{
    link::Link,
    nats::{Nats, Role},
    ports::{self, HUB, HUB_MONITOR, LEAF_NODES, NATS, NATS_MONITOR, Ports},
    ready::NatsReady,
    settings,
};
use agentforge_config::{Env, Reader};
use agentforge_jetstream::{
    site_accounts::{SiteAccounts, SiteKey},
    topology::{EvidenceConfig, Maker, ensure_evidence},
};
use agentforge_message_id::Site;
use agentforge_terminal::{Failure, Result};
use async_nats::jetstream;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// For the hub's streams: its JetStream recovers what it has first.
const STREAMS_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// One of our own.
    Own,
    /// One that exists.
    External(&'a str),
    /// A site of this name, and its hub.
    Edge(&'a str),
}

/// The NATS servers that services need: the local one, and that of the hub with `--edge`.
pub struct Servers {
    /// What the services connect to.
    nats: Nats,
    hub: Option<Hub>,
}

struct Hub {
    nats: Nats,
    gate: Nats,
    /// Held for its end.
    _link: Link,
}

impl Servers {
    /// Starts what is wanted and waits until it listens.
    ///
    /// # Errors
    /// A server or the link cannot be started; what was started before is stopped.
    pub async fn start(wanted: Wanted<'_>, data: &Path, ports: Ports, changed: &Arc<Notify>) -> Result<Self> {
        let own = |role| Nats::start(role, data, [ports.of(NATS), ports.of(NATS_MONITOR)], changed.clone());
        match wanted {
            Wanted::External(url) => Ok(Self { nats: Nats::External(url.to_owned()), hub: None }),
            Wanted::Own => Ok(Self { nats: own(Role::Alone).await?, hub: None }),
            Wanted::Edge(site) => {
                let leaf_nodes = SocketAddr::from((Ipv4Addr::LOCALHOST, leaf_port(ports)?));
                let link = Link::open(data, leaf_nodes).await?;
                let key = SiteKey::generate().map_err(anyhow::Error::from)?;
                let (hub, of_site) = Hub::start(site, &key, leaf_nodes, link, data, ports, changed).await?;
                match own(of_site).await {
                    Ok(nats) => Ok(Self { nats, hub: Some(hub) }),
                    Err(failure) => {
                        hub.stop().await;
                        Err(failure)
                    }
                }
            }
        }
    }

    /// For the services.
    pub fn url(&self) -> &str {
        self.nats.url()
    }

    /// For the ready file: what the services use, and the hub.
    pub fn ready(&self) -> (NatsReady, Option<NatsReady>) {
        (self.nats.ready(), self.hub.as_ref().map(|hub| hub.nats.ready()))
    }

    /// Stops what is ours; `tell` is called before each.
    pub async fn stop(self, tell: impl Fn(&str)) {
        if let Nats::Own { .. } = self.nats {
            tell("NATS server");
        }
        self.nats.stop().await;
        if let Some(hub) = self.hub {
            tell("NATS server of the hub");
            hub.stop().await;
        }
    }
}

impl Hub {
    /// Starts the hub, its streams and its gate. Gives what its site's server is, too.
    async fn start(
        site: &str,
        key: &SiteKey,
        leaf_nodes: SocketAddr,
        link: Link,
        data: &Path,
        ports: Ports,
        changed: &Arc<Notify>,
    ) -> Result<(Self, Role)> {
        let inner = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let (of_gate, of_site) = (word()?, word()?);
        let mut sites = SiteAccounts::default();
        sites.add(&Site::new(site).map_err(anyhow::Error::from)?, &key.public).map_err(anyhow::Error::from)?;
        let role = Role::Hub { gate: inner, password: of_gate.clone() };
        let nats = Nats::start(role, data, [ports.of(HUB), ports.of(HUB_MONITOR)], changed.clone()).await?;
        let gate =
            Role::Gate { hub: inner, password: of_gate, leaf_nodes, advertised: link.address(), sites: sites.text() };
        let started = async {
            streams(nats.url()).await?;
            Nats::start(gate, data, [0, 0], changed.clone()).await
        };
        let gate = match started.await {
            Ok(gate) => gate,
            Err(failure) => {
                nats.stop().await;
                return Err(failure);
            }
        };
        let role =
            Role::Site { site: site.to_owned(), link: link.address(), seed: key.seed.clone(), password: of_site };
        Ok((Self { nats, gate, _link: link }, role))
    }

    async fn stop(self) {
        self.gate.stop().await;
        self.nats.stop().await;
    }
}

/// Makes the hub's stream and bucket of evidence.
async fn streams(hub: &str) -> Result {
    let source = (settings::sizes(|key| std::env::var_os(key).is_some_and(|v| !v.is_empty())), Env);
    let mut reader = Reader::new(&source);
    let config = EvidenceConfig::read(&mut reader);
    reader.finish().map_err(|faults| Failure::usage(faults.to_string()))?;
    let js = jetstream::new(async_nats::connect(hub).await.map_err(anyhow::Error::from)?);
    let end = Instant::now() + STREAMS_MAX;
    while let Err(error) = ensure_evidence(&js, &config, true, Maker::Make).await {
        if !error.is_retryable() || Instant::now() > end {
            return Err(Failure::new(format!("the hub's streams of evidence cannot be made: {error}")));
        }
        sleep(TRY_EVERY).await;
    }
    Ok(())
}

/// A password that a server's configuration and an address take as it is: letters and digits, as random as a key.
fn word() -> Result<String> {
    Ok(SiteKey::generate().map_err(anyhow::Error::from)?.seed)
}

/// The server does not report which port for leaf nodes it took, so that one is chosen here.
fn leaf_port(ports: Ports) -> Result<u16> {
    match ports.of(LEAF_NODES) {
        0 => free_port(),
        port => Ok(port),
    }
}

fn free_port() -> Result<u16> {
    ports::free().map_err(|e| Failure::new(format!("there is no free port: {e}")))
}
