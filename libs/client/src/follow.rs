//! Following a job to its end, over restarts of the orchestrator.

use crate::{connection::Client, status::is_away, view::is_final};
use agentforge_proto::{time::duration_to_proto, v1};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;

/// The server holds one request at most 60 s; less keeps proxies in between content.
const WAIT_STEP: Duration = Duration::from_secs(30);
/// A server that is unavailable for longer than this is not waited for.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Forgives a server that is unavailable for a while, with growing pauses.
#[derive(Default)]
pub struct Patience {
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// The server answered.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Pauses when the error may pass; gives it back when it may not, or when it lasted too long.
    ///
    /// # Errors
    /// The status it was given.
    pub async fn bear(&mut self, status: Status) -> Result<(), Status> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !is_away(&status) || since.elapsed() > AWAY_MAX {
            return Err(status);
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(2));
        sleep(self.pause).await;
        Ok(())
    }
}

/// Why a job that was waited for is not final.
#[derive(Debug)]
pub enum NotFinal {
    /// The server refused, or stayed away.
    Refused(Status),
    /// The time is up.
    StillOpen {
        /// What it is then.
        state: v1::JobState,
        /// The limit of the wait.
        after: Duration,
    },
}

impl Client {
    /// Waits until the job is final and gives it; `limit` bounds the wait, from `began` on. `is_known` when the server
    /// was reached before, so that one that is unavailable now is waited for.
    ///
    /// # Errors
    /// No such job, a server that stays away, or a job that is not final when the time is up.
    pub async fn until_final(
        &self,
        id: &str,
        began: Instant,
        limit: Option<Duration>,
        is_known: bool,
    ) -> Result<v1::Job, NotFinal> {
        let end = limit.map(|limit| began + limit);
        let mut patience = Patience::default();
        let mut seen = is_known;
        loop {
            let step = end.map_or(WAIT_STEP, |end| end.saturating_duration_since(Instant::now()).min(WAIT_STEP));
            let request = v1::GetJobRequest { id: id.to_owned(), wait: Some(duration_to_proto(step)) };
            match self.jobs().get_job(self.request_within(request, step)).await {
                Ok(job) => {
                    let job = job.into_inner();
                    (seen, _) = (true, patience.reset());
                    if is_final(job.state()) {
                        return Ok(job);
                    }
                    if end.is_some_and(|end| Instant::now() >= end) {
                        return Err(NotFinal::StillOpen { state: job.state(), after: limit.unwrap_or_default() });
                    }
                }
                // The first request shows whether the server is there at all; only later ones are patient.
                Err(e) if !seen => return Err(NotFinal::Refused(e)),
                Err(e) => patience.bear(e).await.map_err(NotFinal::Refused)?,
            }
        }
    }
}
