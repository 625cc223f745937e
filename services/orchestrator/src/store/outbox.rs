//! Rows of the outbox: what one commit has to say on one line, in one row.
//!
//! A commit of hundreds of jobs has hundreds of events. As one row they are one insert and one delete; as rows of their
//! own they cost more than the jobs. A row with one message has that message's subject and id in its columns; a row with
//! several has the line as its subject, no id, and the messages in its payload, each as three lengths (4 bytes, little
//! endian) and subject, id and body.

use bytes::Bytes;

/// What the subjects of events begin with; also their line.
pub const EVENTS: &str = "agentforge.events.";
/// Messages of one row, at most.
const ROW_MESSAGES_MAX: usize = 512;
/// Bytes of one row: the message that crosses it is the last.
const ROW_BYTES_MAX: usize = 256 * 1024;

/// A message for the outbox: an event or a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// `agentforge.events.job.<mission>.<state>`, `agentforge.events.audit.…`, or that of a queue of dead letters.
    pub subject: String,
    /// Its `Nats-Msg-Id`, by which the stream recognises a repetition.
    pub msg_id: String,
    /// A CloudEvent, or a dead letter, as JSON text.
    pub payload: Bytes,
    /// What it goes back to, for those who follow it.
    pub origin: Origin,
}

/// The trace and the request that a message goes back to. An event's body has both.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Origin {
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// X-Request-ID of the job's submission.
    pub requestid: Option<String>,
}

/// Messages that were written together and leave in their order, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Row number: order of writing.
    pub seq: i64,
    /// Those that have not left, one or more.
    pub messages: Vec<OutboxMessage>,
}

/// The line that a subject leaves or waits with: all events, or the dead letters of one queue.
pub fn line_of(subject: &str) -> &str {
    if subject.starts_with(EVENTS) { EVENTS } else { subject }
}

/// A moment that never comes.
const NEVER: i64 = i64::MAX;

/// A row's columns.
pub(super) struct Stored<'m> {
    /// Until when it is claimed, for rows with one message.
    pub(super) claim_until: i64,
    /// Until when it is claimed, for rows with several: the version before knows only the other, and would take them for
    /// one message.
    pub(super) group_until: Option<i64>,
    pub(super) subject: &'m str,
    pub(super) msg_id: &'m str,
    pub(super) payload: Bytes,
}

impl OutboxRow {
    /// The line that it leaves or waits with.
    pub fn line(&self) -> &str {
        self.messages.first().map_or("", |m| line_of(&m.subject))
    }

    /// Bytes of its messages.
    pub(super) fn bytes(&self) -> usize {
        self.messages.iter().map(|m| m.payload.len()).sum()
    }

    /// As it is stored, claimed until then.
    pub(super) fn stored(&self, until: i64) -> Stored<'_> {
        let (claim_until, group_until) = if self.messages.len() == 1 { (until, None) } else { (NEVER, Some(until)) };
        let (subject, msg_id, payload) = match &*self.messages {
            [one] => (one.subject.as_str(), one.msg_id.as_str(), one.payload.clone()),
            many => (self.line(), "", encode(many).into()),
        };
        Stored { claim_until, group_until, subject, msg_id, payload }
    }

    /// A row as it is stored. What is not a list of messages is one message as it is: the relay parks what cannot leave, and
    /// a row that cannot be read would hold all others.
    pub(super) fn read(seq: i64, subject: String, msg_id: String, payload: Vec<u8>) -> Self {
        let payload = Bytes::from(payload);
        let several = if msg_id.is_empty() { decode(&payload) } else { None };
        Self { seq, messages: several.unwrap_or_else(|| vec![message(subject, msg_id, payload)]) }
    }
}

/// Puts messages into rows, each line by itself and in order; `next_seq` numbers them.
pub(super) fn rows_of(messages: Vec<OutboxMessage>, mut next_seq: impl FnMut() -> i64) -> Vec<OutboxRow> {
    let mut rows: Vec<(OutboxRow, usize)> = Vec::new();
    for message in messages {
        let bytes = message.payload.len();
        let line = line_of(&message.subject);
        let open = rows.iter_mut().rev().find(|(row, _)| row.line() == line);
        match open.filter(|(row, bytes)| row.messages.len() < ROW_MESSAGES_MAX && *bytes < ROW_BYTES_MAX) {
            Some((row, in_row)) => {
                row.messages.push(message);
                *in_row += bytes;
            }
            None => rows.push((OutboxRow { seq: next_seq(), messages: vec![message] }, bytes)),
        }
    }
    rows.into_iter().map(|(row, _)| row).collect()
}

fn message(subject: String, msg_id: String, payload: Bytes) -> OutboxMessage {
    let is_event = subject.starts_with(EVENTS);
    let origin = if is_event { serde_json::from_slice(&payload).unwrap_or_default() } else { Origin::default() };
    OutboxMessage { subject, msg_id, payload, origin }
}

fn encode(messages: &[OutboxMessage]) -> Vec<u8> {
    let parts = |m: &OutboxMessage| [m.subject.len(), m.msg_id.len(), m.payload.len()];
    let size = messages.iter().map(|m| 12 + parts(m).iter().sum::<usize>()).sum();
    let mut bytes = Vec::with_capacity(size);
    for m in messages {
        for len in parts(m) {
            bytes.extend(u32::try_from(len).expect("no message is that large").to_le_bytes());
        }
        bytes.extend_from_slice(m.subject.as_bytes());
        bytes.extend_from_slice(m.msg_id.as_bytes());
        bytes.extend_from_slice(&m.payload);
    }
    bytes
}

fn decode(bytes: &Bytes) -> Option<Vec<OutboxMessage>> {
    let mut rest = bytes.clone();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let [mut subject, mut msg_id, mut payload] = [0_usize; 3];
        for len in [&mut subject, &mut msg_id, &mut payload] {
            *len = u32::from_le_bytes(take(&mut rest, 4)?.as_ref().try_into().ok()?).try_into().ok()?;
        }
        let mut text = |len| String::from_utf8(take(&mut rest, len)?.to_vec()).ok();
        let (subject, msg_id) = (text(subject)?, text(msg_id)?);
        messages.push(message(subject, msg_id, take(&mut rest, payload)?));
    }
    Some(messages).filter(|messages| !messages.is_empty())
}

fn take(rest: &mut Bytes, n: usize) -> Option<Bytes> {
    (rest.len() >= n).then(|| rest.split_to(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize, bytes: usize) -> OutboxMessage {
        let body = format!(r#"{{"traceparent":"t{n}","requestid":null,"pad":"{}"}}"#, "x".repeat(bytes));
        message(format!("agentforge.events.job.dev.{n}"), format!("id-{n}"), body.into_bytes().into())
    }

    fn letter(queue: &str) -> OutboxMessage {
        message(format!("swarm.dlq.dev.{queue}"), format!("dlq:{queue}"), Bytes::from_static(b"{}"))
    }

    fn rows(messages: Vec<OutboxMessage>) -> Vec<OutboxRow> {
        let mut seq = 0;
        rows_of(messages, || {
            seq += 1;
            seq
        })
    }

    fn read_back(row: &OutboxRow) -> OutboxRow {
        let stored = row.stored(0);
        OutboxRow::read(row.seq, stored.subject.into(), stored.msg_id.into(), stored.payload.into())
    }

    #[test]
    fn a_row_has_one_line_and_keeps_its_order() {
        let all = rows(vec![event(1, 0), letter("a"), event(2, 0), letter("b"), letter("a"), event(3, 0)]);
        let ids: Vec<Vec<&str>> =
            all.iter().map(|row| row.messages.iter().map(|m| m.msg_id.as_str()).collect()).collect();
        assert_eq!(ids, [vec!["id-1", "id-2", "id-3"], vec!["dlq:a", "dlq:a"], vec!["dlq:b"]]);
        assert_eq!(all.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
        for row in &all {
            assert_eq!(read_back(row), *row);
        }
        assert_eq!(all[0].messages[1].origin.traceparent.as_deref(), Some("t2"));
        assert_eq!((all[0].stored(7).subject, all[0].stored(7).claim_until), (EVENTS, NEVER));
    }

    #[test]
    fn a_row_is_bounded_in_messages_and_bytes() {
        let many = rows((0..ROW_MESSAGES_MAX + 1).map(|n| event(n, 0)).collect());
        assert_eq!(many.iter().map(|row| row.messages.len()).collect::<Vec<_>>(), [ROW_MESSAGES_MAX, 1]);
        let large = rows((0..3).map(|n| event(n, ROW_BYTES_MAX / 2 + 1)).collect());
        assert_eq!(large.iter().map(|row| row.messages.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_is_cut_off_is_no_list_and_holds_nothing() {
        let row = &rows(vec![event(1, 0), event(2, 9)])[0];
        let whole = row.stored(0).payload;
        for len in (0..whole.len()).filter(|len| *len != whole.len() / 2) {
            assert!(decode(&whole.slice(..len)).is_none_or(|read| read.len() < 2), "{len}");
        }
        for rubbish in [vec![], vec![255; 40]] {
            let read = OutboxRow::read(1, EVENTS.into(), String::new(), rubbish.clone());
            assert_eq!((read.messages.len(), &read.messages[0].payload[..]), (1, &rubbish[..]));
        }
    }
}
