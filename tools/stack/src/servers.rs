//! The NATS servers of `dev`: one, or with `--edge` a site's, a hub's and the link between them.
//!
//! Starts the hub before the site and stops it after. Restarts are the keepers' work, and the link is cut and restored
//! on request.

use crate::{
    link::Link,
    nats::{Nats, Role},
    ports::{self, HUB, HUB_MONITOR, LEAF_NODES, NATS, NATS_MONITOR, Ports},
    ready::NatsReady,
};
use agentforge_terminal::{Failure, Result};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};
use tokio::sync::Notify;

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
                let (of_hub, of_site) = (
                    Role::Hub { leaf_nodes, advertised: link.address() },
                    Role::Site { site: site.to_owned(), link: link.address() },
                );
                let hub = Nats::start(of_hub, data, [ports.of(HUB), ports.of(HUB_MONITOR)], changed.clone()).await?;
                match own(of_site).await {
                    Ok(nats) => Ok(Self { nats, hub: Some(Hub { nats: hub, _link: link }) }),
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
            hub.nats.stop().await;
        }
    }
}

/// The server does not report which port for leaf nodes it took, so that one is chosen here.
fn leaf_port(ports: Ports) -> Result<u16> {
    match ports.of(LEAF_NODES) {
        0 => ports::free().map_err(|e| Failure::new(format!("there is no free port: {e}"))),
        port => Ok(port),
    }
}
