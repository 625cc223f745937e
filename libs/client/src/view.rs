//! What a caller sees of jobs, attempts, dead letters, schedules and agents.
//!
//! The JSON has the names of the REST API. Enums are words, moments RFC 3339, arguments and results
//! JSON as they were given (numbers keep every digit).

mod agent;
mod job;
mod schedule;
mod wire;

pub use agent::AgentView;
pub use job::{
    AttemptView, DeadLetterView, ErrorView, JobView, OutputRefView, RetryView, TemplateView, is_final, parse_state,
    state_word, states,
};
pub use schedule::{ScheduleView, SkippedView};
pub use wire::{Moment, at, between};
