//! The history of deliveries, and events that are sent again.

use super::{
    endpoints::confirmed,
    place::{CHUNK, Place, line, query, rate, word},
};
use agentforge_terminal::{Failure, GREEN, Output, Result, styled};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Attempts in one answer.
const PAGE: u64 = 500;

/// What to look for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook deliveries --endpoint billing --since 1h
  agentforge webhook deliveries --id job:0198c0de:dead:1
  agentforge webhook deliveries --outcome dead --since 2026-01-31T00:00:00Z --limit 1000 --json")]
pub struct DeliveriesArgs {
    #[command(flatten)]
    place: Place,
    /// Only to this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Only with this webhook-id
    #[arg(long)]
    id: Option<String>,
    /// Only with this outcome: delivered, retried, dead, disabled, test_failed
    #[arg(long)]
    outcome: Option<String>,
    /// Not before: a time, or how long ago, such as 2h
    #[arg(long, value_parser = moment)]
    since: Option<Timestamp>,
    /// Not after: a time, or how long ago
    #[arg(long, value_parser = moment)]
    until: Option<Timestamp>,
    /// Maximum number, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
}

/// What to send again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook replay billing --since 2h --dry-run
  agentforge webhook replay billing --since 2026-01-31T10:00:00Z --until 2026-01-31T11:00:00Z --rate 20 --yes
  agentforge webhook replay billing --id job:0198c0de:dead:1 --yes

Events are sent again with the webhook-id that they had, as long as their stream keeps them.")]
pub struct ReplayArgs {
    #[command(flatten)]
    place: Place,
    /// To this endpoint
    endpoint: String,
    /// Events stored not before: a time, or how long ago, such as 2h
    #[arg(long, value_parser = moment, required_unless_present = "ids")]
    since: Option<Timestamp>,
    /// Events stored not after: a time, or how long ago; now, if not given
    #[arg(long, value_parser = moment)]
    until: Option<Timestamp>,
    /// Only this webhook-id; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Maximum number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Events per second, at most 1000
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Count, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A time, or a span of time before now.
fn moment(s: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(at) = s.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = agentforge_config::parse_duration(s)
        .map_err(|_| "is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 2h")?;
    Timestamp::now().checked_sub(ago).map_err(|_| "is too long ago".to_owned())
}

pub(super) async fn deliveries(args: DeliveriesArgs, out: Output) -> Result {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let filter = query(&[
        ("endpoint", args.endpoint),
        ("id", args.id),
        ("outcome", args.outcome),
        ("since", time(args.since)),
        ("until", time(args.until)),
    ]);
    let (mut found, mut before) = (Vec::<Value>::new(), None::<String>);
    loop {
        let left = args.limit - found.len() as u64;
        let place = before.map(|place| format!("&before={place}")).unwrap_or_default();
        let path = format!("/v1/deliveries?limit={}{place}&{filter}", left.min(PAGE));
        let told = args.place.ask("GET", &path, "").await?;
        if let Some(problem) = told["problem"].as_str() {
            agentforge_terminal::warn(agentforge_terminal::clean(problem, 300));
        }
        let page = told["deliveries"].as_array().cloned().unwrap_or_default();
        // Each page is the oldest first, and older than the one before.
        found = page.into_iter().chain(found).collect();
        before = told["next_before"].as_str().map(word);
        if before.is_none() || found.len() as u64 >= args.limit {
            break;
        }
    }
    for attempt in &found {
        if out.json { out.document(attempt)? } else { out.line(line(attempt))? }
    }
    if found.is_empty() {
        out.note("no delivery is known that fits");
    }
    Ok(())
}

/// The totals of a replay.
#[derive(Debug, Default)]
struct Sum {
    matched: u64,
    replayed: u64,
}

pub(super) async fn replay(args: ReplayArgs, out: Output) -> Result {
    // Both rounds mean the same events.
    let until = args.until.unwrap_or_else(Timestamp::now);
    let counted = go(&args, until, true, out).await?;
    let meant = args.limit.unwrap_or(u64::MAX).min(counted.matched);
    if args.dry_run {
        return if out.json {
            out.document(&json!({ "matched": counted.matched, "would_replay": meant }))
        } else {
            out.line(format!("{meant} would be sent again to {}", args.endpoint))
        };
    }
    if meant == 0 {
        return if out.json {
            out.document(&json!({ "matched": 0, "replayed": 0 }))
        } else {
            out.line("there is nothing to send again")
        };
    }
    if !args.yes && !confirmed(&format!("send {meant} events again to {}? [y/N] ", args.endpoint))? {
        return Err(Failure::new("nothing was sent").hint("--yes does not ask, --dry-run only counts"));
    }
    let sent = go(&args, until, false, out).await?;
    if out.json {
        return out.document(&json!({ "matched": sent.matched, "replayed": sent.replayed }));
    }
    out.line(styled(GREEN, format!("{} are on their way again", sent.replayed)))
}

async fn go(args: &ReplayArgs, until: Timestamp, dry_run: bool, out: Output) -> Result<Sum> {
    let (mut sum, mut after, mut run) = (Sum::default(), Value::Null, Value::Null);
    loop {
        // A request takes a few seconds at most.
        let left = args.limit.unwrap_or(u64::MAX) - sum.matched;
        let chunk = CHUNK.min(left).min((args.rate * 5.0).ceil() as u64).max(1);
        let wanted = json!({
            "endpoint": args.endpoint, "since": args.since, "until": until, "ids": args.ids, "limit": chunk,
            "rate": args.rate, "dry_run": dry_run, "after": after, "run": run,
        });
        let told = args.place.ask("POST", "/v1/replay", &wanted.to_string()).await?;
        sum.matched += told["matched"].as_u64().unwrap_or_default();
        sum.replayed += told["replayed"].as_u64().unwrap_or_default();
        let is_enough = !dry_run && args.limit.is_some_and(|limit| sum.matched >= limit);
        if told["next_after"].is_null() || is_enough {
            return Ok(sum);
        }
        (after, run) = (told["next_after"].clone(), told["run"].clone());
        if !dry_run {
            out.note(format!("{} sent again", sum.replayed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_a_span_before_now() {
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap().to_string(), "2026-01-31T12:00:00Z");
        let ago = Timestamp::now().duration_since(moment("2h").unwrap()).as_secs();
        assert!((7199..=7201).contains(&ago), "{ago}");
        assert!(moment("yesterday").is_err());
    }
}
