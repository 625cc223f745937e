//! The streams, consumers and buckets of the product: one definition, created or updated, read back.
//!
//! [`plan`] is the definition (pure), [`ensure`] makes the server agree with it. What the server cannot
//! change is refused with expected beside found. No stream is ever deleted here, and what the plan does not
//! speak of (placement, mirrors, an operator's metadata) is left as it is. [`keep`] is for the owner that looks
//! again and again.

mod compare;
mod config;
mod ensure;
mod evidence;
mod plan;
mod room;
mod tactical;

pub use compare::Difference;
pub use config::{EDGE_MODE, Edge, TopologyConfig};
pub use ensure::{Error, Look, Report, ensure, keep};
pub use evidence::{EvidenceConfig, ensure_evidence, ensure_keeping_limits, evidence_plan};
pub use plan::{Plan, PlannedConsumer, events_plan, plan};
pub use room::room;
pub use tactical::{TacticalConfig, tactical_plan};
