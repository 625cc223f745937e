//! An object of the bucket, read chunk by chunk from any place.
//!
//! Chunks are messages of one subject among others. The syncdaemon numbers them, so a chunk is found in a
//! few steps; an object that another client stored is read from its start. Earlier versions described their objects in
//! the bucket, and the manifest does now.

use super::{error::Error, slots::ReadSlot, span::Span};
use crate::history::{self, Begin, Stored};
use agentforge_jetstream::{
    Nats,
    subjects::{bucket_chunks, bucket_info, bucket_stream},
};
use agentforge_proto::evidence::{HEADER_CHUNK, Manifest};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use std::{collections::VecDeque, io, sync::Arc};
use tokio::sync::Semaphore;

/// Chunks fetched at once: with chunks of 128 KiB a quarter of a megabyte.
const CHUNKS_AT_ONCE: usize = 2;
/// Bytes fetched at once.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Steps to find a chunk; beyond it the rest of the way is read.
const STEPS_MAX: usize = 64;

/// What describes an object, as far as it is needed.
#[derive(Deserialize)]
struct Info {
    nuid: String,
    size: u64,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    max_chunk_size: Option<u64>,
}

/// A part of an object that is being read.
pub struct Chunks {
    nats: Nats,
    /// Bounds reads at once.
    fetches: Arc<Semaphore>,
    stream: String,
    subject: String,
    /// Where the next read begins.
    next_seq: u64,
    ready: VecDeque<Bytes>,
    /// Bytes before the part that are still to come.
    skip: u64,
    /// Bytes of the part that are still to come.
    left: u64,
    /// Of a whole file: its hash so far, and what it must be.
    hash: Option<(Context, String)>,
}

impl Chunks {
    /// Finds the first chunk of a part.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        nats: Nats,
        fetches: Arc<Semaphore>,
        manifest: &Manifest,
        place: Option<&str>,
        span: Span,
    ) -> Result<Self, Error> {
        let stream = bucket_stream(&manifest.bucket);
        let (nuid, chunk_bytes) = match place {
            Some(place) => (place.to_owned(), manifest.chunk_bytes),
            None => described(&nats, &stream, manifest).await?,
        };
        let is_whole = span.start == 0 && span.len == manifest.size;
        let mut this = Self {
            nats,
            fetches,
            stream,
            subject: bucket_chunks(&manifest.bucket, &nuid),
            next_seq: 1,
            ready: VecDeque::new(),
            skip: span.start,
            left: span.len,
            hash: is_whole.then(|| (Context::new(&SHA256), manifest.sha256.clone())),
        };
        if let Some(chunk_bytes) = chunk_bytes.filter(|bytes| *bytes > 0 && span.start >= *bytes) {
            this.seek(span.start / chunk_bytes, chunk_bytes).await?;
        }
        Ok(this)
    }

    /// Goes to a chunk. Chunks of other objects may lie between two chunks of an object, so chunk `n` is at least `n`
    /// sequences behind the first: every step finds a chunk at or before the wanted one, and closer.
    async fn seek(&mut self, wanted: u64, chunk_bytes: u64) -> Result<(), Error> {
        let mut seq = 1;
        for _ in 0..STEPS_MAX {
            let batch = self.fetch(seq, 1).await?;
            let Some(found) = batch.first() else { return Ok(()) };
            let number: Option<u64> = history::number(&found.headers, HEADER_CHUNK);
            let Some(number) = number.filter(|n| *n <= wanted) else { return Ok(()) };
            (self.next_seq, self.skip) = (found.seq, self.start_of(number, wanted, chunk_bytes));
            if number == wanted {
                return Ok(());
            }
            seq = found.seq + (wanted - number);
        }
        Ok(())
    }

    /// Bytes before the part, seen from chunk `number`.
    fn start_of(&self, number: u64, wanted: u64, chunk_bytes: u64) -> u64 {
        let start = wanted * chunk_bytes + self.skip % chunk_bytes;
        start - number * chunk_bytes
    }

    async fn fetch(&self, seq: u64, count: usize) -> Result<Vec<Stored>, history::Error> {
        // Held while the chunks come, never while a caller takes them.
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        let begin = Begin::Seq(seq);
        let read = history::read(&self.nats, &self.stream, &self.subject, begin, count, BYTES_AT_ONCE);
        Ok(read.await?.messages)
    }

    /// The next bytes; `None` at the end of the part.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            if self.ready.is_empty() {
                let chunks = self.fetch(self.next_seq, CHUNKS_AT_ONCE).await.map_err(io::Error::other)?;
                let Some(last) = chunks.last() else {
                    return Err(io::Error::other("the object ends before its size"));
                };
                self.next_seq = last.seq + 1;
                self.ready = chunks.into_iter().map(|chunk| chunk.payload).collect();
            }
            let Some(mut chunk) = self.ready.pop_front() else { continue };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= skipped as u64;
            chunk = chunk.slice(skipped..);
            chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if chunk.is_empty() {
                continue;
            }
            self.left -= chunk.len() as u64;
            self.verify(&chunk)?;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    /// The last bytes of a whole file are given only if all of them were right.
    fn verify(&mut self, chunk: &[u8]) -> io::Result<()> {
        let Some((hash, _)) = &mut self.hash else { return Ok(()) };
        hash.update(chunk);
        if self.left > 0 {
            return Ok(());
        }
        let Some((hash, wanted)) = self.hash.take() else { return Ok(()) };
        if hex::encode(hash.finish()) == wanted {
            Ok(())
        } else {
            Err(io::Error::other("the file is not the one that was delivered"))
        }
    }

    /// As a stream that holds its place until it ends.
    pub fn stream(self, place: ReadSlot) -> BoxStream<'static, io::Result<Bytes>> {
        stream::unfold(Some((self, place)), |state| async {
            let (mut chunks, place) = state?;
            match chunks.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((chunks, place)))),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(%error, subject = chunks.subject, "evidence could not be read to the end");
                    Some((Err(error), None))
                }
            }
        })
        .boxed()
    }
}

/// The name of the chunks of an object that is described in the bucket, and their size.
async fn described(nats: &Nats, stream: &str, manifest: &Manifest) -> Result<(String, Option<u64>), Error> {
    let about = bucket_info(&manifest.bucket, &URL_SAFE.encode(&manifest.object));
    let info = history::last(nats, stream, &about).await?;
    let info = info.ok_or_else(|| Error::Damaged("its object is not in the bucket".to_owned()))?;
    let info: Info = serde_json::from_slice(&info.payload)
        .map_err(|e| Error::Damaged(format!("its object's description cannot be read: {e}")))?;
    if info.size != manifest.size {
        return Err(Error::Damaged("its object has another size".to_owned()));
    }
    Ok((info.nuid, info.options.and_then(|options| options.max_chunk_size)))
}
