//! Marks that the last process did not write, restored from the stream itself: messages in it were published.
//!
//! The stream remembers a message's id for a while only; published once more after that, a job that still waits for
//! its worker would be in the queue twice. So the newest messages are read before anything is published.

use super::tail::messages;
use crate::app::App;
use crate::transition::Change;
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::time::Micros;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use futures_util::TryStreamExt;

/// Publishes that may be unmarked at once: in flight, waiting for their commit, and in it; rounded up. As far as
/// that the scan goes back behind the newest mark.
const UNMARKED_MAX: u64 = 16_384;
/// Messages read at most if no mark says where to begin.
const SCANNED_MAX: u64 = 2 * UNMARKED_MAX;
/// Marks of one commit.
const CHUNK: usize = 256;

/// Marks the jobs that are accepted in the database and are in `swarm_jobs`; returns how many.
pub(super) async fn make(app: &App, nats: &Nats) -> Result<usize, String> {
    let waiting = app.waiting().await.map_err(|e| e.to_string())?;
    if waiting.due.iter().all(|(_, n)| *n == 0) {
        return Ok(0);
    }
    let stream = nats.jetstream().get_stream(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
    let state = &stream.cached_info().state;
    let newest_mark = app.newest_mark().await.map_err(|e| e.to_string())?;
    let Some(first) = begin(state.first_sequence, state.last_sequence, newest_mark) else { return Ok(0) };
    let found: Vec<_> = messages(&stream, first, state.last_sequence)
        .try_filter_map(async |message| Ok(attempt_of(&message)))
        .try_collect()
        .await?;
    let mut made = 0;
    for chunk in found.chunks(CHUNK) {
        let at = Micros::now();
        let mark = |(job, attempt, stream_seq): &(JobId, Attempt, i64)| {
            (*job, Change::Queued { attempt: *attempt, stream_seq: *stream_seq, at })
        };
        let marks = app.apply_reports(chunk.iter().map(mark).collect(), vec![]).await.map_err(|e| e.to_string())?;
        made += marks.iter().filter(|mark| mark.is_ok()).count();
    }
    Ok(made)
}

/// The first message to read; `None` where there is none.
fn begin(first: u64, last: u64, newest_mark: Option<u64>) -> Option<u64> {
    // A mark beyond the end is of a stream that is gone.
    let marked = newest_mark.filter(|mark| *mark <= last);
    let from = match marked {
        Some(mark) => (mark + 1).saturating_sub(UNMARKED_MAX),
        None => (last + 1).saturating_sub(SCANNED_MAX),
    };
    let from = from.max(first).max((last + 1).saturating_sub(SCANNED_MAX)).max(1);
    (from <= last).then_some(from)
}

pub(super) fn attempt_of(message: &StreamMessage) -> Option<(JobId, Attempt, i64)> {
    let id = message.headers.get(NATS_MESSAGE_ID).map(|v| v.as_str()).unwrap_or_default();
    let (job, attempt) = read(id)?;
    Some((job, attempt, i64::try_from(message.sequence).ok()?))
}

/// Job and attempt of `<job>:<attempt>` or `<job>:<attempt>:r<n>`.
fn read(id: &str) -> Option<(JobId, Attempt)> {
    let mut parts = id.split(':');
    let job = parts.next()?.parse().ok()?;
    let attempt = Attempt::new(parts.next()?.parse().ok()?)?;
    parts.next().is_none_or(|rest| rest.starts_with('r')).then_some((job, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_attempts_are_read_and_no_others() {
        let job = JobId::generate();
        assert_eq!(read(&format!("{job}:3")), Some((job, Attempt::new(3).unwrap())));
        assert_eq!(read(&format!("{job}:1:r2")), Some((job, Attempt::FIRST)));
        for other in ["", "x", "x:1", &job.to_string(), &format!("{job}:0"), &format!("{job}:1:2:started")] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn the_scan_goes_as_far_back_as_marks_may_be_missing() {
        assert_eq!(begin(1, 0, None), None);
        assert_eq!(begin(5, 10, None), Some(5));
        assert_eq!(begin(1, 100_000, None), Some(100_001 - SCANNED_MAX));
        assert_eq!(begin(1, 20_000, Some(19_000)), Some(19_001 - UNMARKED_MAX));
        assert_eq!(begin(19_500, 20_000, Some(19_000)), Some(19_500));
        assert_eq!(begin(1, 50, Some(1_000_000)), Some(1), "the stream was recreated");
        assert_eq!(begin(1, 1_000_000, Some(3)), Some(1_000_001 - SCANNED_MAX), "bounded");
    }
}
