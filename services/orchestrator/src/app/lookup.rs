//! What people look up: jobs by the beginning of their ids, single dead letters.

use super::App;
use super::asked::some;
use super::audit::asked;
use super::jobs::job_id;
use super::put_back::LIMIT_DEFAULT;
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::model::DeadLetter;
use crate::store::{DeadLetterFilter, Order};
use agentforge_message_id::JobId;
use serde::Serialize;
use serde_json::json;
use tracing::info;

/// Fewer digits match too much to be meant: ids begin with the time.
const PREFIX_DIGITS_MIN: usize = 4;
/// Digits of a whole id.
const ID_DIGITS: usize = 32;
/// Most ids that a search gives.
const FOUND_MAX: u32 = 10;
/// Dead letters read in one step.
const STEP: u32 = 500;

/// Which dead letters to discard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DiscardSpec {
    /// These, by id or by job; or, when empty, all that the filters let through.
    pub ids: Vec<String>,
    /// Letters of jobs of this mission; empty or none: of all.
    pub mission: Option<String>,
    /// Letters of jobs of this queue; empty or none: of all.
    pub queue: Option<String>,
    /// Letters of this reason, by its word; empty or none: any.
    pub reason: Option<String>,
    /// At most so many; 0 is the default.
    pub limit: u32,
}

impl App {
    /// Ids that begin so, oldest first, at most ten.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn find_jobs(&self, prefix: &str) -> Result<Vec<JobId>, Error> {
        let (from, to) = range_of(prefix)?;
        let mut found = self.store().ids_between(from, to, FOUND_MAX).await?;
        if self.is_scoped() {
            let mut within = Vec::new();
            for id in found {
                within.extend(self.stored(id).await.is_ok().then_some(id));
            }
            found = within;
        }
        Ok(found)
    }

    /// One dead letter, by its id or the latest of this job.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn dead_letter(&self, caller: &Caller, id: &str) -> Result<DeadLetter, Error> {
        let found = self.recorded(caller, "dead_letter", Some(id), self.letter(id).await).await?;
        self.record_read(caller, "dead_letter", &found.id).await?;
        Ok(self.shown_of_entry(caller, found))
    }

    async fn letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let found = self.store().dead_letter(id, id.parse().ok()).await?.filter(|letter| self.has_letter(letter));
        found.ok_or_else(|| Error::new(Code::NotFound, format!("there is no dead letter {id}, nor one of a job {id}")))
    }

    /// Deletes dead letters; says how many. Their jobs stay as they are.
    ///
    /// # Errors
    /// `not_found` for an id without a letter, before anything is deleted; `unavailable`.
    pub async fn discard_letters(&self, caller: &Caller, spec: DiscardSpec) -> Result<u64, Error> {
        let mut seqs = Vec::new();
        for id in &spec.ids {
            seqs.push(self.recorded(caller, "dead_letter", Some(id), self.letter(id).await).await?.seq);
        }
        let limit = if spec.limit == 0 { LIMIT_DEFAULT } else { spec.limit } as usize;
        if spec.ids.is_empty() {
            seqs = self.letters_of(&spec, limit).await?;
        }
        seqs.sort_unstable();
        seqs.dedup();
        let mut discarded = 0;
        // That there were none is recorded too.
        let mut steps: Vec<&[i64]> = seqs.chunks(STEP as usize).collect();
        if steps.is_empty() {
            steps.push(&[]);
        }
        for step in steps {
            let entry = caller.entry().about("dead_letter", None).with(&json!({ "asked": asked(&spec) }));
            discarded += self.order(Order::DiscardLetters(step.to_vec()), entry).await?;
        }
        info!(letters = discarded, "dead letters are discarded");
        Ok(discarded)
    }

    async fn letters_of(&self, spec: &DiscardSpec, limit: usize) -> Result<Vec<i64>, Error> {
        let mut filter = DeadLetterFilter {
            mission: some(spec.mission.as_ref()).map(str::to_owned),
            queue: some(spec.queue.as_ref()).map(str::to_owned),
            reason: some(spec.reason.as_ref()).map(str::to_owned),
            include_redriven: true,
            before: None,
            limit: STEP,
        };
        let mut seqs = Vec::new();
        loop {
            let page = self.store().dead_letters(&filter).await?;
            seqs.extend(page.items.iter().map(|letter| letter.seq));
            match page.next {
                Some(next) if seqs.len() < limit => filter.before = Some(next),
                _ => break,
            }
        }
        seqs.truncate(limit);
        Ok(seqs)
    }
}

/// The first and the last id that begin so.
fn range_of(prefix: &str) -> Result<(JobId, JobId), Error> {
    let digits: String = prefix.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || digits.len() < PREFIX_DIGITS_MIN || digits.len() > ID_DIGITS {
        let message = format!(
            "prefix is {prefix:?}; expected {PREFIX_DIGITS_MIN} to {ID_DIGITS} hexadecimal digits from the beginning of an id"
        );
        return Err(Error::field("prefix", message));
    }
    let padded = |with: char| {
        let id: String = digits.chars().chain(std::iter::repeat(with)).take(ID_DIGITS).collect();
        job_id(&id)
    };
    Ok((padded('0')?, padded('f')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_of_ids_that_begin_so() {
        let (from, to) = range_of("0198C5A2-7d").unwrap();
        assert_eq!(from.to_string(), "0198c5a2-7d00-0000-0000-000000000000");
        assert_eq!(to.to_string(), "0198c5a2-7dff-ffff-ffff-ffffffffffff");
        for bad in ["", "019", "0198x", "0198c5a2-7d1e-7c3a-9f00-0123456789abc"] {
            assert_eq!(range_of(bad).unwrap_err().code, Code::InvalidArgument, "{bad}");
        }
    }
}
