//! The demo of `dev --edge`: a few files go into the replay directory and are found in the hub's stream.
//!
//! Writes them as a user's program should: under a name that is not taken, then renamed. Looks at the
//! hub's server itself, not at what the syncdaemon says. A demo that fails says so and leaves everything
//! running.

use crate::{
    ready::Ready,
    roster::SYNCDAEMON,
    settings::{HUB_DOMAIN, Settings},
};
use agentforge_client::rest;
use agentforge_jetstream::subjects;
use agentforge_message_id::Site;
use agentforge_terminal::{BOLD, DIM, Failure, Output, Result, short_duration, styled};
use async_nats::jetstream::{self, stream::Stream};
use sha2::{Digest, Sha256};
use std::{io, path::Path, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Enough to see an order, few enough to read.
const FILES: usize = 5;
/// The link is up, so that this takes milliseconds.
const DEMO_MAX: Duration = Duration::from_secs(30);
/// Between two checks of the hub.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A file that was put into the replay directory.
struct Dropped {
    name: String,
    sha256: String,
}

/// Runs it and prints what arrived; never fails `dev`.
pub async fn run(settings: &Settings, ready: &Ready, out: Output) {
    let (Some(site), Some(hub)) = (&settings.site, &ready.hub) else { return };
    if ready.http(SYNCDAEMON).is_none() {
        return;
    }
    match timeout(DEMO_MAX, workload(settings, site, &hub.url, ready, out)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => agentforge_terminal::report(&failure, out),
        Err(_) => out.note(format!("the files did not arrive at the hub within {}", short_duration(DEMO_MAX))),
    }
}

async fn workload(settings: &Settings, site: &str, hub: &str, ready: &Ready, out: Output) -> Result {
    let replay = settings.replay();
    let began = Instant::now();
    let dropped = put(&replay).map_err(|e| Failure::new(format!("{} cannot be written: {e}", replay.display())))?;
    out.note(format!("{} {}\n", styled(BOLD, format!("{FILES} files into the replay directory")), replay.display()));

    let client = async_nats::connect(hub).await.map_err(anyhow::Error::from)?;
    let stream = stream_of(jetstream::new(client)).await;
    let root = subjects::evidence(&Site::new(site).map_err(anyhow::Error::from)?);
    let mut arrived = Vec::new();
    for file in &dropped {
        arrived.push(sequence(&stream, &format!("{root}.{}", file.sha256)).await);
    }
    let took = began.elapsed();
    drained(ready).await;
    if out.json {
        return out.document(&serde_json::json!({ "edge_demo": {
            "files": dropped.len(), "stream": subjects::STREAM_EVIDENCE, "domain": HUB_DOMAIN,
            "sequences": arrived, "seconds": took.as_secs_f64(), "replay_queue_depth": 0,
        }}));
    }
    for (file, seq) in dropped.iter().zip(&arrived) {
        let hash = styled(DIM, format!("sha256 {}…", &file.sha256[..12]));
        out.line(format!("  {}  at the hub as {} {seq}   {hash}", file.name, subjects::STREAM_EVIDENCE))?;
    }
    out.line(format!(
        "\n  {} are at the hub after {}, and none is left in the replay directory.\n",
        styled(BOLD, format!("{} files", dropped.len())),
        short_duration(took),
    ))
}

/// Every run has other contents: equal ones are kept once.
fn put(replay: &Path) -> io::Result<Vec<Dropped>> {
    std::fs::create_dir_all(replay)?;
    let run = jiff::Timestamp::now();
    let mut dropped = Vec::new();
    for n in 1..=FILES {
        let name = format!("reading-{n}.json");
        let content = serde_json::json!({ "reading": n, "taken": run.to_string() }).to_string();
        let being_written = replay.join(format!(".{name}.tmp"));
        std::fs::write(&being_written, &content)?;
        std::fs::rename(&being_written, replay.join(&name))?;
        dropped.push(Dropped { name, sha256: hex::encode(Sha256::digest(&content)) });
    }
    Ok(dropped)
}

/// The stream, once the syncdaemon has made it.
async fn stream_of(hub: jetstream::Context) -> Stream {
    loop {
        match hub.get_stream(subjects::STREAM_EVIDENCE).await {
            Ok(stream) => return stream,
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// The stream sequence of a subject's message, once it exists.
async fn sequence(stream: &Stream, subject: &str) -> u64 {
    loop {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => return message.sequence,
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Waits until the syncdaemon says that no file is left.
async fn drained(ready: &Ready) {
    let page = ready.services.get(SYNCDAEMON).and_then(|s| s.metrics.as_deref()).unwrap_or_default();
    while rest::metric(page, "replay_queue_depth").await != Some(0.0) {
        sleep(LOOK_EVERY).await;
    }
}
