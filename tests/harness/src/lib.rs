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

use std::net::TcpListener;

/// A TCP port of 127.0.0.1 that was free a moment ago. Prefer port 0 where the program can tell
/// which port it took; this is for those that cannot.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
