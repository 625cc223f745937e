//! `agentforge job counts`: how many jobs are in each state.

use crate::context::Context;
use agentforge_client::view::{Moment, at};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Result, Table};
use serde::Serialize;

/// No choice: all jobs are counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job counts
  agentforge job counts --json | jq .failed")]
pub struct CountsArgs {}

/// The counts as `--json` prints them; field names are those of the REST API.
#[derive(Debug, Serialize)]
struct CountsView {
    accepted: u64,
    queued: u64,
    running: u64,
    succeeded: u64,
    failed: u64,
    dead: u64,
    cancelled: u64,
    expired: u64,
    counted_at: Option<Moment>,
}

/// Shows them.
///
/// # Errors
/// What failed.
pub async fn run(_: CountsArgs, context: &Context) -> Result {
    let request = context.client.request(v1::GetJobCountsRequest {});
    let answer = context.client.jobs().get_job_counts(request).await;
    let n = answer.map_err(|e| context.client.failure("counting jobs", &e))?.into_inner();
    if context.out.json {
        return context.out.document(&CountsView {
            accepted: n.accepted,
            queued: n.queued,
            running: n.running,
            succeeded: n.succeeded,
            failed: n.failed,
            dead: n.dead,
            cancelled: n.cancelled,
            expired: n.expired,
            counted_at: at(n.counted_at.as_ref()),
        });
    }
    let mut table = Table::new(["STATE", "JOBS"]).right(1);
    for (state, jobs) in [
        ("accepted", n.accepted),
        ("queued", n.queued),
        ("running", n.running),
        ("succeeded", n.succeeded),
        ("failed", n.failed),
        ("dead", n.dead),
        ("cancelled", n.cancelled),
        ("expired", n.expired),
    ] {
        table.row([state.to_owned(), jobs.to_string()], Some(state));
    }
    table.print(context.out, "")
}
