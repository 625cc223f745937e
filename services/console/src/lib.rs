//! The console: what people see of the fleet. Pages, their accounts, and a thin proxy to the services behind them.
//!
//! Owns accounts and sessions, latency samples and the intake board, and no job: it asks the other services over HTTP, with the identity of the caller. Ready
//! means that its database can be used; a service behind it that is unavailable shows on its pages.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accounts;
mod assets;
mod bounds;
mod config;
mod error;
mod headers;
mod intake;
mod jobs;
mod latency;
pub mod metrics;
mod needs;
mod own;
mod problem;
mod proxy;
mod service;
mod settings;
pub mod store;
mod whole;

pub use config::Config;
pub use error::Error;
pub use service::Console;
