//! Files that are too large for a message: one at a time, in chunks, alongside the small ones.
//!
//! Each chunk names the sequence of the chunk before it, so the server itself refuses a gap, a repetition
//! and a second writer; and each carries the hash of all bytes so far, so that an upload resumes where it
//! stopped, after a cut or a restart, and only if what is there is a beginning of this very file. The
//! chunks' subject has the site, to which the hub confines it, and the content: equal content is stored once.

use crate::{
    completion::commit::{CommitHandle, Record},
    content::read::{self, Fault, Rules, hash_large, is_unchanged},
    delivery::{
        publish::{FileIdentity, HEADERS_MAX_BYTES, HubClient, PublishOutcome, WRONG_LAST_SEQUENCE},
        small::{delivered, set_aside},
    },
    directory::Root,
    names,
    outcome::{Hold, Verdict, judge, pause},
    pace::ack_limit,
    progress::{Pipeline, Progress},
    queue::{Queue, window::Candidate},
    steps::{Step, reached},
};
use agentforge_jetstream::{
    HeaderMap, publish,
    subjects::{BUCKET_EVIDENCE_BLOBS, bucket_chunks, bucket_stream, evidence_chunks},
};
use agentforge_ledger::{Entry, Event, hub::header};
use agentforge_message_id::MsgId;
use agentforge_proto::evidence::{HEADER_CHUNK, HEADER_PREFIX_SHA256, HEADER_SITE, Manifest};
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A chunk is at most this large, and a multiple of the step, so that it stays the same over restarts.
const CHUNK_MAX_BYTES: usize = 1 << 20;
const CHUNK_STEP_BYTES: usize = 64 << 10;
/// Uploads restarted because what was stored was not a beginning of the file.
const RESTARTS_MAX: u32 = 3;

/// Sends large files, one after the other.
pub struct LargeSender {
    /// The client of the hub.
    pub hub: Arc<HubClient>,
    /// Where files come from.
    pub queue: Arc<Queue>,
    /// Where what was stored goes.
    pub commits: CommitHandle,
    /// For what others see.
    pub progress: Arc<Progress>,
    /// Largest file, and rest.
    pub rules: Rules,
    /// Whether stream and bucket were made sure of: before that they may be missing.
    pub bucket: watch::Receiver<bool>,
    /// The service stops.
    pub stop: CancellationToken,
}

/// An upload that has ended without being complete.
enum UploadError {
    /// The service stops; what is stored stays and is resumed.
    Stopped,
    /// The file is not what it was.
    File(Fault),
    /// What is stored is not a beginning of this file.
    Conflict,
}

/// A file that is being uploaded.
struct Upload {
    file: Arc<File>,
    identity: FileIdentity,
    /// The site's token in the subjects of its evidence.
    site: String,
    /// The upload that the chunks are of, where another has the first place.
    place: Option<String>,
    chunk_bytes: usize,
    /// Distinguishes the messages of this run from those of an earlier run.
    run: String,
}

/// What is stored of it.
struct UploadState {
    chunks: u64,
    /// Sequence of the last one; 0 before the first.
    last_seq: u64,
    /// The hash of the bytes so far.
    prefix: Context,
}

impl LargeSender {
    /// Sends one file after the other until the stop, or until no more can come.
    pub async fn run(mut self, mut files: mpsc::Receiver<Candidate>) {
        tokio::select! {
            _ = self.bucket.wait_for(|there| *there) => {}
            () = self.stop.cancelled() => return,
        }
        loop {
            let candidate = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                candidate = files.recv() => match candidate {
                    Some(candidate) => candidate,
                    None => return,
                },
            };
            match self.send(candidate.clone()).await {
                Ok(record) => self.commits.record(record).await,
                Err(UploadError::Stopped) => return,
                Err(UploadError::Conflict) => {
                    warn!(
                        file = names::encode(&candidate.name),
                        "another writer uploads the same content; trying later"
                    );
                    self.queue.release([&*candidate.name]);
                    self.queue.recheck_after(candidate, pause(8));
                }
                Err(UploadError::File(fault)) => {
                    if let Some(record) = set_aside(&self.queue, candidate, fault) {
                        self.commits.record(record).await;
                    }
                }
            }
        }
    }

    async fn send(&self, candidate: Candidate) -> Result<Record, UploadError> {
        let Some(root) = self.queue.root() else { return Err(UploadError::File(Fault::Gone)) };
        let mut upload = self.begin(&root, &candidate).await?;
        let mut restarts = 0;
        let chunks = loop {
            match self.upload(&upload).await {
                Ok(chunks) => break chunks,
                Err(UploadError::Conflict) if restarts < RESTARTS_MAX => {
                    restarts += 1;
                    upload.move_on();
                }
                Err(error) => return Err(error),
            }
        };
        reached(Step::ChunksComplete);
        let (file, name, stamp) = (upload.file.clone(), candidate.name.clone(), upload.identity.stamp);
        let unchanged = spawn_blocking(move || is_unchanged(&root, &name, &file, &stamp)).await.unwrap_or(false);
        if !unchanged {
            return Err(UploadError::File(Fault::Changing(self.rules.settle)));
        }
        let sha256 = upload.identity.sha256.clone();
        let manifest = Manifest {
            bucket: BUCKET_EVIDENCE_BLOBS.to_owned(),
            object: format!("{}/{sha256}", self.hub.site()),
            size: upload.identity.stamp.size,
            sha256,
            chunks,
            chunk_bytes: Some(upload.chunk_bytes as u64),
            run: upload.place.clone(),
        };
        let payload = Bytes::from(serde_json::to_vec(&manifest).expect("a manifest of plain values serializes"));
        let mut failures = 0;
        loop {
            self.bandwidth(payload.len()).await?;
            let limit = ack_limit(payload.len() + CHUNK_MAX_BYTES);
            match self.hub.deliver(&upload.identity, payload.clone(), true, limit).await {
                PublishOutcome::Stored(stored) => {
                    // The bucket may have been removed since its last chunk was stored.
                    if !matches!(self.last_chunk(&upload).await, Ok(Some((_, _, found))) if found == upload.identity.sha256)
                    {
                        return Err(UploadError::File(Fault::Changing(self.rules.settle)));
                    }
                    reached(Step::Acknowledged);
                    self.free();
                    return Ok(Record::Delivered(delivered(&self.hub, upload.identity, candidate, stored)));
                }
                PublishOutcome::TooLarge => {
                    let why = "not even its manifest fits a message of this server".to_owned();
                    return Err(UploadError::File(Fault::Rejected(why)));
                }
                PublishOutcome::Hold(hold, detail) => self.pause(&mut failures, hold, detail).await?,
            }
        }
    }

    async fn begin(&self, root: &Arc<Root>, candidate: &Candidate) -> Result<Upload, UploadError> {
        let (root, candidate, rules, stop) = (root.clone(), candidate.clone(), self.rules, self.stop.clone());
        let queue = self.queue.clone();
        let hashed = spawn_blocking(move || {
            reached(Step::Taken);
            let (file, stamp, metadata) = read::open(&root, &candidate, &rules, &queue)?;
            let sha256 = hash_large(&file, stamp.size, || !stop.is_cancelled()).map_err(read::fault_of)?;
            if !is_unchanged(&root, &candidate.name, &file, &stamp) {
                return Err(Fault::Changing(rules.settle));
            }
            reached(Step::Read);
            Ok((file, FileIdentity { name: candidate.name, stamp, sha256, metadata }))
        });
        let hashed = hashed.await.unwrap_or_else(|e| Err(Fault::Failed(io::Error::other(e))));
        if self.stop.is_cancelled() {
            return Err(UploadError::Stopped);
        }
        let (file, identity) = hashed.map_err(UploadError::File)?;
        let whole = self.hub.whole_max_bytes().min(CHUNK_MAX_BYTES);
        let chunk_bytes = if whole < CHUNK_STEP_BYTES { whole } else { whole - whole % CHUNK_STEP_BYTES };
        let site = self.hub.evidence_site().to_owned();
        Ok(Upload { file: Arc::new(file), identity, site, place: None, chunk_bytes, run: new_run() })
    }

    /// Stores what is not stored yet. Gives the number of chunks.
    async fn upload(&self, upload: &Upload) -> Result<u64, UploadError> {
        let size = upload.identity.stamp.size;
        let mut stored = self.find(upload).await?;
        while stored.chunks * (upload.chunk_bytes as u64) < size {
            let chunk = upload.read(stored.chunks).await.map_err(|e| UploadError::File(read::fault_of(e)))?;
            stored.prefix.update(&chunk);
            stored.last_seq = self.store(upload, &stored, chunk).await?;
            stored.chunks += 1;
            reached(Step::ChunkStored);
        }
        if hex::encode(stored.prefix.finish().as_ref()) == upload.identity.sha256 {
            return Ok(stored.chunks);
        }
        // The file was changed between being hashed and being sent; what is stored is of no content, and an upload of
        // this one goes to another place.
        Err(UploadError::File(Fault::Changing(self.rules.settle)))
    }

    /// What the bucket has of this content already.
    async fn find(&self, upload: &Upload) -> Result<UploadState, UploadError> {
        let mut stored = UploadState { chunks: 0, last_seq: 0, prefix: Context::new(&SHA256) };
        let Some((seq, number, prefix)) = self.last_chunk(upload).await? else { return Ok(stored) };
        for n in 0..=number {
            let chunk = upload.read(n).await.map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => UploadError::Conflict,
                _ => UploadError::File(read::fault_of(e)),
            })?;
            if chunk.is_empty() {
                return Err(UploadError::Conflict);
            }
            stored.prefix.update(&chunk);
        }
        if hex::encode(stored.prefix.clone().finish().as_ref()) != prefix {
            return Err(UploadError::Conflict);
        }
        info!(file = names::encode(&upload.identity.name), chunks = number + 1, "resuming an upload");
        (stored.chunks, stored.last_seq) = (number + 1, seq);
        Ok(stored)
    }

    /// Sequence, number and hash so far of the last chunk that is stored.
    async fn last_chunk(&self, upload: &Upload) -> Result<Option<(u64, u64, String)>, UploadError> {
        let mut failures = 0;
        loop {
            match self.hub.last(&bucket_stream(BUCKET_EVIDENCE_BLOBS), &upload.subject()).await {
                Ok(None) => return Ok(None),
                Ok(Some((seq, message))) => {
                    let number = header(&message, HEADER_CHUNK).and_then(|n| n.parse().ok());
                    return match (number, header(&message, HEADER_PREFIX_SHA256)) {
                        (Some(number), Some(prefix)) => Ok(Some((seq, number, prefix.to_owned()))),
                        _ => Err(UploadError::Conflict),
                    };
                }
                Err(detail) => self.pause(&mut failures, Hold::Unavailable, detail).await?,
            }
        }
    }

    /// Stores one chunk; tries until it is stored. Gives its sequence.
    async fn store(&self, upload: &Upload, stored: &UploadState, chunk: Bytes) -> Result<u64, UploadError> {
        let prefix = hex::encode(stored.prefix.clone().finish().as_ref());
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_SITE, self.hub.site().as_str());
        headers.insert(HEADER_CHUNK, stored.chunks.to_string());
        headers.insert(HEADER_PREFIX_SHA256, prefix.as_str());
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, stored.last_seq.to_string());
        let id = MsgId::evidence_chunk(self.hub.site(), &upload.identity.sha256, &upload.run, stored.chunks);
        let mut failures = 0;
        loop {
            self.bandwidth(chunk.len()).await?;
            let limit = ack_limit(chunk.len() + HEADERS_MAX_BYTES);
            let answer = publish::publish_within(
                &self.hub.nats,
                upload.subject(),
                id.clone(),
                headers.clone(),
                chunk.clone(),
                limit,
            )
            .await;
            self.progress.sent(chunk.len());
            if matches!(answer, Err(publish::Error::Other { code: WRONG_LAST_SEQUENCE, .. })) {
                // Stored by a try whose acknowledgement was lost, or there is another writer.
                return match self.last_chunk(upload).await? {
                    Some((seq, number, found)) if number == stored.chunks && found == prefix => Ok(seq),
                    _ => Err(UploadError::Conflict),
                };
            }
            match self.judged(answer) {
                Ok(seq) => {
                    self.free();
                    return Ok(seq);
                }
                Err((hold, detail)) => self.pause(&mut failures, hold, detail).await?,
            }
        }
    }

    fn judged(&self, answer: Result<agentforge_jetstream::Ack, publish::Error>) -> Result<u64, (Hold, String)> {
        match (judge(&answer, self.hub.domain()), answer) {
            (Verdict::Stored | Verdict::Duplicate, Ok(ack)) => Ok(ack.seq),
            (Verdict::Hold(hold), Err(error)) => Err((hold, error.to_string())),
            (Verdict::LookUp, Err(error)) => Err((Hold::Full, error.to_string())),
            (Verdict::Hold(hold), Ok(ack)) => Err((hold, format!("stream {} is not the hub's", ack.stream))),
            (_, answer) => Err((Hold::Refused, format!("{answer:?}"))),
        }
    }

    async fn bandwidth(&self, bytes: usize) -> Result<(), UploadError> {
        while let Err(wait) = self.hub.take_bandwidth(bytes) {
            self.sleep(wait).await?;
        }
        Ok(())
    }

    async fn pause(&self, failures: &mut u32, hold: Hold, detail: String) -> Result<(), UploadError> {
        *failures += 1;
        self.progress.retried();
        // What does not answer may not be there any more, and is searched for.
        if hold == Hold::Unavailable {
            self.progress.stream_missed.notify_one();
        }
        if self.progress.hold(Pipeline::Large, Some((hold, detail.clone()))) {
            warn!(reason = hold.as_str(), detail, "sending of large files paused; the files stay");
            if hold != Hold::Unavailable {
                self.commits
                    .record(Record::Note(Entry::note(Event::Error, format!("{}: {detail}", hold.as_str()))))
                    .await;
            }
        }
        self.sleep(pause(*failures)).await
    }

    async fn sleep(&self, time: Duration) -> Result<(), UploadError> {
        tokio::select! {
            () = sleep(time) => {}
            () = self.stop.cancelled() => return Err(UploadError::Stopped),
        }
        // Without a ledger nothing could be removed, so nothing more is sent.
        while !self.progress.ledger_works.load(Relaxed) {
            tokio::select! {
                () = sleep(Duration::from_millis(100)) => {}
                () = self.stop.cancelled() => return Err(UploadError::Stopped),
            }
        }
        Ok(())
    }

    fn free(&self) {
        if self.progress.hold(Pipeline::Large, None) {
            info!("sending large files again");
        }
    }
}

fn new_run() -> String {
    format!("{:016x}", rand::random::<u64>())
}

impl Upload {
    fn subject(&self) -> String {
        let chunks = evidence_chunks(&self.site, &self.identity.sha256, self.place.as_deref());
        bucket_chunks(BUCKET_EVIDENCE_BLOBS, &chunks)
    }

    /// Goes to a place of its own: what is at this one is of other bytes, and a site removes nothing at its hub.
    fn move_on(&mut self) {
        self.run = new_run();
        self.place = Some(self.run.clone());
    }

    /// The bytes of a chunk, by its number; the last one is shorter.
    async fn read(&self, number: u64) -> io::Result<Bytes> {
        let (file, at) = (self.file.clone(), number * self.chunk_bytes as u64);
        let left = self.identity.stamp.size.saturating_sub(at);
        let len = usize::try_from(left).unwrap_or(self.chunk_bytes).min(self.chunk_bytes);
        let read = spawn_blocking(move || {
            let mut chunk = vec![0; len];
            file.read_exact_at(&mut chunk, at)?;
            Ok(Bytes::from(chunk))
        });
        read.await.map_err(io::Error::other)?
    }
}
