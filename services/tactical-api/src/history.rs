//! Reading the stream from any place, without a consumer: batched direct gets.
//!
//! Owns the request and its answers, and what holes between sequences mean. Keeps nothing.

use crate::event::{Epoch, Event, EventId, Mark, Notice};
use agentforge_jetstream::Nats;
use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use std::{str::FromStr, time::Duration};
use tokio::time::{Instant, timeout_at};

/// How long the answer to one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Approximate bytes of a read of one message; one is returned regardless of its size.
const LOOKUP_BYTES: usize = 64 << 10;

/// Why the stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS did not answer, or not in time.
    #[error("reading the stream {stream}: {reason}")]
    Unavailable {
        /// The name of the stream that was read.
        stream: String,
        /// Why there was no answer, in words.
        reason: String,
    },
}

/// A message as the stream has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where it was published.
    pub subject: String,
    /// The message's sequence in the stream.
    pub seq: u64,
    /// When it was stored, in unix nanoseconds.
    pub stored_unix_ns: i128,
    /// Its headers, those of the answer included.
    pub headers: HeaderMap,
    /// The message's body, as it was published.
    pub payload: Bytes,
}

impl Stored {
    /// When it was stored, in unix milliseconds.
    pub fn stored_unix_ms(&self) -> i64 {
        unix_ms(self.stored_unix_ns)
    }
}

/// A moment in nanoseconds, in milliseconds.
pub fn unix_ms(unix_ns: i128) -> i64 {
    i64::try_from(unix_ns.div_euclid(1_000_000)).unwrap_or_default()
}

/// One answer of the stream to a read.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages in the order of the stream; sequences of deleted ones are missing.
    pub messages: Vec<Stored>,
    /// Nothing is behind them.
    pub is_at_end: bool,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At a sequence, or the next existing one.
    Seq(u64),
    /// At a moment, in unix milliseconds.
    Time(i64),
}

/// Reads up to `count` messages of a filter, of about `bytes_max` bytes together.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn read(
    nats: &Nats,
    stream: &str,
    filter: &str,
    begin: Begin,
    count: usize,
    bytes_max: usize,
) -> Result<Batch, Error> {
    let mut request = json!({"batch": count, "max_bytes": bytes_max, "next_by_subj": filter});
    match begin {
        Begin::Seq(seq) => request["seq"] = seq.into(),
        Begin::Time(ms) => request["start_time"] = start_time(ms).into(),
    }
    gather(nats, stream, &request, count).await
}

/// A time as the server reads it. It counts nanoseconds in 64 bits and mistakes values outside that range, so the first
/// and the last that it knows are used instead; no message is older or newer.
fn start_time(unix_ms: i64) -> String {
    let unix_ms = unix_ms.clamp(0, i64::MAX / 1_000_000);
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// The newest message of a subject.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn last(nats: &Nats, stream: &str, subject: &str) -> Result<Option<Stored>, Error> {
    let request = json!({"last_by_subj": subject});
    Ok(gather(nats, stream, &request, 1).await?.messages.pop())
}

/// A message's place with the moment of its storage; without it when the message is not there any more.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn mark(nats: &Nats, stream: &str, filter: &str, seq: u64) -> Result<Mark, Error> {
    let found = read(nats, stream, filter, Begin::Seq(seq), 1, LOOKUP_BYTES).await?.messages;
    let found = found.first().filter(|found| found.seq == seq);
    Ok(found.map_or(Mark::bare(seq), |found| Mark::of(seq, found.stored_unix_ms())))
}

/// Whether the stream still has what a reader saw at a place, or had it and gave it up by its limits. A
/// server that lost its newest messages gives their sequences to others.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn knows(nats: &Nats, stream: &str, filter: &str, mark: Mark) -> Result<bool, Error> {
    let Some(stored_unix_ms) = mark.stored_unix_ms.filter(|_| mark.seq > 0) else { return Ok(true) };
    let look = |begin| read(nats, stream, filter, begin, 1, LOOKUP_BYTES);
    let there = look(Begin::Seq(mark.seq)).await?.messages;
    if let Some(there) = there.first().filter(|there| there.seq == mark.seq) {
        return Ok(there.stored_unix_ms() == stored_unix_ms);
    }
    // It is gone. What was stored later has a later sequence, or its own was given away.
    let later = look(Begin::Time(stored_unix_ms + 1)).await?.messages;
    Ok(later.first().is_none_or(|later| later.seq > mark.seq || later.stored_unix_ms() <= stored_unix_ms))
}

/// Sends a direct get and takes its answers: `count` messages, or fewer and a word that there are no more.
async fn gather(nats: &Nats, stream: &str, request: &serde_json::Value, count: usize) -> Result<Batch, Error> {
    let failed = |reason: String| Error::Unavailable { stream: stream.to_owned(), reason };
    let client = nats.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|e| failed(e.to_string()))?;
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let sent = client.publish_with_reply(subject, inbox, request.to_string().into()).await;
    sent.map_err(|e| failed(e.to_string()))?;
    let deadline = Instant::now() + ANSWER_MAX;
    let mut batch = Batch::default();
    let is_single = request.get("batch").is_none();
    loop {
        let answer = timeout_at(deadline, answers.next()).await.map_err(|_| failed("no answer in time".into()))?;
        let answer = answer.ok_or_else(|| failed("the connection ended".into()))?;
        match answer.status {
            None | Some(StatusCode::OK) => {
                batch.messages.push(stored(answer).ok_or_else(|| failed("an answer without its place".into()))?);
                if is_single {
                    return Ok(batch);
                }
            }
            // The end of a batch; it says how many are left.
            Some(status) if status.as_u16() == 204 => {
                let left: Option<u64> = answer.headers.as_ref().and_then(|h| number(h, "Nats-Num-Pending"));
                batch.is_at_end = left.is_none_or(|left| left == 0) && batch.messages.len() <= count;
                return Ok(batch);
            }
            Some(StatusCode::NOT_FOUND) => {
                batch.is_at_end = true;
                return Ok(batch);
            }
            Some(status) => {
                return Err(failed(format!("{status} {}", answer.description.as_deref().unwrap_or_default())));
            }
        }
    }
}

fn stored(message: Message) -> Option<Stored> {
    let headers = message.headers?;
    let time = headers.get("Nats-Time-Stamp")?.as_str().parse::<jiff::Timestamp>().ok()?;
    Some(Stored {
        subject: headers.get("Nats-Subject")?.as_str().to_owned(),
        seq: number(&headers, "Nats-Sequence")?,
        stored_unix_ns: time.as_nanosecond(),
        payload: message.payload,
        headers,
    })
}

/// A header's number.
pub fn number<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.as_str().parse().ok()
}

/// The notices for sequences that are missing between `after` and `next`. Those below `first`, the first
/// that the stream has, are gone by age or size; the others gave way to newer states. Pure.
pub fn holes(after: u64, next: u64, first: u64, epoch: &Epoch, unix_ms: i64) -> Vec<Event> {
    let gap = |reason, from: u64, to: u64| {
        let id = |seq| EventId::bare(epoch, seq);
        (from <= to).then(|| Event::gap(reason, &id(from), &id(to), to - from + 1, unix_ms))
    };
    let kept_from = first.clamp(after + 1, next.max(after + 1));
    let expired = gap(Notice::Expired, after + 1, kept_from - 1);
    let conflated = gap(Notice::Conflated, kept_from, next.saturating_sub(1));
    expired.into_iter().chain(conflated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Channel, Sight};

    #[test]
    fn moments_stay_within_what_the_server_counts() {
        for (ms, text) in [
            (i64::MIN, "1970-01-01T00:00:00Z"),
            (-1, "1970-01-01T00:00:00Z"),
            (1_767_225_600_500, "2026-01-01T00:00:00.5Z"),
            (9_223_372_036_854, "2262-04-11T23:47:16.854Z"),
            (i64::MAX, "2262-04-11T23:47:16.854Z"),
        ] {
            assert_eq!(start_time(ms), text);
        }
    }

    #[test]
    fn every_missing_sequence_is_told_once_with_its_reason() {
        for (after, next, first, expected) in [
            (5, 6, 1, vec![]),
            (5, 8, 1, vec!["conflated 6 7"]),
            (5, 8, 8, vec!["expired 6 7"]),
            (5, 10, 8, vec!["expired 6 7", "conflated 8 9"]),
            (0, 1, 1, vec![]),
            (0, 4, 4, vec!["expired 1 3"]),
            (5, 6, 100, vec![]),
        ] {
            let told: Vec<String> = holes(after, next, first, &Epoch::of(1_000), 0)
                .iter()
                .map(|event| {
                    let text =
                        String::from_utf8_lossy(event.frame(Channel::Sse, None, Sight::Evidence).unwrap()).into_owned();
                    let data: serde_json::Value = serde_json::from_str(&text["event: gap\ndata: ".len()..]).unwrap();
                    let seq = |name: &str| data[name].as_str().unwrap().split('-').nth(1).unwrap().to_owned();
                    format!("{} {} {}", data["reason"].as_str().unwrap(), seq("from"), seq("to"))
                })
                .collect();
            assert_eq!(told, expected, "{after} {next} {first}");
        }
    }
}
