//! Before the relay opens: reports that workers sent while no orchestrator ran are read to the end.
//!
//! A process that was killed may have published attempts without a mark of it in the database. The workers' reports
//! say which of them are done, the stream which of them still wait; a relay that published before it knew both would
//! have jobs run again.

use super::tail;
use crate::app::App;
use crate::reconcile::pause;
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::Mission;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often the stream is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Reports that are read here; while there are more, those who read results have to come closer to the end.
const DIRECT_MAX: u64 = 16_384;
/// In addition to the ack wait, after which reports that a dead replica held are redelivered: the longest wait with
/// NATS available.
const WAIT: Duration = Duration::from_secs(30);

/// Waits until all reports that `swarm_results` had when NATS was first available are committed; new ones are not
/// waited for. Bounded by `ack_wait` and half a minute of a connected NATS: a stream that cannot be read, or that a
/// replica holds on to, must not hold accepted jobs forever. Without NATS nothing can be published anyway.
pub async fn results_are_read(
    app: App,
    nats: Nats,
    mission: Mission,
    ack_wait: Duration,
    mut topology: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut connected = nats.connected();
    let mut until = None;
    let mut last = None;
    let begun = Instant::now();
    loop {
        tokio::select! {
            up = connected.wait_for(|c| *c) => if up.is_err() { return },
            () = stop.cancelled() => return,
        }
        let until = *until.get_or_insert_with(|| Instant::now() + ack_wait + WAIT);
        if Instant::now() >= until {
            warn!(
                waited = ?begun.elapsed(),
                "the results of the last run could not be read to the end; publishing jobs anyway, one that has ended may \
                 run again"
            );
            return;
        }
        let is_ready =
            tokio::time::timeout(ASK_EVERY, topology.wait_for(|ready| *ready)).await.is_ok_and(|r| r.is_ok());
        if is_ready {
            match read_to(&app, &nats, &mission, &mut last).await {
                Ok(true) => {
                    let marks = super::marks::make(&app, &nats).await.unwrap_or_else(|problem| {
                        warn!(problem, "swarm_jobs could not be read; its jobs may be published again");
                        0
                    });
                    match super::unsigned::take_out(&app, &nats).await {
                        Ok(0) => {}
                        Ok(attempts) => info!(attempts, "attempts without a good signature are published again"),
                        Err(problem) => warn!(problem, "swarm_jobs could not be searched for unsigned attempts"),
                    }
                    info!(waited = ?begun.elapsed(), marks, "the results of the last run are read; jobs are published");
                    return;
                }
                Ok(false) => {}
                Err(problem) => debug!(problem, "the results of the last run cannot be read yet"),
            }
        }
        if !pause(&stop, ASK_EVERY).await {
            return;
        }
    }
}

/// Whether everything up to `last`, the end of the stream at the first check, is committed.
async fn read_to(app: &App, nats: &Nats, mission: &Mission, last: &mut Option<u64>) -> Result<bool, String> {
    let mut stream = nats.jetstream().get_stream(subjects::STREAM_RESULTS).await.map_err(|e| e.to_string())?;
    let last = match *last {
        Some(last) => last,
        None => {
            let state = &stream.info().await.map_err(|e| e.to_string())?.state;
            *last.insert(state.last_sequence)
        }
    };
    let info = stream.consumer_info(subjects::orchestrator_durable(mission)).await.map_err(|e| e.to_string())?;
    // The floor is a sequence of the stream that is acknowledged, with those of other missions skipped: acknowledged
    // reports were committed before.
    let floor = info.ack_floor.stream_sequence;
    if info.num_pending == 0 && info.num_ack_pending == 0 || floor >= last {
        return Ok(true);
    }
    // Reports delivered to a process that is gone are redelivered only after its ack wait: they are read here.
    if last - floor > DIRECT_MAX {
        return Ok(false);
    }
    let reports = tail::commit_reports(app, nats, mission, floor + 1, last).await?;
    debug!(reports, "unacknowledged reports are committed");
    Ok(true)
}
