//! All that `bench tactical` measured, for people and for scripts.

use super::{
    figures::{Idle, Run},
    stalled::Beside,
};
use crate::machine::Machine;
use agentforge_terminal::{Output, Result};
use serde::Serialize;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of publishing in each round.
    pub seconds: u64,
    /// Of each run.
    pub rounds: u32,
    /// Size of an event's body as it is published, in bytes.
    pub event_bytes: u32,
    /// Floor and product.
    pub runs: Vec<Run>,
    /// Memory of those who only get heartbeats.
    pub idle: Vec<Idle>,
    /// What those who read nothing do to others.
    pub stalled: Vec<Beside>,
    /// The machine that the figures are of.
    pub machine: Machine,
}

impl Report {
    /// Prints the report, as JSON or as tables.
    pub fn print(&self, json: bool) -> Result {
        if json {
            return Output { json }.document(self);
        }
        anstream::println!("{}", self.machine);
        anstream::println!(
            "events of {} bytes, medians of {} rounds of {} s; CPU is the server's, for each delivered event",
            self.event_bytes,
            self.rounds,
            self.seconds
        );
        for run in &self.runs {
            anstream::println!("{run}");
        }
        for idle in &self.idle {
            anstream::println!("{idle}");
        }
        for stalled in &self.stalled {
            anstream::println!("{stalled}");
        }
        Ok(())
    }
}
