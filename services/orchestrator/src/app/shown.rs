//! What callers are shown of jobs, letters and schedules: pages that fit in a message, and sensitive payloads only to those who
//! may see them, with their entry in the audit log before they are shown.
//!
//! Answers to calls that change something are not here: who makes them may see payloads, and the call has its entry.

use super::{App, Page};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::model::{AttemptRecord, Job, Schedule};
use crate::sensitive::{Payload, hide_attempt};
use agentforge_message_id::JobId;
use futures_util::future::try_join_all;
use serde_json::json;
use std::slice;

/// Bytes of jobs in one page; by default gRPC clients refuse messages above 4 MiB.
const PAGE_MAX_BYTES: usize = 3 * 1024 * 1024;

impl App {
    /// Whether nothing is marked sensitive, so that a role's callers all see the same.
    pub(crate) fn shows_all_alike(&self) -> bool {
        self.0.marks.is_empty()
    }

    fn is_sensitive(&self, of: &impl Payload) -> bool {
        let (queue, tool) = of.place();
        self.0.marks.has(&queue, &tool)
    }

    /// Whether the payload is sensitive, and not for this caller.
    pub(super) fn is_hidden(&self, caller: &Caller, of: &impl Payload) -> bool {
        let (queue, tool) = of.place();
        self.0.marks.has(&queue, &tool) && !self.0.marks.shows(caller.role(), &self.1, &queue, &tool)
    }

    /// Records that sensitive payloads are read: as many entries as name them all.
    async fn record_sensitive(&self, caller: &Caller, kind: &str, ids: &[String]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let entries = caller.entry().about(kind, None).with(&json!({ "sensitive": true })).naming(kind, ids);
        // In one commit, or two.
        try_join_all(entries.into_iter().map(|entry| self.0.committer.record(entry))).await.map(drop)
    }

    /// Takes out what the caller may not see, and records what it is shown.
    ///
    /// # Errors
    /// `unavailable`: nothing of it may be shown then.
    pub(super) async fn show<T: Payload>(&self, caller: &Caller, items: &mut [T]) -> Result<(), Error> {
        if self.0.marks.is_empty() {
            return Ok(());
        }
        let mut seen = Vec::new();
        for item in items {
            if self.is_hidden(caller, item) {
                item.hide();
            } else if self.is_sensitive(item) {
                seen.push(item.id());
            }
        }
        self.record_sensitive(caller, T::KIND, &seen).await
    }

    /// The same of one.
    ///
    /// # Errors
    /// As [`App::show`].
    pub(super) async fn shown<T: Payload>(&self, caller: &Caller, mut item: T) -> Result<T, Error> {
        self.show(caller, slice::from_mut(&mut item)).await?;
        Ok(item)
    }

    /// The same of what has an entry already.
    pub(super) fn shown_of_entry<T: Payload>(&self, caller: &Caller, mut item: T) -> T {
        if self.is_hidden(caller, &item) {
            item.hide();
        }
        item
    }

    /// The answer to a submission. Once the job is stored there is one: what cannot be recorded is taken out of it.
    pub(super) async fn shown_answer(&self, caller: &Caller, job: Job) -> Job {
        if !self.is_sensitive(&job) {
            return job;
        }
        let mut hidden = job.clone();
        self.shown(caller, job).await.unwrap_or_else(|_| {
            hidden.hide();
            hidden
        })
    }

    /// Whether each state of a job that a caller watches is to be hidden. If not, the watch is recorded.
    ///
    /// # Errors
    /// As [`App::show`].
    pub(super) async fn begin_watch(&self, caller: &Caller, job: &Job) -> Result<bool, Error> {
        let is_hidden = self.is_hidden(caller, job);
        if !is_hidden && self.is_sensitive(job) {
            self.record_sensitive(caller, Job::KIND, &[Payload::id(job)]).await?;
        }
        Ok(is_hidden)
    }

    /// Refuses a caller that may not have a job's output.
    ///
    /// # Errors
    /// `permission_denied`.
    pub(super) async fn may_read_output(&self, caller: &Caller, job: &Job) -> Result<(), Error> {
        let denied = if self.is_hidden(caller, job) {
            let (queue, tool) = job.place();
            let message = format!(
                "the output of job {} is marked sensitive (tool {tool}, queue {queue}); it needs the role submitter, or a \
                 scope that names what is marked",
                job.spec.id
            );
            Err(Error::new(Code::PermissionDenied, message))
        } else {
            Ok(())
        };
        self.recorded(caller, Job::KIND, Some(&Payload::id(job)), denied).await
    }

    /// The tries at a job as the caller may see them.
    ///
    /// # Errors
    /// As [`App::job`].
    pub(super) async fn shown_attempts(
        &self,
        caller: &Caller,
        id: JobId,
        mut attempts: Vec<AttemptRecord>,
    ) -> Result<Vec<AttemptRecord>, Error> {
        if self.0.marks.is_empty() || attempts.iter().all(|attempt| attempt.error.is_none()) {
            return Ok(attempts);
        }
        let job = self.stored(id).await?;
        if self.is_hidden(caller, &job) {
            attempts.iter_mut().for_each(hide_attempt);
        } else if self.is_sensitive(&job) {
            self.record_sensitive(caller, Job::KIND, &[Payload::id(&job)]).await?;
        }
        Ok(attempts)
    }

    /// One schedule, for its reader.
    ///
    /// # Errors
    /// As [`App::job`].
    pub async fn read_schedule(&self, caller: &Caller, id: &str) -> Result<Schedule, Error> {
        self.shown(caller, self.schedule(id).await?).await
    }

    /// Schedules, by name.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn read_schedules(
        &self,
        caller: &Caller,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<Schedule>, Error> {
        let mut page = self.schedules(limit, cursor).await?;
        self.show(caller, &mut page.items).await?;
        Ok(page)
    }
}

/// Cuts a page so that it fits in one message. At least one job stays.
pub(super) fn cut(mut page: Page<Job>) -> Page<Job> {
    let mut bytes = 0;
    let fits = page.items.iter().take_while(|job| {
        bytes += size(job);
        bytes <= PAGE_MAX_BYTES
    });
    let keep = fits.count().max(1);
    if keep < page.items.len() {
        page.items.truncate(keep);
        // The cursor of a page is its last row's number.
        page.next = page.items.last().map(|j| j.seq.to_string());
    }
    page
}

/// About what a job takes in a message, bytes.
fn size(job: &Job) -> usize {
    const FIXED: usize = 512;
    let labels: usize = job.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
    let error = job.error.as_ref().map_or(0, |e| e.message.len() + e.log_tail.len());
    FIXED + job.args.len() + job.result.as_ref().map_or(0, String::len) + labels + error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{JobRequest, SubmitInput, admit, tests::limits};
    use agentforge_proto::time::Micros;

    fn job(seq: i64, args: &str) -> Job {
        let request = JobRequest { tool: "echo".into(), ..JobRequest::default() };
        let input = SubmitInput { request, ..SubmitInput::default() };
        let mut new = admit(input, &limits(), Micros(1_700_000_000_123_456), None).unwrap();
        std::sync::Arc::make_mut(&mut new.spec).args = args.to_owned();
        Job::accepted(seq, new)
    }

    #[test]
    fn a_page_is_cut_to_what_fits_and_goes_on_from_there() {
        let big = "x".repeat(PAGE_MAX_BYTES / 2);
        let items = (1..=4).rev().map(|seq| job(seq, &big)).collect();
        let page = cut(Page { items, next: None });
        assert_eq!((page.items.len(), page.next.as_deref()), (1, Some("4")));
        let whole = cut(Page { items: vec![job(2, "{}"), job(1, "{}")], next: None });
        assert_eq!((whole.items.len(), whole.next), (2, None));
        assert_eq!(cut(Page { items: vec![], next: None }).items.len(), 0);
    }
}
