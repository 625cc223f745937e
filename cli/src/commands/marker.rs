//! `agentforge marker`: put markers and zones on the live picture, and follow it.

use agentforge_client::tactical::{Endpoint, Event};
use agentforge_terminal::{BOLD, DIM, Failure, Global, Output, RED, Result, YELLOW, clean, styled};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// The default address of a tactical API.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8010";
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries of the first connection and of each later one, before giving up.
const TRIES_MAX: u32 = 60;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publish a marker or a zone, or move it
    Post(PostArgs),
    /// Remove a marker or a zone
    Remove(RemoveArgs),
    /// Follow the picture
    Watch(WatchArgs),
}

/// Where the tactical API is.
#[derive(Debug, clap::Args)]
struct At {
    /// The tactical API's HTTP address
    #[arg(long, env = "AGENTFORGE_TACTICAL_URL", value_name = "URL", default_value = DEFAULT_URL)]
    url: String,
}

impl At {
    fn endpoint(&self, global: &Global) -> Result<Endpoint> {
        Ok(Endpoint::new(&self.url, global.token.as_ref().map(|token| token.0.as_str()))?)
    }
}

/// A state.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge marker post 'Road closed' --at 13.3777,52.5163 --severity high
  agentforge marker post Truck --id truck-7 --at 13.40,52.51       # again, with the same id, moves it
  agentforge marker post 'No entry' --zone '13.35,52.51 13.37,52.51 13.37,52.52 13.35,52.52' --expires-in 2h")]
pub struct PostArgs {
    /// What is shown; one line
    title: String,
    /// Its id [default: a generated one]
    #[arg(long)]
    id: Option<String>,
    /// Where it was reported [default: the site of the tactical API]
    #[arg(long)]
    site: Option<String>,
    /// A marker's place: longitude,latitude in degrees
    #[arg(long, value_name = "LON,LAT", value_parser = place, required_unless_present = "zone", allow_hyphen_values = true)]
    at: Option<[f64; 2]>,
    /// A zone's corners, separated by spaces
    #[arg(long, value_name = "LON,LAT LON,LAT LON,LAT ...", value_parser = corners, conflicts_with = "at", allow_hyphen_values = true)]
    zone: Option<Corners>,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// Its severity
    #[arg(long, default_value = "low", value_parser = ["low", "medium", "high", "critical"])]
    severity: String,
    /// Evidence that belongs to it: site/sha256, or its alias
    #[arg(long, value_name = "ID")]
    evidence_id: Option<String>,
    /// It is removed after this time, such as 90s or 2h
    #[arg(long, value_name = "DURATION", value_parser = agentforge_terminal::duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    at_url: At,
}

/// The corners of a zone.
#[derive(Clone, Debug)]
pub struct Corners(Vec<[f64; 2]>);

/// What goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge marker remove truck-7
  agentforge marker remove harbour --zone --site pier-7")]
pub struct RemoveArgs {
    /// Its name
    id: String,
    /// It is a zone
    #[arg(long)]
    zone: bool,
    /// Where it was reported [default: the site of the tactical API]
    #[arg(long)]
    site: Option<String>,
    #[command(flatten)]
    at_url: At,
}

/// What to follow.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge marker watch
  agentforge marker watch --snapshot --severity high,critical
  agentforge marker watch --bbox 13.0,52.3,13.8,52.7 --json | jq -c .properties
  agentforge marker watch --since 2026-01-01T00:00:00Z --count 100")]
pub struct WatchArgs {
    /// Begin with the current picture
    #[arg(long)]
    snapshot: bool,
    /// Begin after an id or a sequence, or at a time (RFC 3339)
    #[arg(long, value_name = "ID|TIME", conflicts_with = "snapshot")]
    since: Option<String>,
    /// Only inside a box: west,south,east,north in degrees
    #[arg(long, allow_hyphen_values = true)]
    bbox: Option<String>,
    /// Only these severities, comma-separated
    #[arg(long)]
    severity: Option<String>,
    /// Only of these sites, comma-separated
    #[arg(long)]
    site: Option<String>,
    /// Only markers or only zones
    #[arg(long, value_parser = ["marker", "zone"])]
    kind: Option<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    at_url: At,
}

/// Does it.
///
/// # Errors
/// The tactical API does not answer, or refuses.
pub async fn run(command: Command, global: &Global, out: Output) -> Result {
    match command {
        Command::Post(args) => post(args, global, out).await,
        Command::Remove(args) => remove(&args, global, out).await,
        Command::Watch(args) => watch(args, global, out).await,
    }
}

async fn post(args: PostArgs, global: &Global, out: Output) -> Result {
    let endpoint = args.at_url.endpoint(global)?;
    let mut body = json!({ "title": args.title, "severity": args.severity });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[name] = value;
        }
    };
    set("id", args.id.map(Value::from));
    set("site", args.site.map(Value::from));
    set("description", args.description.map(Value::from));
    set("evidence_id", args.evidence_id.map(Value::from));
    set("coordinates", args.at.map(|at| json!(at)));
    let path = if args.zone.is_some() { "/v1/zones" } else { "/v1/markers" };
    set("polygon", args.zone.map(|zone| json!(zone.0)));
    let end = args.expires_in.map(|after| jiff::Timestamp::now().checked_add(after));
    let end = end.transpose().map_err(|_| Failure::usage("--expires-in is too long"))?;
    set("expires_at", end.map(|end| json!(end.to_string())));
    let told = endpoint.send("POST", path, Some(&body)).await?;
    if out.json {
        return out.document(&told);
    }
    let text = |name: &str| clean(told[name].as_str().unwrap_or_default(), 128);
    out.line(format!(
        "{} {} of {} is on the picture as {}",
        text("kind"),
        styled(BOLD, text("id")),
        text("site"),
        text("event_id")
    ))
}

async fn remove(args: &RemoveArgs, global: &Global, out: Output) -> Result {
    let endpoint = args.at_url.endpoint(global)?;
    let kind = if args.zone { "zones" } else { "markers" };
    let site = args.site.as_ref().map(|site| format!("?site={}", encoded(site))).unwrap_or_default();
    let told = endpoint.send("DELETE", &format!("/v1/{kind}/{}{site}", encoded(&args.id)), None).await?;
    if out.json {
        return out.document(&told);
    }
    out.line(format!("{} is removed", styled(BOLD, clean(&args.id, 128))))
}

async fn watch(args: WatchArgs, global: &Global, out: Output) -> Result {
    let endpoint = args.at_url.endpoint(global)?;
    let parameters = [
        ("snapshot", args.snapshot.then(|| "true".to_owned())),
        ("since", args.since),
        ("bbox", args.bbox),
        ("severity", args.severity),
        ("site", args.site),
        ("kind", args.kind),
    ];
    let query: Vec<String> =
        parameters.into_iter().filter_map(|(k, v)| Some(format!("{k}={}", encoded(&v?)))).collect();
    let path = format!("/events/stream?{}", query.join("&"));
    let (mut left, mut last_id, mut tries) = (args.count.unwrap_or(u64::MAX), String::new(), 0);
    while left > 0 {
        let mut events = match endpoint.follow(&path, &last_id).await {
            Ok(events) => events,
            // It was there before, so it may come back.
            Err(_) if !last_id.is_empty() && tries < TRIES_MAX => {
                tries += 1;
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        loop {
            match events.next().await {
                Ok(event) => {
                    // It was there and is full, or has not heard its stream yet; it says why and ends.
                    if matches!(event.kind.as_str(), "too_many_clients" | "too_many_clients_ip" | "unavailable") {
                        tries += 1;
                        let reason = clean(event.data["detail"].as_str().unwrap_or_default(), 200);
                        if tries > TRIES_MAX {
                            return Err(Failure::new(format!("the tactical API refused ({}): {reason}", event.kind)));
                        }
                        out.note(format!("not let in yet: {reason}"));
                        break;
                    }
                    tries = 0;
                    show(&event, out)?;
                    left -= 1;
                    if left == 0 {
                        return Ok(());
                    }
                }
                Err(error) => {
                    tries = 0;
                    out.note(format!("the stream ended ({error}), reconnecting from the last event"));
                    break;
                }
            }
        }
        last_id.clone_from(&events.last_id);
        sleep(AGAIN).await;
    }
    Ok(())
}

/// One line per event; with `--json` the event itself.
fn show(event: &Event, out: Output) -> Result {
    let Event { kind, data } = event;
    if out.json {
        return out.line(json!({ "event": kind, "data": data }));
    }
    let properties = &data["properties"];
    let text = |name: &str| clean(properties[name].as_str().unwrap_or_default(), 80);
    match kind.as_str() {
        "marker" | "zone" => {
            let grave = match text("severity").as_str() {
                word @ ("critical" | "high") => styled(RED, word),
                word @ "medium" => styled(YELLOW, word),
                word => styled(DIM, word),
            };
            let place = match &data["geometry"]["coordinates"] {
                Value::Array(at) if at.first().is_some_and(Value::is_number) => {
                    format!("{} {}", at[0], at.get(1).unwrap_or(&Value::Null))
                }
                rings @ Value::Array(_) => format!("{} points", points(rings)),
                _ => String::new(),
            };
            let name = styled(BOLD, format!("{}/{}", text("site"), text("id")));
            let link = properties["evidence_link"].as_str().map(|link| format!("  {}", styled(DIM, link)));
            out.line(format!("{kind:<6} {name}  {grave}  {}  {place}{}", text("title"), link.unwrap_or_default()))
        }
        "remove" => out.line(format!("{kind:<6} {}/{}", text("site"), text("id"))),
        _ => out.line(styled(YELLOW, format!("{kind:<6} {}", clean(&data.to_string(), 200)))),
    }
}

/// Points of a polygon, or of several.
fn points(coordinates: &Value) -> usize {
    match coordinates {
        Value::Array(at) if at.first().is_some_and(Value::is_number) => 1,
        Value::Array(parts) => parts.iter().map(points).sum(),
        _ => 0,
    }
}

fn place(text: &str) -> Result<[f64; 2], String> {
    let (lon, lat) = text.split_once(',').ok_or("is not longitude,latitude")?;
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| format!("{text} is no number"));
    Ok([number(lon)?, number(lat)?])
}

fn corners(text: &str) -> Result<Corners, String> {
    text.split_whitespace().map(place).collect::<Result<_, _>>().map(Corners)
}

/// Percent-encoded: everything but what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        assert_eq!(place("13.4, -52.5").unwrap(), [13.4, -52.5]);
        assert_eq!(corners("0,0 1,0 1,1").unwrap().0.len(), 3);
        for wrong in ["", "1", "1,x", "1;2"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
        let two = json!([[[[170, 0], [180, 0], [180, 1], [170, 0]]], [[[-180, 0], [-170, 0], [-180, 1], [-180, 0]]]]);
        assert_eq!((points(&two), points(&two[0]), points(&json!(null))), (8, 4, 0));
        assert_eq!(encoded("a b/ü+2026-01-01T00:00:00Z"), "a%20b%2F%C3%BC%2B2026-01-01T00%3A00%3A00Z");
    }

    #[test]
    fn only_plain_addresses_are_taken() {
        for right in ["http://127.0.0.1:8010/", "https://x:1"] {
            assert!(Endpoint::new(right, None).is_ok(), "{right}");
        }
        for wrong in ["ftp://x:1", "127.0.0.1:8010", "http://", "http://x:1/path"] {
            assert!(Endpoint::new(wrong, None).is_err(), "{wrong}");
        }
    }
}
