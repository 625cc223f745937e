//! The metric registry: how metrics are declared, recorded, bucketed and documented.
//!
//! A [`Metric`] is declared as a constant in its owner's `metrics.rs`, with its labels in a fixed
//! order. [`install`] sets up the one recorder of the process; [`Handle`] renders it. Recording
//! before any install is harmless and goes nowhere. Nothing here listens on a port.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bounded;
pub mod buckets;
mod catalogue;
mod metric;
mod recorder;
mod withdrawn;

pub use bounded::{Admitted, Bounded, OTHER};
pub use catalogue::{catalogue_markdown, check};
pub use metric::{Kind, Metric, Unit};
pub use metrics::{Counter, Gauge, Histogram};
pub use recorder::{Handle, install, record_nothing};
