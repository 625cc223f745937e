//! How a program speaks to an AgentForge installation: gRPC to the orchestrator, HTTP to every service, and the
//! one view of a job that all of them show.
//!
//! For the command line, benchmarks, demos and tests. Holds no words for people and prints nothing.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod connection;
mod dial;
mod follow;
mod pages;
pub mod rest;
mod status;
mod submit;
pub mod tactical;
pub mod view;

pub use connection::{Authorized, Client, Error, Headers, Options};
pub use dial::{Untrusted, trust};
pub use follow::{NotFinal, Patience};
pub use pages::{PAGE, pages};
pub use status::{cause, is_away, is_rest, retry_after, stable_code, was_refused};
pub use submit::{SubmitError, submit_all};
