//! The newest messages of a stream, read one by one without its consumer: those that a dead process holds are not
//! delivered until its ack wait is over.

use crate::app::App;
use crate::results::{Meaning, read};
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::Mission;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream as JetStream};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

/// Requests for messages that are open at once.
const REQUESTS: usize = 64;
/// Messages of one commit, each with up to 64 reports.
const CHUNK: usize = 64;

/// The existing messages from `first` to `last`, in order.
pub(super) fn messages(
    stream: &JetStream,
    first: u64,
    last: u64,
) -> impl Stream<Item = Result<StreamMessage, String>> + '_ {
    let ask = move |seq| async move {
        match stream.direct_get(seq).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    };
    stream::iter(first..=last).map(ask).buffered(REQUESTS).try_filter_map(async |found| Ok(found))
}

/// Commits the reports of a mission from `first` to `last`. They stay where they are: when they are delivered, the
/// fence finds them done.
pub(super) async fn commit_reports(
    app: &App,
    nats: &Nats,
    mission: &Mission,
    first: u64,
    last: u64,
) -> Result<usize, String> {
    let stream = nats.jetstream().get_stream(subjects::STREAM_RESULTS).await.map_err(|e| e.to_string())?;
    let first = first.max(stream.cached_info().state.first_sequence);
    let prefix = subjects::results_prefix(mission);
    let mut chunks = std::pin::pin!(messages(&stream, first, last).try_chunks(CHUNK));
    let mut committed = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| e.1)?;
        let mine = chunk.iter().filter(|m| m.subject.starts_with(&prefix));
        let (mut changes, mut rejects) = (Vec::new(), Vec::new());
        // Messages that are not reports, or are not believed, are left to the consumer.
        let reports = mine.flat_map(|m| read(app, &m.subject, Some(&m.headers), &m.payload));
        for meaning in reports.filter_map(|reported| reported.meaning.ok()) {
            match meaning {
                Meaning::Change(id, change) => changes.push((id, *change)),
                Meaning::Reject(rejected) => rejects.push(*rejected),
            }
        }
        committed += changes.len() + rejects.len();
        app.apply_reports(changes, rejects).await.map_err(|e| e.to_string())?;
    }
    Ok(committed)
}
