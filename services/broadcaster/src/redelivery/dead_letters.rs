//! Dead letters: listed, read, and redelivered.
//!
//! A dead letter is redelivered by storing it among the due retries of its endpoint, with fresh attempts and the same
//! `webhook-id`; then it is deleted. A process killed in between leaves both, under one id.

use crate::{
    delivery::rate_limit::RateLimiter,
    redelivery::requeue::{self, Refused, Requeue},
    retry::{
        quota::RetryQuota,
        record::{DeadLetter, Record},
        server_clock::ServerClock,
    },
    topology::{
        names::{self, STREAM_DLQ},
        reader::{self, StoredMessage},
    },
};
use agentforge_jetstream::{Nats, publish};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use utoipa::ToSchema;

/// Letters in one answer, and sent again in one request, at most.
pub const PAGE_MAX: usize = 1000;
/// Letters sent again in a second, at most.
pub const RATE_MAX: f64 = 1000.0;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// With this reason.
    pub reason: Option<String>,
}

/// What is to be sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedeliverRequest {
    /// These; then the filter is ignored.
    pub seqs: Vec<u64>,
    /// Those of this endpoint.
    pub endpoint: Option<String>,
    /// Those with this reason.
    pub reason: Option<String>,
    /// Every letter, without a filter.
    pub all: bool,
    /// From this place on.
    pub after: u64,
    /// At most so many; 1000 at most.
    pub limit: Option<usize>,
    /// So many a second; 1000 at most.
    pub rate: Option<f64>,
}

/// What was sent again.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Redelivered {
    /// Put to the due retries.
    pub redelivered: u64,
    /// Not there (any more).
    pub missing: u64,
    /// Letters that can never be sent again; they stay, and those behind them were sent.
    pub refused: Vec<Refused>,
    /// Where to continue; absent when there is nothing after it.
    pub next_after: Option<u64>,
}

/// Why letters cannot be read or sent again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream does not answer.
    #[error(transparent)]
    Walk(#[from] reader::Error),
    /// A letter could not be put to the retries; those before it were.
    #[error("after {done} letters")]
    Publish {
        /// So many were sent again.
        done: u64,
        /// Why no more.
        source: publish::Error,
    },
}

/// The dead letters of one environment. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    nats: Nats,
    env: String,
    clock: Arc<ServerClock>,
    quota: Arc<RetryQuota>,
}

impl DeadLetters {
    /// Of an environment. What is sent again needs a part of the retries' quota.
    pub fn new(nats: Nats, env: &str, clock: Arc<ServerClock>, quota: Arc<RetryQuota>) -> Self {
        Self { nats, env: env.to_owned(), clock, quota }
    }

    /// Letters after place `after`, the oldest first.
    ///
    /// # Errors
    /// [`Error::Walk`].
    pub async fn list(&self, filter: &Filter, after: u64, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let (limit, mut next, mut found) = (limit.min(PAGE_MAX), after + 1, Vec::new());
        while let Some(page) = self.page(filter, &mut next).await? {
            // Without their events, which may be a megabyte each.
            found.extend(page.into_iter().map(|(letter, _)| letter).take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// One letter with its event.
    ///
    /// # Errors
    /// [`Error::Walk`].
    pub async fn read(&self, seq: u64) -> Result<Option<DeadLetter>, Error> {
        let stored = reader::one(&self.nats, STREAM_DLQ, &self.subjects(None), seq).await?;
        Ok(stored.and_then(|s| DeadLetter::read(s.seq, &s.subject, &s.headers, &s.payload, true)))
    }

    /// Sends letters again.
    ///
    /// # Errors
    /// [`Error`]; what was sent before it stays sent.
    pub async fn redeliver(&self, wanted: RedeliverRequest) -> Result<Redelivered, Error> {
        let limit = wanted.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let mut limiter = wanted.rate.map(|rate| RateLimiter::new(rate.clamp(0.01, RATE_MAX)));
        let mut done = Redelivered::default();
        for seq in wanted.seqs.iter().take(limit) {
            match reader::one(&self.nats, STREAM_DLQ, &self.subjects(None), *seq).await? {
                Some(stored) => self.move_back(&stored, &mut limiter, &mut done).await?,
                None => done.missing += 1,
            }
        }
        if !wanted.seqs.is_empty() {
            return Ok(done);
        }
        let filter = Filter { endpoint: wanted.endpoint, reason: wanted.reason };
        let (mut left, mut next) = (limit, wanted.after + 1);
        // One that dies again is behind the end, and is not sent a second time.
        let end = reader::end(&self.nats, STREAM_DLQ).await?;
        while next <= end
            && let Some(page) = self.page(&filter, &mut next).await?
        {
            for (_, stored) in page.iter().filter(|(_, stored)| stored.seq <= end) {
                self.move_back(stored, &mut limiter, &mut done).await?;
                left -= 1;
                if left == 0 {
                    done.next_after = Some(stored.seq);
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    /// Sends one again, then deletes it.
    async fn move_back(
        &self,
        stored: &StoredMessage,
        limiter: &mut Option<RateLimiter>,
        done: &mut Redelivered,
    ) -> Result<(), Error> {
        if let Some(limiter) = limiter {
            sleep_until(limiter.reserve(Instant::now())).await;
        }
        let record = Record::of_headers(Some(&stored.headers));
        match (record, names::endpoint_of(&stored.subject)) {
            (Some(record), Some(endpoint)) => {
                // Another way of the same event: its attempts are counted from zero.
                let record = Record { attempts: 0, origin: format!("{STREAM_DLQ}-{}", stored.seq), ..record };
                let Self { nats, env, clock, quota } = self;
                let sent = Requeue { nats, env, clock, quota }.send("again", endpoint, &record, &stored.payload).await;
                match sent {
                    Ok(_) => done.redelivered += 1,
                    Err(requeue::Error::Never(reason)) => {
                        warn!(endpoint, webhook_id = record.id, reason, "a dead letter cannot be sent again");
                        done.refused.push(Refused { seq: stored.seq, reason });
                        return Ok(());
                    }
                    Err(requeue::Error::Now(source)) => {
                        return Err(Error::Publish { done: done.redelivered, source });
                    }
                }
            }
            _ => done.missing += 1,
        }
        reader::delete(&self.nats, STREAM_DLQ, stored.seq).await?;
        Ok(())
    }

    /// The wanted ones of the next batch, which may be none; `None` at the end.
    async fn page(&self, filter: &Filter, next: &mut u64) -> Result<Option<Vec<(DeadLetter, StoredMessage)>>, Error> {
        let batch = reader::batch(&self.nats, STREAM_DLQ, &self.subjects(filter.endpoint.as_deref()), *next).await?;
        let Some(last) = batch.last() else { return Ok(None) };
        *next = last.seq + 1;
        let wanted = batch.into_iter().filter_map(|stored| {
            let letter = DeadLetter::read(stored.seq, &stored.subject, &stored.headers, &stored.payload, false)?;
            filter.reason.as_ref().is_none_or(|reason| letter.reason == *reason).then_some((letter, stored))
        });
        Ok(Some(wanted.collect()))
    }

    fn subjects(&self, endpoint: Option<&str>) -> String {
        names::dlq(&self.env, endpoint.unwrap_or("*"))
    }
}
