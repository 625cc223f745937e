//! Which ports `dev` uses, and a clear word when one is taken.

use crate::error::{Failure, Result};
use std::net::{Ipv4Addr, TcpListener};

/// The ports; 0 takes a free one.
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
}

/// The highest offset from the base.
const LAST_OFFSET: u16 = 6;

impl Ports {
    /// The standard ports, all free ones (base 0), or the base and those after it.
    ///
    /// # Errors
    /// The base leaves no room for all of them.
    pub fn plan(base: Option<u16>) -> Result<Self> {
        let of = |[nats, monitor, http, grpc, worker_http, metrics, worker_metrics]: [u16; 7]| Self {
            nats,
            monitor,
            http,
            grpc,
            worker_http,
            metrics,
            worker_metrics,
        };
        match base {
            None => Ok(of([4222, 8222, 8080, 50051, 8082, 7777, 7778])),
            Some(0) => Ok(of([0; 7])),
            Some(base) if base <= u16::MAX - LAST_OFFSET => Ok(of([0, 1, 2, 3, 4, 5, 6].map(|offset| base + offset))),
            Some(base) => {
                Err(Failure::usage(format!("--port-base {base} is too high: {} ports follow it", LAST_OFFSET)))
            }
        }
    }

    /// Tells every port that is taken, before anything is started.
    ///
    /// # Errors
    /// Which ports of what are taken.
    pub fn check(&self, own_nats: bool, processes: bool) -> Result {
        let wanted = [
            (self.nats, "NATS", own_nats),
            (self.monitor, "NATS monitoring", own_nats),
            (self.http, "orchestrator HTTP", true),
            (self.grpc, "orchestrator gRPC", true),
            (self.worker_http, "worker HTTP", true),
            (self.metrics, "metrics", true),
            (self.worker_metrics, "worker metrics", processes),
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
        assert_eq!((ports.nats, ports.grpc, ports.worker_metrics), (20_000, 20_003, 20_006));
        assert_eq!(Ports::plan(Some(0)).unwrap().http, 0);
        assert_eq!(Ports::plan(None).unwrap().grpc, 50051);
        assert!(Ports::plan(Some(65_529)).is_ok());
        assert_eq!(Ports::plan(Some(65_530)).unwrap_err().exit, crate::error::USAGE);
    }

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let ports = Ports { grpc: port, ..Ports::plan(Some(0)).unwrap() };
        let failure = ports.check(true, false).unwrap_err();
        assert!(failure.message.contains(&format!("port {port} (orchestrator gRPC) is taken")), "{failure}");
        assert!(failure.hint.unwrap().contains("--port-base 0"));
        let unused = Ports { nats: port, ..Ports::plan(Some(0)).unwrap() };
        assert!(unused.check(false, false).is_ok(), "NATS is elsewhere");
    }
}
