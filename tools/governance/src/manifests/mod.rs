//! What manifests must hold before a cluster sees them, for any tree of kustomizations or rendered files.
//!
//! Owns the rules, as values in and faults out; `cli` renders. The tests of this repository's own manifests call the same
//! rules, so each exists once.

mod cli;
pub mod object;
pub mod pods;
pub mod policy;
pub mod quota;
pub mod sources;
pub mod together;

pub use cli::{Args, run};
pub use object::{Object, containers, list, parse, pod_labels, selects, texts, workloads};
