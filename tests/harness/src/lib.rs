//! What tests need around the code under test: real servers, faults on demand, and waiting for conditions.
//!
//! Owns the start and the end of every process a test starts; nothing outlives the test process
//! (children get a death signal where the system knows one). Depends on no service.
//! Failures here are panics with what was tried, the last state seen and the log of the process.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod alertmanager;
mod child;
mod cluster;
mod edge;
mod eventually;
mod http;
mod nats;
mod nats_proxy;
mod oidc;
mod pki;
mod postgres;
mod proc;
mod prometheus;
mod provided;
mod proxy;
mod require;
mod runbook;
mod wall_clock;

pub use alertmanager::{Alertmanager, amtool};
pub use child::Signal;
pub use cluster::NatsCluster;
pub use edge::{EdgeSite, Gate, SiteKey, leaf_of, with_gate};
pub use eventually::{Outcome, eventually};
pub use http::{http_get, http_post, http_post_with};
pub use nats::{NatsOptions, NatsServer};
pub use nats_proxy::NatsProxy;
pub use oidc::OidcProvider;
pub use pki::{ClientPem, Pki};
pub use postgres::{Postgres, PostgresOptions};
pub use proc::{Proc, ProcBuilder, cargo_bin};
pub use prometheus::{Prometheus, Series, promtool};
pub use provided::{nats_pinned, nats_server_of, nats_versions, program, python_with};
pub use proxy::TcpProxy;
pub use require::{Right, require, require_nats, require_right};
pub use runbook::Runbook;
pub use wall_clock::WallClock;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// The ports that are given by number: above those of well-known services, below those that Linux gives to outgoing
/// connections and for port 0 (32768 and up).
const GIVEN: std::ops::Range<u16> = 12_000..32_768;

/// A TCP port of 127.0.0.1 that was free a moment ago. Prefer port 0 where the program can tell
/// which port it took; this is for those that cannot. Until it is bound nothing else is given it: the system gives
/// ports of another range by itself, and each process walks through this one from a place of its own.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let many = GIVEN.end - GIVEN.start;
    let next = NEXT.get_or_init(|| {
        let random = RandomState::new().build_hasher().finish() % u64::from(many);
        AtomicU16::new(u16::try_from(random).expect("a place in the range"))
    });
    (0..many)
        .map(|_| GIVEN.start + next.fetch_add(1, Ordering::Relaxed) % many)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("loopback has a free port")
}
