//! The program as people and pipelines call it: command lines in, files and exit codes out.
#![allow(clippy::unwrap_used)]

mod alerts;
mod alerts_drift;
mod alerts_pages;
mod bundles;
mod changes;
mod contracts;
mod manifests;
mod our_alerts;
mod own;
mod page;
mod program;
mod seed;
mod support;
mod trend;
mod validators;
