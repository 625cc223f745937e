//! Filters of jobs, as messages have them.

use super::convert::{duration, given, moment, state_from};
use crate::app::{CancelSpec, JobQuery, RetrySpec};
use crate::error::Error;
use crate::model::State;
use crate::store::Times;
use agentforge_proto::time::{Micros, duration_from_proto};
use agentforge_proto::v1 as pb;

pub(super) fn retry_spec(r: pb::RetryJobsRequest) -> Result<RetrySpec, Error> {
    Ok(RetrySpec {
        filter: JobQuery {
            mission: given(r.mission),
            queue: given(r.queue),
            tool: given(r.tool),
            states: states(r.states)?,
            submitted_by: given(r.submitted_by),
            error: given(r.error),
            labels: r.labels,
            times: Times {
                created_after: moment!("created_after", r.created_after)?,
                created_before: moment!("created_before", r.created_before)?,
                finished_after: moment!("finished_after", r.finished_after)?,
                finished_before: moment!("finished_before", r.finished_before)?,
            },
            ..JobQuery::default()
        },
        job_ids: r.job_ids,
        rate: r.rate,
        limit: r.limit,
        dry_run: r.dry_run,
        deadline_in: duration!("deadline_in", r.deadline_in)?,
    })
}

pub(super) fn cancel_spec(r: pb::CancelJobsRequest) -> Result<CancelSpec, Error> {
    Ok(CancelSpec {
        filter: JobQuery {
            mission: given(r.mission),
            queue: given(r.queue),
            tool: given(r.tool),
            states: states(r.states)?,
            submitted_by: given(r.submitted_by),
            labels: r.labels,
            times: Times {
                created_after: moment!("created_after", r.created_after)?,
                created_before: moment!("created_before", r.created_before)?,
                ..Times::default()
            },
            ..JobQuery::default()
        },
        job_ids: r.job_ids,
        rate: r.rate,
        limit: r.limit,
        dry_run: r.dry_run,
    })
}

pub(super) fn job_query(r: pb::ListJobsRequest) -> Result<JobQuery, Error> {
    Ok(JobQuery {
        mission: given(r.mission),
        queue: given(r.queue),
        tool: given(r.tool),
        states: states(r.states)?,
        submitted_by: given(r.submitted_by),
        error: given(r.error),
        labels: r.labels,
        times: Times {
            created_after: moment!("created_after", r.created_after)?,
            created_before: moment!("created_before", r.created_before)?,
            finished_after: moment!("finished_after", r.finished_after)?,
            finished_before: moment!("finished_before", r.finished_before)?,
        },
        limit: r.limit,
        cursor: given(r.cursor),
    })
}

fn states(numbers: Vec<i32>) -> Result<Vec<State>, Error> {
    numbers
        .into_iter()
        .map(|n| state_from(n).ok_or_else(|| Error::field("states", format!("there is no state {n}"))))
        .collect()
}
