//! `agentforge sync`: how a running syncdaemon gets on.

use agentforge_client::rest;
use agentforge_terminal::{BOLD, Failure, GREEN, Output, RED, Result, YELLOW, bytes, clean, short_duration, styled};
use anstyle::Style;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// What to ask.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show queue, link and totals of a syncdaemon
    Status(StatusArgs),
}

/// Which daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge sync status
  agentforge sync status --url http://pier-7:8081
  agentforge sync status --json | jq .queue_depth")]
pub struct StatusArgs {
    /// The daemon's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    url: String,
}

/// What `/status` answers, as far as it is shown.
#[derive(Deserialize)]
struct Status {
    site: String,
    queue_dir: String,
    ledger_dir: String,
    subject: String,
    domain: Option<String>,
    link_up: bool,
    #[serde(default)]
    left_alone: LeftAlone,
    held: Option<Held>,
    large_held: Option<Held>,
    queue_depth: u64,
    #[serde(default)]
    counted: bool,
    #[serde(default)]
    stuck: Named,
    #[serde(default)]
    open: Named,
    in_flight: u64,
    oldest_file_age_s: f64,
    bandwidth_bps: f64,
    replayed: u64,
    duplicates: u64,
    #[serde(default)]
    recovered: u64,
    quarantined: u64,
    retried: u64,
    bytes: u64,
}

#[derive(Default, Deserialize)]
struct LeftAlone {
    files: u64,
    oldest_age_s: f64,
    quarantined: u64,
}

#[derive(Default, Deserialize)]
struct Named {
    files: u64,
    names: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
struct Held {
    reason: String,
    detail: String,
}

/// Asks it.
///
/// # Errors
/// It does not answer, or with something else.
pub async fn run(command: Command, out: Output) -> Result {
    let Command::Status(args) = command;
    let failed = |why: String| {
        Failure::new(format!("no status from {}: {why}", args.url))
            .hint("--url names the daemon's HTTP port (HTTP_PORT, 8081 if not set)")
    };
    let body = rest::page(&args.url, "/status").await.map_err(failed)?;
    let answer: Value = serde_json::from_str(&body).map_err(|e| failed(e.to_string()))?;
    let status = Status::deserialize(&answer).map_err(|e| failed(e.to_string()))?;
    if out.json {
        return out.document(&answer);
    }
    let link = if status.link_up { styled(GREEN, "up") } else { styled(RED, "down") };
    let domain = status.domain.map(|domain| format!(" (hub domain {domain})")).unwrap_or_default();
    let oldest = match status.queue_depth {
        0 => String::new(),
        _ => format!(", the oldest {}", short_duration(Duration::from_secs_f64(status.oldest_file_age_s.max(0.0)))),
    };
    let counting = if status.counted { "" } else { " or more" };
    let mut text = String::new();
    for (name, value) in [
        ("site", status.site),
        ("link", format!("{link}{domain}")),
        ("queue", format!("{} files{counting}{oldest}, {} in flight", status.queue_depth, status.in_flight)),
        ("sending", held(status.held.as_ref())),
        ("large files", held(status.large_held.as_ref())),
        ("bandwidth", format!("{}/s", bytes((status.bandwidth_bps / 8.0) as u64))),
        ("delivered", format!("{} files, {} duplicates, {}", status.replayed, status.duplicates, bytes(status.bytes))),
        ("recovered", status.recovered.to_string()),
        ("quarantined", format!("{}, {} there now", status.quarantined, status.left_alone.quarantined)),
        ("stuck", named(&status.stuck, RED)),
        ("open", named(&status.open, YELLOW)),
        ("left alone", left_alone(&status.left_alone)),
        ("retried", status.retried.to_string()),
        ("directory", clean(&status.queue_dir, 200)),
        ("ledger", clean(&status.ledger_dir, 200)),
        ("subject", status.subject),
    ] {
        text += &format!("{} {value}\n", styled(BOLD, format!("{name:<12}")));
    }
    out.text(&text)
}

fn held(by: Option<&Held>) -> String {
    match by {
        None => styled(GREEN, "sending"),
        Some(held) => styled(YELLOW, format!("pauses ({}): {}", held.reason, clean(&held.detail, 200))),
    }
}

fn named(files: &Named, colour: Style) -> String {
    match files.files {
        0 => "none".to_owned(),
        n => {
            let (names, reason) = (clean(&files.names.join(", "), 200), clean(&files.reason, 120));
            let why = if reason.is_empty() { reason } else { format!(" ({reason})") };
            format!("{}: {names}{why}", styled(colour, format!("{n} files")))
        }
    }
}

fn left_alone(left: &LeftAlone) -> String {
    match left.files {
        0 => "none".to_owned(),
        n => {
            format!("{n} names, the oldest for {}", short_duration(Duration::from_secs_f64(left.oldest_age_s.max(0.0))))
        }
    }
}
