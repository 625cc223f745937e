//! The NATS servers of `dev`: JetStream in the data directory, kept running on the same ports.
//!
//! One, or with `--edge` three: a hub, its gate, and a site's server that is a leaf node of the gate. Their accounts and
//! what crosses the link are those of `k8s/components/edge`, which hubs and sites are deployed with.

use crate::{
    child::Spec,
    keeper::Keeper,
    locate,
    patience::{Patience, ports_file},
    ready::NatsReady,
    settings::HUB_DOMAIN,
};
use agentforge_terminal::{Failure, Result};
use serde::Deserialize;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Recovery of a large store takes a while.
const START_MAX: Duration = Duration::from_secs(60);
/// For a SIGTERM to be obeyed.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between looks for the ports file.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a hub's gate adds to its configuration, what the gate may at the hub, and what a site adds.
const GATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-gate.conf"));
const HUB: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-hub.conf"));
const MAY_GATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/base/nats/may-gate.conf"));
const SITE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-leaf.conf"));

/// What a server is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// The only one.
    Alone,
    /// The hub of an edge site.
    Hub {
        /// Takes its gate, and no other server.
        gate: SocketAddr,
        /// The gate's.
        password: String,
    },
    /// The gate of a hub.
    Gate {
        /// Where the hub takes it.
        hub: SocketAddr,
        /// The gate's own, at the hub.
        password: String,
        /// Takes leaf nodes.
        leaf_nodes: SocketAddr,
        /// Where they find it: the site's end of the link.
        advertised: SocketAddr,
        /// The accounts of sites.
        sites: String,
    },
    /// The server of an edge site.
    Site {
        /// Its JetStream domain.
        site: String,
        /// Its end of the link.
        link: SocketAddr,
        /// The site's credential at the gate.
        seed: String,
        /// Of its clients, which are the user [`SITE_USER`].
        password: String,
    },
}

/// The user of a site's clients here.
const SITE_USER: &str = "dev";

impl Role {
    /// The name in messages and of the log.
    fn name(&self) -> &'static str {
        match self {
            Self::Alone => "nats-server",
            Self::Hub { .. } => "nats-hub",
            Self::Gate { .. } => "nats-gate",
            Self::Site { .. } => "nats-site",
        }
    }

    /// The folder in the data directory. Streams of other accounts and domains are kept apart.
    fn folder(&self) -> &'static str {
        match self {
            Self::Alone => "nats",
            Self::Hub { .. } | Self::Gate { .. } | Self::Site { .. } => self.name(),
        }
    }

    fn domain(&self) -> Option<&str> {
        match self {
            Self::Alone | Self::Gate { .. } => None,
            Self::Hub { .. } => Some(HUB_DOMAIN),
            Self::Site { site, .. } => Some(site),
        }
    }

    /// For its clients, before the address; empty where they need none.
    fn login(&self) -> String {
        match self {
            Self::Alone | Self::Hub { .. } | Self::Gate { .. } => String::new(),
            Self::Site { password, .. } => format!("{SITE_USER}:{password}@"),
        }
    }

    fn more(&self) -> String {
        match self {
            Self::Alone => String::new(),
            // On this machine all who reach it are its clients; the gate is the one that others reach.
            Self::Hub { gate, password } => format!(
                "leafnodes {{ listen: \"{gate}\" }}\nno_auth_user: services\nauthorization {{ users: [\n  \
                 {{ user: services }}\n  {{ user: gate, password: \"{password}\", allowed_connection_types: [LEAFNODE], \
                 permissions {{\n{MAY_GATE}  }} }}\n] }}\n"
            ),
            Self::Gate { hub, password, leaf_nodes, advertised, sites } => {
                let text = GATE
                    .replace("include \"../nats-sites/sites.conf\"", sites)
                    .replace("include \"nats-hub.conf\"", HUB)
                    .replace("include \"tls-gate.conf\"", "");
                format!(
                    "HUB_LEAF_LISTEN: \"{leaf_nodes}\"\nHUB_LEAF_ADVERTISE: \"{advertised}\"\n\
                     HUB_GATE_URL: \"nats-leaf://gate:{password}@{hub}\"\n{text}"
                )
            }
            Self::Site { link, seed, password, .. } => {
                let users = format!("users: [ {{ user: {SITE_USER}, password: \"{password}\" }} ]");
                let text = SITE
                    .replace("include \"../nats/users.conf\"", &users)
                    .replace("include \"../nats-site/seed.conf\"", &format!("nkey: {seed}"));
                format!("HUB_LEAF_URL: \"nats-leaf://{link}\"\n{text}")
            }
        }
    }
}

/// The server: ours, or one that runs elsewhere.
pub enum Nats {
    /// A server that this program started, and stops.
    Own {
        /// Keeps it running.
        keeper: Keeper,
        /// The URL for clients, nats://….
        url: String,
        /// The URL of the monitoring endpoint, without a path.
        monitor: String,
    },
    /// Of somebody else.
    External(String),
}

impl Nats {
    /// Starts a server and waits until it listens; `ports` are for clients and for monitoring, 0 takes
    /// a free one.
    ///
    /// # Errors
    /// There is no binary, or it does not come up.
    pub async fn start(role: Role, data: &Path, ports: [u16; 2], changed: Arc<Notify>) -> Result<Self> {
        let program = tokio::task::spawn_blocking(locate::nats_server).await.map_err(anyhow::Error::from)??;
        let folder = data.join(role.folder());
        let unwritable = |e| Failure::new(format!("{} cannot be written: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(unwritable)?;
        forget_ports_files(&folder);
        let config = folder.join("nats-server.conf");
        write_private(&config, &configuration(&role, &folder, ports)).map_err(unwritable)?;
        let log = data.join(format!("logs/{}.log", role.name()));
        let spec = Spec {
            name: role.name(),
            program,
            args: ["-c".into(), config.clone().into(), "--ports_file_dir".into(), folder.clone().into()].into(),
            env: Default::default(),
            log: log.clone(),
        };
        let keeper = Keeper::start(spec, STOP_MAX, changed);
        let found = tokio::select! {
            found = listening(&keeper, &folder, &log) => found,
            failure = keeper.failed() => Err(failure),
        };
        let (port, monitor) = match found {
            Ok(found) => found,
            Err(failure) => {
                keeper.stop().await;
                return Err(failure);
            }
        };
        // A restart must come back where the clients look for it.
        write_private(&config, &configuration(&role, &folder, [port, monitor])).map_err(unwritable)?;
        keeper.established(|_| {});
        Ok(Self::Own {
            keeper,
            url: format!("nats://{}127.0.0.1:{port}", role.login()),
            monitor: format!("http://127.0.0.1:{monitor}"),
        })
    }

    /// The URL for clients, nats://….
    pub fn url(&self) -> &str {
        match self {
            Self::Own { url, .. } | Self::External(url) => url,
        }
    }

    /// For the ready file.
    pub fn ready(&self) -> NatsReady {
        match self {
            Self::Own { keeper, url, monitor } => {
                NatsReady { url: url.clone(), monitor: Some(monitor.clone()), pid: keeper.pid() }
            }
            Self::External(url) => {
                NatsReady { url: agentforge_config::without_credentials(url), monitor: None, pid: None }
            }
        }
    }

    /// Stops it if it is ours.
    pub async fn stop(self) {
        if let Self::Own { keeper, .. } = self {
            keeper.stop().await;
        }
    }
}

/// Waits for the ports file, which the server writes when it listens.
async fn listening(keeper: &Keeper, folder: &Path, log: &Path) -> Result<(u16, u16)> {
    #[derive(Deserialize)]
    struct PortsFile {
        nats: Vec<String>,
        monitoring: Vec<String>,
    }
    let pid = keeper.up().await?;
    let mut patience = Patience::new(keeper.name, Some(log), START_MAX);
    loop {
        let seen = ports_file(folder, pid).and_then(|file| std::fs::read(file).ok());
        let seen = seen.and_then(|text| serde_json::from_slice::<PortsFile>(&text).ok());
        let ports = seen.and_then(|p| Some((port_of(p.nats.first()?)?, port_of(p.monitoring.first()?)?)));
        if let Some(ports) = ports {
            return Ok(ports);
        }
        patience.wait(LOOK_EVERY, "it does not listen yet").await?;
    }
}

fn port_of(url: &str) -> Option<u16> {
    url.rsplit_once(':')?.1.trim_end_matches('/').parse().ok()
}

/// Those of earlier runs: a process id may be used again.
fn forget_ports_files(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    for path in entries.filter(|p| p.extension().is_some_and(|e| e == "ports")) {
        let _ = std::fs::remove_file(path);
    }
}

/// A file with credentials: readable only for this user.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    // One of an earlier run may be readable by others.
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn configuration(role: &Role, folder: &Path, [port, monitor]: [u16; 2]) -> String {
    let free = |port: u16| if port == 0 { -1 } else { i32::from(port) };
    // A JSON string is a valid string of the server's configuration too.
    let store = serde_json::Value::from(folder.to_string_lossy().as_ref());
    let domain = role.domain().map(|domain| format!("  domain: \"{domain}\"\n")).unwrap_or_default();
    let jetstream = match role {
        Role::Gate { .. } => String::new(),
        _ => format!("jetstream {{\n  store_dir: {store}\n{domain}}}\n"),
    };
    format!(
        "# Written by `agentforge dev` at each start.\n\
         server_name: agentforge-dev{}\n\
         listen: \"127.0.0.1:{}\"\n\
         http: \"127.0.0.1:{}\"\n\
         {jetstream}{}",
        role.folder().trim_start_matches("nats"),
        free(port),
        free(monitor),
        role.more(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_asked_for_and_known_ones_kept() {
        let text = configuration(&Role::Alone, Path::new("/a b"), [0, 8222]);
        assert!(text.contains("listen: \"127.0.0.1:-1\"") && text.contains("http: \"127.0.0.1:8222\""), "{text}");
        assert!(text.contains("store_dir: \"/a b\"") && !text.contains("domain"), "{text}");
        assert_eq!(port_of("nats://127.0.0.1:4222"), Some(4222));
    }

    #[test]
    fn hub_and_site_have_their_domains_and_meet_at_the_link() {
        let [inner, leaf_nodes, link] = ["127.0.0.1:2", "127.0.0.1:7422", "127.0.0.1:1"].map(|a| a.parse().unwrap());
        let password = || "word".to_owned();
        let hub = configuration(&Role::Hub { gate: inner, password: password() }, Path::new("/h"), [0, 0]);
        assert!(hub.contains("domain: \"hub\"") && hub.contains("listen: \"127.0.0.1:2\""), "{hub}");
        let sites = "\"SITE-pier\" {}".to_owned();
        let gate = Role::Gate { hub: inner, password: password(), leaf_nodes, advertised: link, sites };
        let gate = configuration(&gate, Path::new("/g"), [0, 0]);
        assert!(gate.contains("HUB_LEAF_ADVERTISE: \"127.0.0.1:1\"") && gate.contains("SITE-pier"), "{gate}");
        assert!(!gate.contains("jetstream {") && !gate.contains("include"), "{gate}");
        let site = Role::Site { site: "pier".into(), link, seed: "SU1".into(), password: password() };
        assert_eq!(site.login(), "dev:word@");
        let site = configuration(&site, Path::new("/s"), [0, 0]);
        assert!(site.contains("domain: \"pier\"") && site.contains("nats-leaf://127.0.0.1:1"), "{site}");
        assert!(site.contains("nkey: SU1") && !site.contains("include") && !site.contains("no_auth_user"), "{site}");
    }
}
