//! The streams, consumers and buckets of the product: one definition, created or updated, read back.
//!
//! [`plan`] is the definition (pure), [`ensure`] makes the server agree with it. What the server cannot change is
//! refused, with expected and found values. No stream is ever deleted here, and what the plan does not mention
//! (placement, mirrors, an operator's metadata) is left unchanged. [`keep`] is for the owner that checks periodically.

mod compare;
mod config;
mod ensure;
mod evidence;
mod maker;
mod pause;
mod plan;
mod room;
mod tactical;
pub mod webhooks;

pub use compare::Difference;
pub use config::{EDGE_MODE, Edge, TopologyConfig};
pub use ensure::{Error, Inspection, Report, ensure, ensure_by, keep, set_paused};
pub use evidence::{EvidenceConfig, ensure_evidence, ensure_keeping_limits, evidence_plan};
pub use maker::{Maker, NATS_TOPOLOGY};
pub use pause::pause;
pub use plan::{Plan, PlannedConsumer, events_plan, plan};
pub use room::room;
pub use tactical::{TacticalConfig, tactical_plan};
