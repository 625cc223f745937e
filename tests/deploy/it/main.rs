//! The manifests, images and scripts: rendered as a platform team renders them, held against the code, and run.
//!
//! Relies on kubectl for rendering and on the built binaries for what settings, ports and paths there are.
//! Asks no cluster and no registry.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod argo;
mod backup;
mod branches;
mod chart;
mod checks;
mod cluster;
mod defaults;
mod english;
mod environments;
mod images;
mod manifests;
mod measure;
mod nats;
mod old_names;
mod pages;
mod peers;
mod pipelines;
mod pods;
mod policies;
mod promote;
mod quotas;
mod releases;
mod scaling;
mod schemas;
mod services;
mod settings;
mod staging;
mod surfaces;
mod terraform;
mod tilt;
mod tokens;
mod tree;
mod walk;
