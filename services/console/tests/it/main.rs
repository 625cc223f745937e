//! The console against its public API and real servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod accounts;
mod behind;
mod crowd;
mod journeys;
mod oidc;
mod pages;
mod proxy;
mod support;
