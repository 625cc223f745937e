//! `agentforge webhook`: endpoints, attempts and dead letters of a running broadcaster.

mod endpoints;
mod history;

use crate::{
    args::Token,
    dev::probe,
    error::{Failure, Result},
    output::{GREEN, Output, RED, Table, YELLOW, age, clean, styled},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// The broadcaster of `agentforge dev`.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8002";
/// Between looks of `tail`.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// One answer; a redelivery with a rate takes as long as it says.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Letters sent again in one request, so that progress shows.
const CHUNK: u64 = 200;
/// Characters of a detail in a table.
const DETAIL_CHARS: usize = 80;

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
    /// Let an endpoint that answered 410 have events again
    Enable(OneArgs),
    /// Make an endpoint
    Create(endpoints::CreateArgs),
    /// Change an endpoint that was made here
    Update(endpoints::UpdateArgs),
    /// Show one endpoint
    Show(OneArgs),
    /// Hold an endpoint's events back
    Pause(OneArgs),
    /// Let a paused endpoint have its events
    Resume(OneArgs),
    /// Give an endpoint another secret; for a while both sign
    Rotate(endpoints::RotateArgs),
    /// Take an endpoint out that was made here
    Delete(endpoints::DeleteArgs),
    /// Make a secret and print it
    #[command(after_help = "Examples:\n  agentforge webhook secret > billing-secret")]
    Secret,
    /// Search what became of attempts
    Deliveries(history::DeliveriesArgs),
    /// Send events again that were delivered before
    Replay(history::ReplayArgs),
}

/// Which broadcaster.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The broadcaster's HTTP address
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    url: String,
    /// Its token; better given by the environment, where other users cannot see it
    #[arg(long = "broadcaster-token", env = "BROADCASTER_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = crate::args::token)]
    token: Option<Token>,
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
    /// Begin with so many of the past
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
    /// From this place on
    #[arg(long, requires = "dead", default_value_t = 0)]
    after: u64,
    /// At most so many
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
    /// Places of dead letters, as `list --dead` shows them
    #[arg(required_unless_present_any = ["endpoint", "reason", "all"], conflicts_with_all = ["endpoint", "reason", "all"])]
    seqs: Vec<u64>,
    /// Those of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Those with this reason
    #[arg(long)]
    reason: Option<String>,
    /// Every one that the filters let through
    #[arg(long)]
    all: bool,
    /// Letters a second, at most 1000
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// At most so many
    #[arg(long)]
    limit: Option<u64>,
}

/// Which endpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook test default
  agentforge webhook show billing
  agentforge webhook pause billing
  agentforge webhook resume billing
  agentforge webhook enable billing --url http://broadcaster:8002")]
pub struct OneArgs {
    #[command(flatten)]
    place: Place,
    /// Its name
    endpoint: String,
}

fn rate(s: &str) -> std::result::Result<f64, String> {
    s.parse().ok().filter(|r| (0.01..=1000.0).contains(r)).ok_or_else(|| "is not between 0.01 and 1000".to_owned())
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
            let secret = agentforge_broadcaster::new_secret();
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

impl Place {
    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let token = self.token.as_ref().map(|token| token.0.as_str());
        let failed = |why: String| {
            Failure::new(format!("no answer from {}: {why}", self.url))
                .hint("--url names the broadcaster's HTTP port (HTTP_PORT, 8002 if not set)")
        };
        let (status, text) = probe::call(&self.url, method, path, token, body, ANSWER_MAX).await.map_err(failed)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        match status {
            200 | 201 => Ok(value),
            _ => {
                let detail = value["detail"].as_str().unwrap_or(text.as_str());
                let failure = Failure::new(format!("the broadcaster answers {status}: {}", clean(detail, 300)));
                Err(match value["code"].as_str() {
                    Some(code) => failure.code(code),
                    None => failure,
                })
            }
        }
    }
}

/// A name as one segment of a path.
fn segment(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// Filters as a query.
fn query(pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", word(value.as_deref()?))));
    given.collect::<Vec<_>>().join("&")
}

fn word(text: &str) -> String {
    let escaped = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escaped).collect()
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

fn text(value: &Value, name: &str, max: usize) -> String {
    match &value[name] {
        Value::Null => String::new(),
        Value::String(text) => clean(text, max),
        other => other.to_string(),
    }
}

/// To the second.
fn moment(value: &Value) -> String {
    value.as_str().unwrap_or_default().chars().filter(|c| c.is_ascii_graphic()).take(19).collect()
}

fn line(attempt: &Value) -> String {
    let outcome = text(attempt, "outcome", 20);
    let style = match outcome.as_str() {
        "delivered" => GREEN,
        "retried" | "set_aside" => YELLOW,
        _ => RED,
    };
    let took = attempt["took_ms"].as_f64().unwrap_or_default();
    let mut line = format!(
        "{}  {:<16} {}  attempt {} {:>4} {took:>8.1} ms  {}",
        moment(&attempt["at"]),
        text(attempt, "endpoint", 63),
        styled(style, format!("{outcome:<9}")),
        text(attempt, "attempt", 4),
        text(attempt, "status", 4),
        text(attempt, "webhook_id", 128),
    );
    let detail = text(attempt, "detail", DETAIL_CHARS);
    if !detail.is_empty() {
        line += &format!("  {detail}");
    }
    if attempt["next_at"].is_string() {
        line += &format!("  again at {}", moment(&attempt["next_at"]));
    }
    line
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
    if delivered { Ok(()) } else { Err(Failure::quiet(crate::error::FAILED)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_cannot_leave_its_place_in_a_url() {
        assert_eq!(segment("a/../b?x"), "abx");
        assert_eq!(query(&[("endpoint", Some("a&b=c".into())), ("reason", None)]), "endpoint=a%26b%3Dc");
    }

    #[test]
    fn an_attempt_is_one_line() {
        let attempt = json!({"n":1,"at":"2026-01-01T00:00:00Z","endpoint":"a","webhook_id":"w","attempt":2,
            "outcome":"retried","status":503,"took_ms":1.25,"detail":"answered\n503","next_at":"2026-01-01T00:00:05Z"});
        let line = line(&attempt);
        assert!(
            !line.contains('\n') && line.contains("503") && line.contains("again at 2026-01-01T00:00:05"),
            "{line}"
        );
    }
}
