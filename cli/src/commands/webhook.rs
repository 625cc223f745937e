//! `agentforge webhook`: endpoints, attempts and dead letters of a running broadcaster.

mod endpoints;
mod history;
mod place;

use agentforge_terminal::{Failure, GREEN, Output, RED, Result, Table, age, clean, styled};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use place::{CHUNK, DETAIL_CHARS, OneArgs, Place, line, query, rate, segment, text};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// Bytes of a secret; receivers take 24 to 64.
const SECRET_BYTES: usize = 32;
/// Between looks of `tail`.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow attempts as they are made
    Tail(TailArgs),
    /// List endpoints, or dead letters
    List(ListArgs),
    /// Send dead letters again
    Redeliver(RedeliverArgs),
    /// Send an event to an endpoint now and show what it answers
    Test(OneArgs),
    /// Enable an endpoint that answered 410
    Enable(OneArgs),
    /// Create an endpoint
    Create(endpoints::CreateArgs),
    /// Change an endpoint that was created through the API
    Update(endpoints::UpdateArgs),
    /// Show one endpoint
    Show(OneArgs),
    /// Pause an endpoint; its events wait
    Pause(OneArgs),
    /// Resume a paused endpoint
    Resume(OneArgs),
    /// Rotate an endpoint's secret; for a while requests are signed with both
    Rotate(endpoints::RotateArgs),
    /// Delete an endpoint that was created through the API
    Delete(endpoints::DeleteArgs),
    /// Generate a secret and print it
    #[command(after_help = "Examples:\n  agentforge webhook secret > billing-secret")]
    Secret,
    /// Search past attempts
    Deliveries(history::DeliveriesArgs),
    /// Send past events again
    Replay(history::ReplayArgs),
}

/// What to follow.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook tail
  agentforge webhook tail --endpoint billing
  agentforge webhook tail --json | jq -r 'select(.outcome != \"delivered\") | .detail'")]
pub struct TailArgs {
    #[command(flatten)]
    place: Place,
    /// Only this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Begin with this many past attempts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    last: u32,
    /// End after these
    #[arg(long)]
    no_follow: bool,
}

/// What to list.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook list
  agentforge webhook list --dead --endpoint billing --reason client_error
  agentforge webhook list --dead --json | jq -r '.dead_letters[].webhook_id'")]
pub struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Dead letters instead of endpoints, the oldest first
    #[arg(long)]
    dead: bool,
    /// Only of this endpoint
    #[arg(long, requires = "dead")]
    endpoint: Option<String>,
    /// Only with this reason
    #[arg(long, requires = "dead")]
    reason: Option<String>,
    /// Start from this number
    #[arg(long, requires = "dead", default_value_t = 0)]
    after: u64,
    /// Maximum number
    #[arg(long, requires = "dead", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

/// What to send again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook redeliver 4711
  agentforge webhook redeliver --endpoint billing --rate 20
  agentforge webhook redeliver --all --reason timeout --limit 500")]
pub struct RedeliverArgs {
    #[command(flatten)]
    place: Place,
    /// Numbers of dead letters, as shown by `list --dead`
    #[arg(required_unless_present_any = ["endpoint", "reason", "all"], conflicts_with_all = ["endpoint", "reason", "all"])]
    seqs: Vec<u64>,
    /// Those of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Those with this reason
    #[arg(long)]
    reason: Option<String>,
    /// Every dead letter that matches the filters
    #[arg(long)]
    all: bool,
    /// Dead letters per second, at most 1000
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Maximum number
    #[arg(long)]
    limit: Option<u64>,
}

/// Runs it.
///
/// # Errors
/// The broadcaster does not answer, or refuses.
pub async fn run(command: Command, out: Output) -> Result {
    match command {
        Command::Tail(args) => tail(args, out).await,
        Command::List(args) if args.dead => list_dead(args, out).await,
        Command::List(args) => list(&args.place, out).await,
        Command::Redeliver(args) => redeliver(args, out).await,
        Command::Test(args) => test(args, out).await,
        Command::Create(args) => endpoints::create(args, out).await,
        Command::Update(args) => endpoints::update(args, out).await,
        Command::Show(args) => endpoints::show(args, out).await,
        Command::Pause(args) => endpoints::pause(args, true, out).await,
        Command::Resume(args) => endpoints::pause(args, false, out).await,
        Command::Rotate(args) => endpoints::rotate(args, out).await,
        Command::Delete(args) => endpoints::delete(args, out).await,
        Command::Secret => {
            let secret = new_secret()?;
            if out.json { out.document(&json!({ "secret": secret })) } else { out.line(secret) }
        }
        Command::Deliveries(args) => history::deliveries(args, out).await,
        Command::Replay(args) => history::replay(args, out).await,
        Command::Enable(args) => {
            let told = args.place.ask("POST", &format!("/v1/endpoints/{}/enable", segment(&args.endpoint)), "").await?;
            if out.json { out.document(&told) } else { out.line(format!("{} is enabled", clean(&args.endpoint, 63))) }
        }
    }
}

/// Random bytes as Standard Webhooks writes a secret.
fn new_secret() -> Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new("the system gives no random bytes"))?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}

async fn tail(args: TailArgs, out: Output) -> Result {
    let filter = query(&[("endpoint", args.endpoint.clone())]);
    let mut after: Option<u64> = None;
    loop {
        let path = match after {
            None => format!("/v1/deliveries?limit={}&{filter}", args.last.max(1)),
            Some(after) => format!("/v1/deliveries?after={after}&limit=1000&{filter}"),
        };
        let told = args.place.ask("GET", &path, "").await?;
        let attempts = told["deliveries"].as_array().cloned().unwrap_or_default();
        let shown = if after.is_none() && args.last == 0 { &[][..] } else { &attempts[..] };
        for attempt in shown {
            if out.json { out.document(attempt)? } else { out.line(line(attempt))? }
        }
        after = match after {
            // What came before may be of other replicas, which count for themselves.
            None => told["last_n"].as_u64().or(Some(0)),
            after => attempts.last().and_then(|a| a["n"].as_u64()).or(after),
        };
        if args.no_follow {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn list(place: &Place, out: Output) -> Result {
    let told = place.ask("GET", "/v1/endpoints", "").await?;
    if out.json {
        return out.document(&told);
    }
    let headings = ["ENDPOINT", "STATE", "CIRCUIT", "PENDING", "FORMAT", "SIGNED", "SOURCE", "SUBJECTS", "DETAIL"];
    let mut table = Table::new(headings).right(3);
    for e in told["endpoints"].as_array().into_iter().flatten() {
        let subjects: Vec<String> =
            e["subjects"].as_array().into_iter().flatten().filter_map(|s| Some(clean(s.as_str()?, 60))).collect();
        let state = text(e, "state", 20);
        let signed = if e["signed"] == true { "yes" } else { "no" };
        table.row(
            [
                text(e, "name", 63),
                state.clone(),
                text(e, "circuit", 10),
                text(e, "pending", 12),
                text(e, "format", 12),
                signed.to_owned(),
                text(e, "source", 12),
                subjects.join(", "),
                text(e, "detail", DETAIL_CHARS),
            ],
            None,
        );
    }
    table.print(
        out,
        "there are no endpoints: `agentforge webhook create`, WEBHOOK_URL or BROADCASTER_ENDPOINTS_FILE make one",
    )
}

#[derive(Deserialize)]
struct Letter {
    seq: u64,
    endpoint: String,
    webhook_id: String,
    attempts: u32,
    reason: String,
    detail: String,
    dead_at: Timestamp,
}

async fn list_dead(args: ListArgs, out: Output) -> Result {
    let filter = query(&[("endpoint", args.endpoint), ("reason", args.reason)]);
    let path = format!("/v1/dead-letters?after={}&limit={}&{filter}", args.after, args.limit);
    let told = args.place.ask("GET", &path, "").await?;
    if out.json {
        return out.document(&told);
    }
    let letters: Vec<Letter> = serde_json::from_value(told["dead_letters"].clone()).map_err(std::io::Error::from)?;
    let mut table =
        Table::new(["SEQ", "ENDPOINT", "REASON", "ATTEMPTS", "AGE", "WEBHOOK ID", "DETAIL"]).right(0).right(3);
    let now = Timestamp::now();
    for l in letters {
        table.row(
            [
                l.seq.to_string(),
                clean(&l.endpoint, 63),
                clean(&l.reason, 30),
                l.attempts.to_string(),
                age(l.dead_at, now),
                clean(&l.webhook_id, 128),
                clean(&l.detail, DETAIL_CHARS),
            ],
            None,
        );
    }
    table.print(out, "there are no dead letters")?;
    match told["next_after"].as_u64() {
        Some(after) => out.line(format!("there are more: --after {after}")),
        None => Ok(()),
    }
}

async fn redeliver(args: RedeliverArgs, out: Output) -> Result {
    let (mut redelivered, mut missing, mut refused, mut after) = (0, 0, Vec::new(), 0);
    loop {
        let left = args.limit.unwrap_or(u64::MAX) - redelivered;
        // A request takes a few seconds at most.
        let chunk = CHUNK.min(left).min((args.rate * 5.0).ceil() as u64).max(1);
        let wanted = json!({
            "seqs": args.seqs,
            "endpoint": args.endpoint,
            "reason": args.reason,
            "all": args.all,
            "after": after,
            "limit": if args.seqs.is_empty() { chunk } else { args.seqs.len() as u64 },
            "rate": args.rate,
        });
        let told = args.place.ask("POST", "/v1/dead-letters/redeliver", &wanted.to_string()).await?;
        redelivered += told["redelivered"].as_u64().unwrap_or_default();
        missing += told["missing"].as_u64().unwrap_or_default();
        refused.extend(told["refused"].as_array().cloned().unwrap_or_default());
        match told["next_after"].as_u64() {
            Some(next) if redelivered < args.limit.unwrap_or(u64::MAX) => after = next,
            _ => break,
        }
        out.note(format!("{redelivered} sent again"));
    }
    if out.json {
        return out.document(&json!({ "redelivered": redelivered, "missing": missing, "refused": refused }));
    }
    for letter in &refused {
        out.note(format!("{} cannot be sent again: {}", text(letter, "seq", 20), text(letter, "reason", 200)));
    }
    let more = if missing > 0 { format!(", {missing} not there") } else { String::new() };
    out.line(format!("{}{more}", styled(GREEN, format!("{redelivered} sent again"))))
}

async fn test(args: OneArgs, out: Output) -> Result {
    let told = args.place.ask("POST", &format!("/v1/endpoints/{}/test", segment(&args.endpoint)), "").await?;
    let delivered = told["delivered"] == true;
    if out.json {
        out.document(&told)?;
    } else {
        let took = told["took_ms"].as_f64().unwrap_or_default();
        let style = if delivered { GREEN } else { RED };
        out.line(format!("{} in {took:.1} ms", styled(style, text(&told, "detail", 300))))?;
    }
    if delivered { Ok(()) } else { Err(Failure::quiet(agentforge_terminal::FAILED)) }
}
