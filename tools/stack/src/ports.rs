//! Which ports `dev` uses. Each is a place in a row, so that a base moves all of them.

use agentforge_terminal::{Failure, Result};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// A port: where it is unless asked otherwise, and its place behind a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The setting that takes it; empty for what is not one of our services.
    pub key: &'static str,
    /// The port when no base is given.
    pub standard: u16,
    /// How far behind `--port-base N`. Taken places stay: scripts count on them.
    pub place: u16,
    /// What listens there, for messages.
    pub what: &'static str,
    /// When it is used.
    pub used: Used,
}

/// When a port is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// Whenever its owner runs.
    Always,
    /// Only where each service is a process: in one process there is one page of metrics.
    InProcesses,
    /// Only where the NATS server is ours.
    WithOwnNats,
    /// Only with a hub.
    WithHub,
}

/// The port of NATS for clients.
pub const NATS: Port = backing(4222, 0, "NATS", Used::WithOwnNats);
/// The monitoring port of NATS.
pub const NATS_MONITOR: Port = backing(8222, 1, "NATS monitoring", Used::WithOwnNats);
/// NATS clients of the hub.
pub const HUB: Port = backing(4223, 9, "NATS of the hub", Used::WithHub);
/// NATS monitoring of the hub.
pub const HUB_MONITOR: Port = backing(8223, 10, "NATS monitoring of the hub", Used::WithHub);
/// Leaf nodes of the hub.
pub const LEAF_NODES: Port = backing(7422, 11, "leaf nodes of the hub", Used::WithHub);
/// Where webhooks go that the environment sends nowhere else.
pub const WEBHOOK_SINK: Port = backing(8003, 17, "webhook sink", Used::Always);
/// What is not one of our services.
pub const BACKING: [Port; 5] = [NATS, NATS_MONITOR, HUB, HUB_MONITOR, LEAF_NODES];

const fn backing(standard: u16, place: u16, what: &'static str, used: Used) -> Port {
    Port { key: "", standard, place, what, used }
}

/// Where the ports are: the standard ones, behind a base, or free ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    base: Option<u16>,
}

impl Ports {
    /// The standard ports, all free ones (base 0), or the base and those after it; `last` is the last place that is taken.
    ///
    /// # Errors
    /// The base leaves no room for all of them.
    pub fn plan(base: Option<u16>, last: u16) -> Result<Self> {
        match base {
            Some(base) if base > u16::MAX - last => {
                Err(Failure::usage(format!("--port-base {base} is too high: {last} ports follow it")))
            }
            base => Ok(Self { base }),
        }
    }

    /// No base: each port is one that is free when it is bound.
    pub fn free() -> Self {
        Self { base: Some(0) }
    }

    /// Where one is; 0 selects a free one.
    pub fn of(self, port: Port) -> u16 {
        match self.base {
            None => port.standard,
            Some(0) => 0,
            Some(base) => base + port.place,
        }
    }

    /// Names every one of these that is taken, before anything is started.
    ///
    /// # Errors
    /// Which ports of what are taken.
    pub fn check(self, wanted: impl IntoIterator<Item = Port>) -> Result {
        let taken: Vec<String> = wanted
            .into_iter()
            .map(|port| (self.of(port), port.what))
            .filter(|(port, _)| *port != 0 && is_taken(*port))
            .map(|(port, what)| format!("{port} ({what})"))
            .collect();
        match taken.as_slice() {
            [] => Ok(()),
            [one] => Err(in_use(&format!("port {one} is"))),
            many => Err(in_use(&format!("ports {} are", many.join(", ")))),
        }
    }
}

/// Where free ports are looked for: above those of well-known services, below those that Linux gives to outgoing
/// connections and for port 0 (32768 and up). So nothing takes one in the moments before its owner binds it.
const GIVEN: std::ops::Range<u16> = 12_000..32_768;

/// A port that was free a moment ago. No two calls of a process give the same one; each process begins elsewhere.
///
/// # Errors
/// None is.
pub fn free() -> std::io::Result<u16> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let many = GIVEN.end - GIVEN.start;
    let begin = || u16::try_from(RandomState::new().build_hasher().finish() % u64::from(many)).unwrap_or_default();
    let next = NEXT.get_or_init(|| AtomicU16::new(begin()));
    (0..many)
        .map(|_| GIVEN.start + next.fetch_add(1, Ordering::Relaxed) % many)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

fn in_use(what: &str) -> Failure {
    Failure::new(format!("{what} taken by another program"))
        .code("port_taken")
        .hint("use free ports with --port-base 0, or others with --port-base N; perhaps `agentforge dev` runs already")
}

/// Asks by binding: nothing is sent to what has the port.
fn is_taken(port: u16) -> bool {
    matches!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), Err(e) if e.kind() == ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gives_ports_in_a_row_and_zero_gives_free_ones() {
        let ports = Ports::plan(Some(20_000), 17).unwrap();
        assert_eq!((ports.of(NATS), ports.of(LEAF_NODES)), (20_000, 20_011));
        assert_eq!(Ports::plan(Some(0), 17).unwrap().of(HUB), 0);
        assert_eq!(Ports::plan(None, 17).unwrap().of(WEBHOOK_SINK), 8003);
        assert!(Ports::plan(Some(65_518), 17).is_ok());
        assert_eq!(Ports::plan(Some(65_519), 17).unwrap_err().exit, agentforge_terminal::USAGE);
    }

    #[test]
    fn free_ports_differ_and_are_none_that_the_system_gives_by_itself() {
        let given: std::collections::BTreeSet<u16> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(given.len(), 50, "{given:?}");
        assert!(given.iter().all(|port| GIVEN.contains(port)), "{given:?}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let standard = held.local_addr().unwrap().port();
        let taken = Port { standard, ..NATS };
        let failure = Ports::plan(None, 17).unwrap().check([taken]).unwrap_err();
        assert!(failure.message.contains(&format!("port {standard} (NATS) is taken")), "{failure}");
        assert!(failure.hint.unwrap().contains("--port-base 0"));
        assert!(Ports::free().check([taken]).is_ok());
    }
}
