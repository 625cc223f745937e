//! An edge site with a hub: real servers, a leaf link that is cut, swallowed and restored.

mod limits;
mod link;
mod separation;

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{EdgeSite, Gate, NatsServer, TcpProxy, eventually};
use std::time::Duration;

/// The site's name and its JetStream domain.
const SITE: &str = "site-a";
/// The leaf reconnects within a second or two, and the probe asks every five seconds.
const NOTICED: Duration = Duration::from_secs(30);

/// A site in edge mode with services at the leaf, and its hub.
struct Site {
    hub: NatsServer,
    /// Held for its end.
    gate: Gate,
    link: TcpProxy,
    /// On the leaf's server.
    stack: Stack,
}

impl Site {
    async fn start(servers: EdgeSite, options: Options) -> Self {
        let EdgeSite { hub, gate, leaf, link } = servers;
        let options = options
            .orchestrator("SITE", SITE)
            .orchestrator("EDGE_MODE", "Yes")
            .orchestrator("EDGE_HUB_DOMAIN", "hub")
            .worker("SITE", SITE)
            .worker("EDGE_MODE", "ON");
        Self { hub, gate, link, stack: Stack::start_on(leaf, options).await }
    }

    fn api(&self) -> Api {
        self.stack.api()
    }
}

/// `edge_link_status` of the site, if the page has it.
async fn link_status(api: &Api) -> Option<f64> {
    let series = format!("edge_link_status{{site=\"{SITE}\"}} ");
    let page = api.text("/metrics").await.ok()?;
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

async fn link_becomes(api: &Api, wanted: f64) {
    eventually(NOTICED, &format!("edge_link_status is {wanted}"), || async {
        let is = link_status(api).await;
        if is == Some(wanted) { Ok(()) } else { Err(is) }
    })
    .await;
}
