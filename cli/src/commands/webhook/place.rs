//! Which broadcaster is asked, and how its answers are read and shown.

use agentforge_client::rest;
use agentforge_terminal::{Failure, GREEN, RED, Result, Token, YELLOW, clean, styled};
use serde_json::Value;
use std::time::Duration;

/// The broadcaster of `agentforge dev`.
const DEFAULT_URL: &str = "http://127.0.0.1:8002";
/// One answer; a redelivery with a rate takes as long as it says.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Letters sent again in one request, so that progress shows.
pub(super) const CHUNK: u64 = 200;
/// Characters of a detail in a table.
pub(super) const DETAIL_CHARS: usize = 80;

/// Which broadcaster.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The broadcaster's HTTP address
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    pub(super) url: String,
    /// Its token; prefer the environment, where other users cannot see it
    #[arg(long = "broadcaster-token", env = "BROADCASTER_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = agentforge_terminal::token)]
    token: Option<Token>,
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
    pub(super) place: Place,
    /// Its name
    pub(super) endpoint: String,
}

pub(super) fn rate(s: &str) -> std::result::Result<f64, String> {
    s.parse().ok().filter(|r| (0.01..=1000.0).contains(r)).ok_or_else(|| "is not between 0.01 and 1000".to_owned())
}

impl Place {
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let token = self.token.as_ref().map(|token| token.0.as_str());
        let failed = |why: String| {
            Failure::new(format!("no answer from {}: {why}", self.url))
                .hint("--url names the broadcaster's HTTP port (HTTP_PORT, 8002 if not set)")
        };
        let (status, text) = rest::call(&self.url, method, path, token, body, ANSWER_MAX).await.map_err(failed)?;
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
pub(super) fn segment(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// Filters as a query.
pub(super) fn query(pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", word(value.as_deref()?))));
    given.collect::<Vec<_>>().join("&")
}

pub(super) fn word(text: &str) -> String {
    let escaped = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escaped).collect()
}

pub(super) fn text(value: &Value, name: &str, max: usize) -> String {
    match &value[name] {
        Value::Null => String::new(),
        Value::String(text) => clean(text, max),
        other => other.to_string(),
    }
}

/// To the second.
pub(super) fn moment(value: &Value) -> String {
    value.as_str().unwrap_or_default().chars().filter(|c| c.is_ascii_graphic()).take(19).collect()
}

pub(super) fn line(attempt: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
