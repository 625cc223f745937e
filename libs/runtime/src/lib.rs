//! The chassis of every service: one `main`, one contract, one way to start and stop.
//!
//! Owns the process's globals (subscriber, recorder, TLS provider, signals, exit codes), the
//! supervision of tasks, readiness, the admin endpoints and the listeners. Knows nothing of jobs or
//! of NATS. Several services, or several copies of one, run in one process: each has its own
//! [`Runtime`], all share one [`Process`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod allocator;
mod entry;
mod error;
mod error_text;
mod host;
pub mod http;
mod memory;
mod metrics;
pub mod pages;
pub mod private;
mod process;
mod readiness;
mod ready_file;
mod runtime;
mod scrape;
mod service;
mod signals;
mod supervisor;
mod telemetry;

pub use admin::{admin_router, health_router, serve_metrics};
pub use entry::{main, main_from};
pub use error::{Error, TaskFailure};
pub use host::{Host, Member, run};
pub use http::{Tls, bind, serve_http, serve_https};
pub use metrics::METRICS;
pub use process::Process;
pub use readiness::{Gate, Heartbeat, Readiness};
pub use ready_file::write_ready_file;
pub use runtime::Runtime;
pub use service::{Endpoints, Service};
pub use signals::Signals;
pub use supervisor::{OnEnd, Supervisor};
pub use telemetry::{CommandTrace, check_log_level};
