//! What operators see: rules, alerts, dashboards, runbooks and traces, held against the running system.
//!
//! Files of `monitoring/` and `docs/runbooks/` are checked by the real tools and against what the services
//! declare; alerts, traces and pages of metrics against real servers and the real binaries.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod alertmanager;
mod cardinality;
mod collector;
mod dashboards;
mod environments;
mod files;
mod idle;
mod live;
mod outages;
mod promql;
mod registry;
mod rules;
mod runbooks;
mod scrape;
mod servers;
mod site;
mod stack;
mod traces;
