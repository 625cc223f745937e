//! Endpoints made, changed and taken out by the broadcaster's API.

use super::place::{OneArgs, Place, moment, segment, text};
use agentforge_terminal::{Failure, GREEN, Output, Result, clean, styled};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Read, Write};

/// Longest secret or URL that is read from standard input.
const INPUT_MAX_BYTES: u64 = 64 << 10;

/// A new endpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook create billing https://billing.example.com/events --subject 'agentforge.events.job.*.succeeded'
  agentforge webhook create ops - --format slack --rate 1 --subject 'agentforge.events.alert.>' < slack-url
  agentforge webhook create archive https://archive.example.com/in --secret-stdin < secret

The secret is shown once. A URL of - is read from standard input, where other users cannot see it.")]
pub struct CreateArgs {
    #[command(flatten)]
    place: Place,
    /// Its name: letters, digits, hyphens
    name: String,
    /// Where requests go; - reads it from standard input
    endpoint_url: String,
    /// Its subjects; may be given several times
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// json, raw, cloudevents, slack, teams or discord
    #[arg(long)]
    format: Option<String>,
    /// Timeout of a request, such as 10s
    #[arg(long)]
    timeout: Option<String>,
    /// Messages per second, in each replica
    #[arg(long)]
    rate: Option<f64>,
    /// Concurrent requests, in each replica
    #[arg(long)]
    concurrency: Option<u32>,
    /// Retry client errors: true, false, or comma-separated statuses
    #[arg(long = "retry-4xx", value_name = "WHICH", value_parser = retry_4xx)]
    retry_4xx: Option<Value>,
    /// A header of each request, such as 'X-Team: blue'; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Begin with all events that the stream still has
    #[arg(long)]
    all: bool,
    /// Read the secret from standard input instead of generating one
    #[arg(long, conflicts_with = "unsigned")]
    secret_stdin: bool,
    /// Do not sign requests
    #[arg(long)]
    unsigned: bool,
}

/// What changes of an endpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook update billing --endpoint-url https://billing.example.com/v2/events
  agentforge webhook update billing --subject 'agentforge.events.job.*.succeeded' --subject 'agentforge.events.job.*.dead'
  agentforge webhook update ops --rate 2 --reset timeout
  agentforge webhook update archive --header 'X-Team: red' --remove-header X-Old

What is not named stays. What waits for the endpoint, its retries included, goes to the new URL. `webhook rotate`
changes its secret.")]
pub struct UpdateArgs {
    #[command(flatten)]
    place: Place,
    /// Its name
    endpoint: String,
    /// Where requests go from now on; - reads it from standard input
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// What it gets from now on; may be given several times
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// json, raw, cloudevents, slack, teams or discord
    #[arg(long)]
    format: Option<String>,
    /// Timeout of a request, such as 10s
    #[arg(long)]
    timeout: Option<String>,
    /// Messages per second, in each replica
    #[arg(long)]
    rate: Option<f64>,
    /// Concurrent requests, in each replica
    #[arg(long)]
    concurrency: Option<u32>,
    /// Retry client errors: true, false, or comma-separated statuses
    #[arg(long = "retry-4xx", value_name = "WHICH", value_parser = retry_4xx)]
    retry_4xx: Option<Value>,
    /// A header of each request, such as 'X-Team: blue'; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A header that requests have no more; may be given several times
    #[arg(long = "remove-header", value_name = "NAME")]
    removed_headers: Vec<String>,
    /// Back to the broadcaster's default; may be given several times
    #[arg(long = "reset", value_name = "WHAT", value_parser = ["subjects", "format", "timeout", "rate", "concurrency", "retry-4xx"])]
    resets: Vec<String>,
}

/// Another secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook rotate billing
  agentforge webhook rotate billing --overlap 7d
  agentforge webhook rotate billing --overlap 0s --secret-stdin < secret

Until the overlap is over requests are signed with the old secret, too. The new one is shown once.")]
pub struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// Its name
    endpoint: String,
    /// How long the old secret keeps signing, at most 30d
    #[arg(long, default_value = "24h")]
    overlap: String,
    /// Read the new secret from standard input instead of generating one
    #[arg(long)]
    secret_stdin: bool,
}

/// An endpoint that goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge webhook delete billing --yes")]
pub struct DeleteArgs {
    #[command(flatten)]
    place: Place,
    /// Its name
    endpoint: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn retry_4xx(s: &str) -> std::result::Result<Value, String> {
    match s {
        "true" | "on" => Ok(json!(true)),
        "false" | "off" => Ok(json!(false)),
        list => {
            let statuses = list.split(',').map(|s| s.trim().parse::<u16>()).collect::<std::result::Result<Vec<_>, _>>();
            statuses.map(|s| json!(s)).map_err(|_| "is neither true, false, nor statuses with commas".to_owned())
        }
    }
}

fn header(s: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = s.split_once(':').ok_or("has no colon between name and value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Standard input, without surrounding white space.
fn from_stdin(what: &str) -> Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(INPUT_MAX_BYTES).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(Failure::new(format!("there is no {what} on standard input"))),
        text => Ok(text.to_owned()),
    }
}

pub(super) async fn create(args: CreateArgs, out: Output) -> Result {
    if args.endpoint_url == "-" && args.secret_stdin {
        return Err(Failure::new("only one of URL and secret can come from standard input"));
    }
    let url = if args.endpoint_url == "-" { from_stdin("URL")? } else { args.endpoint_url };
    let mut wanted = Map::from_iter([("name".to_owned(), json!(args.name)), ("url".to_owned(), json!(url))]);
    let mut set = |name: &str, value: Value| drop(wanted.insert(name.to_owned(), value));
    if !args.subjects.is_empty() {
        set("subjects", json!(args.subjects));
    }
    for (name, value) in [("format", args.format), ("timeout", args.timeout)] {
        value.into_iter().for_each(|value| set(name, json!(value)));
    }
    args.rate.into_iter().for_each(|rate| set("rate", json!(rate)));
    args.concurrency.into_iter().for_each(|n| set("concurrency", json!(n)));
    args.retry_4xx.into_iter().for_each(|which| set("retry_4xx", which));
    if !args.headers.is_empty() {
        set("headers", Value::Object(args.headers.into_iter().map(|(name, value)| (name, json!(value))).collect()));
    }
    if args.all {
        set("start", json!("all"));
    }
    if args.secret_stdin {
        set("secret", json!(from_stdin("secret")?));
    }
    if args.unsigned {
        set("signed", json!(false));
    }
    let told = args.place.ask("POST", "/v1/endpoints", &Value::Object(wanted).to_string()).await?;
    if out.json {
        return out.document(&told);
    }
    out.line(styled(GREEN, format!("{} is made", text(&told, "name", 63))))?;
    show_secret(&told, out)
}

/// The body of a change: what is named, and null for what goes back to its default.
fn changes(args: &UpdateArgs, url: Option<String>) -> Map<String, Value> {
    let mut wanted = Map::new();
    let mut set =
        |name: &str, value: Option<Value>| value.into_iter().for_each(|v| drop(wanted.insert(name.into(), v)));
    set("url", url.map(Value::from));
    set("subjects", (!args.subjects.is_empty()).then(|| json!(args.subjects)));
    set("format", args.format.as_deref().map(Value::from));
    set("timeout", args.timeout.as_deref().map(Value::from));
    set("rate", args.rate.map(Value::from));
    set("concurrency", args.concurrency.map(Value::from));
    set("retry_4xx", args.retry_4xx.clone());
    let removed = args.removed_headers.iter().map(|name| (name.clone(), Value::Null));
    let headers: Map<String, Value> =
        removed.chain(args.headers.iter().map(|(name, value)| (name.clone(), json!(value)))).collect();
    set("headers", (!headers.is_empty()).then_some(Value::Object(headers)));
    args.resets.iter().for_each(|name| set(&name.replace('-', "_"), Some(Value::Null)));
    wanted
}

pub(super) async fn update(args: UpdateArgs, out: Output) -> Result {
    let url = match args.endpoint_url.as_deref() {
        Some("-") => Some(from_stdin("URL")?),
        url => url.map(str::to_owned),
    };
    let wanted = changes(&args, url);
    if wanted.is_empty() {
        return Err(Failure::new("nothing to change was named").hint("--help lists what can be changed"));
    }
    let path = format!("/v1/endpoints/{}", segment(&args.endpoint));
    let told = args.place.ask("PATCH", &path, &Value::Object(wanted).to_string()).await?;
    if out.json { out.document(&told) } else { out.line(format!("{} is changed", clean(&args.endpoint, 63))) }
}

fn show_secret(told: &Value, out: Output) -> Result {
    match told["secret"].as_str() {
        Some(secret) => out.line(format!("secret, shown this once: {}", clean(secret, 200))),
        None => Ok(()),
    }
}

pub(super) async fn show(args: OneArgs, out: Output) -> Result {
    let told = args.place.ask("GET", &format!("/v1/endpoints/{}", segment(&args.endpoint)), "").await?;
    if out.json {
        return out.document(&told);
    }
    for (name, value) in told.as_object().into_iter().flatten() {
        let shown = match value {
            Value::Null => continue,
            Value::Array(items) if items.is_empty() => continue,
            Value::Array(items) => {
                items.iter().filter_map(|item| Some(clean(item.as_str()?, 200))).collect::<Vec<_>>().join(", ")
            }
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => clean(text, 300),
            other => other.to_string(),
        };
        out.line(format!("{name:<16} {shown}"))?;
    }
    Ok(())
}

/// Pauses or resumes.
pub(super) async fn pause(args: OneArgs, pauses: bool, out: Output) -> Result {
    let verb = if pauses { "pause" } else { "resume" };
    let told = args.place.ask("POST", &format!("/v1/endpoints/{}/{verb}", segment(&args.endpoint)), "").await?;
    if out.json {
        return out.document(&told);
    }
    let name = clean(&args.endpoint, 63);
    out.line(if pauses { format!("{name} is paused; its events wait") } else { format!("{name} is resumed") })
}

pub(super) async fn rotate(args: RotateArgs, out: Output) -> Result {
    let mut wanted = json!({ "overlap": args.overlap });
    if args.secret_stdin {
        wanted["secret"] = json!(from_stdin("secret")?);
    }
    let path = format!("/v1/endpoints/{}/rotate", segment(&args.endpoint));
    let told = args.place.ask("POST", &path, &wanted.to_string()).await?;
    if out.json {
        return out.document(&told);
    }
    let until = moment(&told["old_secrets_end_at"]);
    out.line(format!("{} signs with another secret; the old one until {until}", clean(&args.endpoint, 63)))?;
    show_secret(&told, out)
}

pub(super) async fn delete(args: DeleteArgs, out: Output) -> Result {
    let name = clean(&args.endpoint, 63);
    if !args.yes && !confirmed(&format!("delete endpoint {name}? What waits for it is not delivered [y/N] "))? {
        return Err(Failure::new("nothing was deleted").hint("--yes does not ask"));
    }
    let told = args.place.ask("DELETE", &format!("/v1/endpoints/{}", segment(&args.endpoint)), "").await?;
    if out.json { out.document(&told) } else { out.line(format!("{name} is deleted")) }
}

/// Asks on a terminal; elsewhere it answers no.
pub(super) fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut error = std::io::stderr().lock();
    error.write_all(question.as_bytes())?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_read() {
        assert_eq!(retry_4xx("401, 404").unwrap(), json!([401, 404]));
        assert_eq!((retry_4xx("true").unwrap(), retry_4xx("off").unwrap()), (json!(true), json!(false)));
        assert!(retry_4xx("4xx").is_err());
        assert_eq!(header("X-Team: a:b").unwrap(), ("X-Team".to_owned(), "a:b".to_owned()));
        assert!(header("X-Team").is_err());
    }

    #[test]
    fn a_change_names_what_is_given_and_nulls_what_is_reset() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: UpdateArgs,
        }
        let parse = |line: &str| {
            let line = <Line as clap::Parser>::try_parse_from(line.split(' ')).unwrap();
            Value::Object(changes(&line.args, line.args.endpoint_url.clone()))
        };
        assert_eq!(parse("update a"), json!({}));
        assert_eq!(
            parse(
                "update a --endpoint-url https://b/ --rate 2 --reset timeout --reset retry-4xx --header X-A:1 --remove-header X-B"
            ),
            json!({ "url": "https://b/", "rate": 2.0, "timeout": null, "retry_4xx": null, "headers": { "X-A": "1", "X-B": null } })
        );
    }
}
