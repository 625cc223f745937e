//! Queries whose SQL is the same on both databases, written once.
//!
//! Each file is a macro that a store stamps out for its driver: sqlx's types do not let one function serve two drivers.
//! They are the queries that run seldom, or that a person waits for; the hot path is in `sqlite/commit.rs` and
//! `postgres/commit.rs`. Parameters are `$1` in both, and what a driver cannot say the same way is passed in.

mod agents;
mod audit;
mod installation;
mod jobs;
mod listing;
mod lookup;
pub(super) mod operations;
mod parked;
mod pauses;
mod schedules;
mod slo;

pub(super) use agents::agents;
pub(super) use audit::audit;
pub(super) use installation::installation;
pub(super) use jobs::jobs;
pub(super) use listing::{block_with, conditions, listing, rows_of_block};
pub(super) use lookup::lookup;
pub(super) use operations::operations;
pub(super) use parked::parked;
pub(super) use pauses::pauses;
pub(super) use schedules::{KEEP_SCHEDULE, OPEN_JOB, SCHEDULE_BY_ID, schedules};
pub(super) use slo::slo;
