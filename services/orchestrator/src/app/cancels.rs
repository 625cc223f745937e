//! Many jobs are stopped at once, by their ids or by a filter, at a rate.
//!
//! A walk as a retry of many is (`app/walk.rs`), with the same progress, and as an operation (`app/operations.rs`) it
//! continues without its caller. Running it again is harmless: what was stopped is final, and the fence skips it. A job
//! that was chosen by its state and has another by the time of the commit is left alone.

use super::put_back::{RATE_MAX, rate_of};
use super::walk::{COUNT_PAGE, How, PAGE, Progress, Source, Walk};
use super::{App, JobQuery};
use crate::caller::Caller;
use crate::error::Error;
use crate::model::State;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// Which jobs to stop, as requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelSpec {
    /// These; or, when empty, all that the filter lets through.
    pub job_ids: Vec<String>,
    /// The filter; its states must be given. Its page and cursor are not used.
    pub filter: JobQuery,
    /// Jobs per second; 0: the default, 1,000.
    pub rate: f64,
    /// At most this many; 0: the default, 10,000.
    pub limit: u32,
    /// Counts the jobs that match, and changes none.
    pub dry_run: bool,
}

impl App {
    /// Stops many jobs at a rate, and reports progress.
    ///
    /// # Errors
    /// `invalid_argument` and `permission_denied` at once; `unavailable` as the last item of the stream.
    pub async fn cancel_many(
        &self,
        caller: &Caller,
        spec: CancelSpec,
    ) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
        let walk = self.recorded(caller, "job", None, self.cancel_walk(caller, spec.clone())).await?;
        self.record_start(caller, &spec).await?;
        Ok(walk.progress())
    }

    /// The same, to be taken step by step.
    pub(super) fn cancel_walk(&self, caller: &Caller, spec: CancelSpec) -> Result<Walk, Error> {
        let (source, only) = if spec.job_ids.is_empty() {
            let page = if spec.dry_run { COUNT_PAGE } else { PAGE };
            let filter = self.limited(JobQuery { limit: page, cursor: None, ..spec.filter })?.filter()?;
            let words = "accepted, queued or running";
            if filter.states.is_empty() {
                let message = format!("name job_ids, or states to cancel: {words}");
                return Err(Error::field("states", message));
            }
            if let Some(state) = filter.states.iter().find(|s| s.is_final()) {
                let message = format!("jobs that are {} have ended; expected {words}", state.as_str());
                return Err(Error::field("states", message));
            }
            let only = filter.states.clone();
            (Source::Jobs(Some(filter)), only)
        } else {
            (Source::Ids, Vec::<State>::new())
        };
        let how = How::Cancel { by: caller.name().to_owned(), only: only.into() };
        let rate = rate_of(spec.rate, RATE_MAX)?;
        self.walk(caller, (source, &spec.job_ids), how, (rate, spec.limit), spec.dry_run)
    }
}
