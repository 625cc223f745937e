//! Which ports `dev` uses, and a clear word when one is taken.

use crate::roster::Extra;
use agentforge_terminal::{Failure, Result};
use std::net::{Ipv4Addr, TcpListener};

/// The ports; 0 selects a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// NATS clients.
    pub nats: u16,
    /// NATS monitoring.
    pub monitor: u16,
    /// Orchestrator REST.
    pub http: u16,
    /// Orchestrator gRPC.
    pub grpc: u16,
    /// Worker health.
    pub worker_http: u16,
    /// Metrics: of all services, or with `--processes` of the orchestrator.
    pub metrics: u16,
    /// Metrics of the worker with `--processes`.
    pub worker_metrics: u16,
    /// Syncdaemon health and status.
    pub sync_http: u16,
    /// Metrics of the syncdaemon with `--processes`.
    pub sync_metrics: u16,
    /// NATS clients of the hub, with `--edge`.
    pub hub: u16,
    /// NATS monitoring of the hub, with `--edge`.
    pub hub_monitor: u16,
    /// Leaf nodes of the hub, with `--edge`.
    pub leaf_nodes: u16,
    /// The page of the NATS exporter.
    pub nats_exporter: u16,
    /// Streams and evidence of the tactical API.
    pub tactical_http: u16,
    /// Metrics of the tactical API with `--processes`.
    pub tactical_metrics: u16,
    /// API and health of the broadcaster.
    pub broadcaster_http: u16,
    /// Metrics of the broadcaster with `--processes`.
    pub broadcaster_metrics: u16,
    /// Where webhooks go that nobody sends elsewhere.
    pub webhook_sink: u16,
}

/// How many there are; with a base they follow each other.
const COUNT: u16 = 18;
/// Where they are unless asked otherwise, in the order of the offsets.
const STANDARD: [u16; COUNT as usize] =
    [4222, 8222, 8080, 50051, 8082, 7777, 7778, 8081, 7779, 4223, 8223, 7422, 7780, 8010, 7781, 8002, 7782, 8003];

/// Which of the ports are used.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// NATS is ours.
    pub own_nats: bool,
    /// `--processes`.
    pub processes: bool,
    /// `--edge`.
    pub edge: bool,
    /// `--without`.
    pub without: &'a [Extra],
}

impl Ports {
    /// The standard ports, all free ones (base 0), or the base and those after it.
    ///
    /// # Errors
    /// The base leaves no room for all of them.
    pub fn plan(base: Option<u16>) -> Result<Self> {
        match base {
            None => Ok(Self::of(STANDARD)),
            Some(0) => Ok(Self::of([0; COUNT as usize])),
            Some(base) if base <= u16::MAX - (COUNT - 1) => {
                let mut offsets = 0..COUNT;
                Ok(Self::of(std::array::from_fn(|_| base + offsets.next().unwrap_or_default())))
            }
            Some(base) => Err(Failure::usage(format!("--port-base {base} is too high: {} ports follow it", COUNT - 1))),
        }
    }

    fn of(ports: [u16; COUNT as usize]) -> Self {
        let [
            nats,
            monitor,
            http,
            grpc,
            worker_http,
            metrics,
            worker_metrics,
            sync_http,
            sync_metrics,
            hub,
            hub_monitor,
            leaf_nodes,
            nats_exporter,
            tactical_http,
            tactical_metrics,
            broadcaster_http,
            broadcaster_metrics,
            webhook_sink,
        ] = ports;
        Self {
            nats,
            monitor,
            http,
            grpc,
            worker_http,
            metrics,
            worker_metrics,
            sync_http,
            sync_metrics,
            hub,
            hub_monitor,
            leaf_nodes,
            nats_exporter,
            tactical_http,
            tactical_metrics,
            broadcaster_http,
            broadcaster_metrics,
            webhook_sink,
        }
    }

    /// Tells every port that is taken, before anything is started.
    ///
    /// # Errors
    /// Which ports of what are taken.
    pub fn check(&self, Used { own_nats, processes, edge, without }: Used<'_>) -> Result {
        let runs = |extra| !without.contains(&extra);
        let (sync, tactical) = (runs(Extra::Syncdaemon), runs(Extra::TacticalApi));
        let broadcaster = runs(Extra::Broadcaster);
        let wanted = [
            (self.nats, "NATS", own_nats),
            (self.monitor, "NATS monitoring", own_nats),
            (self.http, "orchestrator HTTP", true),
            (self.grpc, "orchestrator gRPC", true),
            (self.worker_http, "worker HTTP", true),
            (self.metrics, "metrics", true),
            (self.worker_metrics, "worker metrics", processes),
            (self.sync_http, "syncdaemon HTTP", sync),
            (self.sync_metrics, "syncdaemon metrics", sync && processes),
            (self.hub, "NATS of the hub", edge),
            (self.hub_monitor, "NATS monitoring of the hub", edge),
            (self.leaf_nodes, "leaf nodes of the hub", edge),
            (self.nats_exporter, "NATS exporter", own_nats && runs(Extra::NatsExporter)),
            (self.tactical_http, "tactical API", tactical),
            (self.tactical_metrics, "tactical API metrics", tactical && processes),
            (self.broadcaster_http, "broadcaster", broadcaster),
            (self.broadcaster_metrics, "broadcaster metrics", broadcaster && processes),
            (self.webhook_sink, "webhook sink", broadcaster),
        ];
        let taken: Vec<String> = wanted
            .iter()
            .filter(|(port, _, needed)| *needed && *port != 0 && is_taken(*port))
            .map(|(port, name, _)| format!("{port} ({name})"))
            .collect();
        match taken.as_slice() {
            [] => Ok(()),
            [one] => Err(in_use(&format!("port {one} is"))),
            many => Err(in_use(&format!("ports {} are", many.join(", ")))),
        }
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// None is.
pub fn free() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn in_use(what: &str) -> Failure {
    Failure::new(format!("{what} taken by another program"))
        .code("port_taken")
        .hint("use free ports with --port-base 0, or others with --port-base N; perhaps `agentforge dev` runs already")
}

/// Asks by binding: nothing is sent to whoever has the port.
fn is_taken(port: u16) -> bool {
    matches!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), Err(e) if e.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gives_ports_in_a_row_and_zero_gives_free_ones() {
        let ports = Ports::plan(Some(20_000)).unwrap();
        assert_eq!((ports.nats, ports.grpc, ports.leaf_nodes), (20_000, 20_003, 20_011));
        assert_eq!(Ports::plan(Some(0)).unwrap().http, 0);
        assert_eq!(Ports::plan(None).unwrap().grpc, 50051);
        assert!(Ports::plan(Some(65_518)).is_ok());
        assert_eq!(Ports::plan(Some(65_519)).unwrap_err().exit, agentforge_terminal::USAGE);
    }

    const ALONE: Used<'_> = Used { own_nats: true, processes: false, edge: false, without: &[] };

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let ports = Ports { grpc: port, ..Ports::plan(Some(0)).unwrap() };
        let failure = ports.check(ALONE).unwrap_err();
        assert!(failure.message.contains(&format!("port {port} (orchestrator gRPC) is taken")), "{failure}");
        assert!(failure.hint.unwrap().contains("--port-base 0"));
        let unused = Ports { nats: port, ..Ports::plan(Some(0)).unwrap() };
        assert!(unused.check(Used { own_nats: false, ..ALONE }).is_ok(), "NATS is elsewhere");
        let left_out = Ports { tactical_http: port, ..Ports::plan(Some(0)).unwrap() };
        assert!(left_out.check(ALONE).is_err());
        assert!(left_out.check(Used { without: &[Extra::TacticalApi], ..ALONE }).is_ok(), "it does not run");
    }
}
