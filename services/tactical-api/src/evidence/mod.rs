//! Evidence that edge sites delivered: found by site and hash or by an alias, read in pieces.
//!
//! Relies on the stream and the bucket that the syncdaemon fills; writes nothing. A file of any size takes
//! about a megabyte of memory while it is read, because the next pieces are fetched when these are gone.

mod aliases;
mod chunks;
pub mod conditions;
mod error;
mod slots;
pub mod span;

pub use aliases::Aliases;
pub use error::Error;
use slots::{ReadSlot, ReadSlots};

use crate::{
    history::{self, Stored},
    reference,
};
use agentforge_jetstream::{
    Nats,
    subjects::{self, BUCKET_EVIDENCE_BLOBS, STREAM_EVIDENCE},
};
use agentforge_proto::evidence::{HEADER_CONTENT_TYPE, HEADER_FILE, HEADER_MANIFEST, Manifest};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use percent_encoding::percent_decode_str;
use span::Span;
use std::{io, net::IpAddr, sync::Arc};
use tokio::sync::Semaphore;

/// Reads of the bucket at once: one for each answer that waits for its next chunks, not for each that has some.
const FETCHES_AT_ONCE: usize = 64;
/// What is given at once of a file that came in its message.
const PIECE_BYTES: usize = 32 << 10;
/// The media type of a file without a description.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file of evidence.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Its media type.
    pub content_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The last part of its name; any bytes.
    pub name: Vec<u8>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Here(Bytes),
    /// With the name of its chunks, where the manifest gives it.
    Bucket(Manifest, Option<String>),
}

/// Where evidence is. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    nats: Nats,
    aliases: Aliases,
    slots: ReadSlots,
    fetches: Arc<Semaphore>,
}

impl Store {
    /// Over this connection.
    pub fn new(nats: Nats, aliases: Aliases) -> Self {
        Self { nats, aliases, slots: ReadSlots::default(), fetches: Arc::new(Semaphore::new(FETCHES_AT_ONCE)) }
    }

    /// A place for one answer to this address, for as long as it is read.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn place(&self, address: IpAddr) -> Result<ReadSlot, Error> {
        self.slots.take(address).ok_or(Error::Busy)
    }

    /// The evidence of a link's id: `<site>/<sha256>`, or an alias that its message carried.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find(&self, id: &str) -> Result<Option<Evidence>, Error> {
        let Some((subject, sha256)) = reference::place_of(id).or_else(|| self.aliases.place_of(id)) else {
            return Ok(None);
        };
        let Some(stored) = history::last(&self.nats, STREAM_EVIDENCE, &subject).await? else { return Ok(None) };
        describe(stored, sha256).map(Some)
    }

    /// The bytes of a part of it, as they are taken.
    ///
    /// # Errors
    /// See [`Error`]; what goes wrong later ends the stream with an error.
    pub async fn read(
        &self,
        evidence: &Evidence,
        span: Span,
        place: ReadSlot,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        match &evidence.content {
            Content::Here(bytes) => {
                let (start, end) = (index(span.start), index(span.start + span.len));
                let part = bytes.get(start..end).map(|_| bytes.slice(start..end)).unwrap_or_default();
                // In pieces, so that no more is taken from here than the caller takes, and with its place.
                let pieces = futures_util::stream::unfold((part, place), |(mut part, place)| async move {
                    let piece = part.split_to(part.len().min(PIECE_BYTES));
                    (!piece.is_empty()).then_some((Ok(piece), (part, place)))
                });
                Ok(pieces.boxed())
            }
            Content::Bucket(manifest, name) => {
                let (nats, fetches) = (self.nats.clone(), self.fetches.clone());
                let chunks = chunks::Chunks::open(nats, fetches, manifest, name.as_deref(), span).await?;
                Ok(chunks.stream(place))
            }
        }
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn describe(stored: Stored, sha256: String) -> Result<Evidence, Error> {
    let header = |name: &str| stored.headers.get(name).map(|value| value.as_str());
    let (size, content) = match header(HEADER_MANIFEST) {
        Some("1") => {
            let manifest: Manifest = serde_json::from_slice(&stored.payload)
                .map_err(|e| Error::Damaged(format!("its manifest cannot be read: {e}")))?;
            if manifest.bucket != BUCKET_EVIDENCE_BLOBS || manifest.sha256 != sha256 {
                return Err(Error::Damaged("its manifest is of something else".to_owned()));
            }
            let place = chunks_of(&stored.subject, &manifest)?;
            (manifest.size, Content::Bucket(manifest, place))
        }
        _ => (stored.payload.len() as u64, Content::Here(stored.payload.clone())),
    };
    let file: Vec<u8> = percent_decode_str(header(HEADER_FILE).unwrap_or_default()).collect();
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Ok(Evidence {
        content_type: header(HEADER_CONTENT_TYPE).unwrap_or(UNKNOWN_TYPE).to_owned(),
        size,
        name: if name.is_empty() { sha256.clone().into_bytes() } else { name.to_vec() },
        sha256,
        content,
    })
}

/// The name of a file's chunks, from the subject of its message and never from what the message says: a site names no
/// other site's bytes. `None` for a message of earlier versions, whose object is described in the bucket.
fn chunks_of(subject: &str, manifest: &Manifest) -> Result<Option<String>, Error> {
    let Some(site) = subjects::evidence_site(subject) else { return Ok(None) };
    if manifest.chunk_bytes.is_none() {
        // Where the subject is the site's own, so is the object.
        let is_own = subject.matches('.').count() != 3 || manifest.object == format!("{site}/{}", manifest.sha256);
        return if is_own { Ok(None) } else { Err(Error::Damaged("its object is of another site".to_owned())) };
    }
    match manifest.run.as_deref() {
        Some(run) if !Manifest::is_run(run) => Err(Error::Damaged("its run is not valid".to_owned())),
        run => Ok(Some(subjects::evidence_chunks(site, &manifest.sha256, run))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_those_of_the_site_that_the_subject_names() {
        let manifest = |object: &str, chunk_bytes, run: Option<&str>| Manifest {
            bucket: BUCKET_EVIDENCE_BLOBS.to_owned(),
            object: object.to_owned(),
            size: 1,
            sha256: "ab".to_owned(),
            chunks: 1,
            chunk_bytes,
            run: run.map(str::to_owned),
        };
        let at = |manifest: &Manifest| chunks_of("edge.evidence.pier-7.ab", manifest).map_err(|e| e.to_string());
        assert_eq!(at(&manifest("dock-1/ab", Some(1), None)).unwrap().as_deref(), Some("pier-7.ab"));
        assert_eq!(at(&manifest("x", Some(1), Some("0f"))).unwrap().as_deref(), Some("pier-7.ab.0f"));
        assert_eq!(at(&manifest("pier-7/ab", None, None)).unwrap(), None, "as earlier versions wrote it");
        assert!(at(&manifest("dock-1/ab", None, None)).unwrap_err().contains("another site"));
        for run in ["", "a.b", "*", ">"] {
            assert!(at(&manifest("x", Some(1), Some(run))).unwrap_err().contains("run"), "{run}");
        }
    }
}
