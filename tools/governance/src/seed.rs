//! `agentforge seed`: calls what is called too rarely to be measured, a few times, and says that it did.
//!
//! Prometheus says how often a target is called. While Prometheus is down nothing is sent: without a rate it is not
//! known whether a target needs it. Every request is a GET with a header that marks it.

use crate::exit::broken;
use agentforge_egress::{Client, Policy, Timeouts, client, read_body_capped};
use agentforge_terminal::{Failure, Output, Result, runtime, warn};
use clap::builder::BoolishValueParser;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use url::Url;

/// Requests of one run.
pub const REQUESTS_MAX: usize = 10;
/// A target that is called at least as often, per second, needs no help.
pub const ORGANIC_MIN: f64 = 0.1;
/// Marks each request, so that logs and rules can leave it out.
pub const HEADER: (&str, &str) = ("x-synthetic-traffic", "agentforge-seed");
/// More targets are a mistake.
const TARGETS_MAX: usize = 1_000;
/// Of an answer so much is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where to look, and what to call.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Prometheus' address
    #[arg(long, value_name = "URL", env = "PROMETHEUS_URL", default_value = "http://127.0.0.1:9090")]
    prometheus: Url,
    /// A target; its rate is that of agentforge_http_requests_total with service=NAME; repeated
    #[arg(long, value_name = "NAME=URL", value_parser = target)]
    target: Vec<Target>,
    /// More targets: a JSON list of {"name", "url", "query"}
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// Say what would be sent, and send nothing
    #[arg(long, env = "SEED_DRY_RUN", value_parser = BoolishValueParser::new())]
    dry_run: bool,
    /// Requests of this run, at most 10
    #[arg(long, value_name = "N", default_value_t = REQUESTS_MAX as u8, value_parser = clap::value_parser!(u8).range(1..=REQUESTS_MAX as i64))]
    max: u8,
}

/// What may be called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What it is called in the answer, and in the query that is used where none is given.
    name: String,
    /// What is called with GET.
    url: Url,
    /// PromQL for its rate per second.
    query: Option<String>,
}

impl Target {
    fn query(&self) -> String {
        let name = self.name.replace('\\', "\\\\").replace('"', "\\\"");
        self.query
            .clone()
            .unwrap_or_else(|| format!("sum(rate(agentforge_http_requests_total{{service=\"{name}\"}}[10m]))"))
    }
}

fn target(text: &str) -> std::result::Result<Target, String> {
    let (name, url) = text.split_once('=').ok_or("a target is NAME=URL")?;
    let url = url.parse::<Url>().map_err(|e| format!("{url:?} is not a URL: {e}"))?;
    Ok(Target { name: name.to_owned(), url, query: None })
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Seeded {
    target: String,
    rate: f64,
    planned: usize,
    sent: usize,
    failed: usize,
}

/// Looks at every target, and calls those that need it.
///
/// # Errors
/// No target is named, a file cannot be read, or every request failed.
pub fn run(args: &Args, out: Output) -> Result {
    let mut targets = args.target.clone();
    if let Some(path) = &args.targets {
        targets.extend(crate::artifact::read_json::<Vec<Target>>(path)?);
        if targets.len() > TARGETS_MAX {
            return Err(broken(path, 0, format_args!("more than the limit of {TARGETS_MAX} targets")));
        }
    }
    if targets.is_empty() {
        return Err(Failure::usage("no target is named").hint("--target NAME=URL, or --targets FILE"));
    }
    let hosts = targets.iter().map(|target| &target.url).chain([&args.prometheus]).filter_map(Url::host_str);
    let (policy, _) = Policy::from_entries(hosts.map(|host| host.trim_matches(['[', ']'])));
    let timeouts = Timeouts { connect: Duration::from_secs(3), total: Duration::from_secs(10) };
    let runtime = runtime()?;
    runtime.block_on(async {
        let client = client(&policy, timeouts).map_err(|e| Failure::new(e.to_string()))?;
        seed(&client, args, &targets, out).await
    })
}

async fn seed(client: &Client, args: &Args, targets: &[Target], out: Output) -> Result {
    let mut rates = Vec::new();
    for target in targets {
        match rate(client, &args.prometheus, &target.query()).await {
            Ok(rate) => rates.push(rate),
            Err(why) => {
                warn(format_args!("Prometheus gives no rate, so nothing is sent: {why}"));
                return if out.json { out.document(&Vec::<Seeded>::new()) } else { Ok(()) };
            }
        }
    }
    let plan = plan(&rates, usize::from(args.max));
    let mut seeded = Vec::new();
    for ((target, rate), planned) in targets.iter().zip(&rates).zip(plan) {
        let (mut sent, mut failed) = (0, 0);
        for _ in 0..if args.dry_run { 0 } else { planned } {
            match call(client, &target.url).await {
                Ok(()) => sent += 1,
                Err(_) => failed += 1,
            }
        }
        seeded.push(Seeded { target: target.name.clone(), rate: *rate, planned, sent, failed });
    }
    if out.json {
        out.document(&seeded)?;
    } else {
        for one in &seeded {
            let verb = if args.dry_run { "would be sent" } else { "planned" };
            out.line(format_args!(
                "{}: {} per second, {} {verb}, {} sent, {} failed",
                one.target, one.rate, one.planned, one.sent, one.failed
            ))?;
        }
    }
    let (sent, failed) = seeded.iter().fold((0, 0), |(s, f), one| (s + one.sent, f + one.failed));
    if sent == 0 && failed > 0 { Err(Failure::new(format!("all {failed} requests failed"))) } else { Ok(()) }
}

/// How many requests each target gets: one after the other in turn, until `max` are given away.
fn plan(rates: &[f64], max: usize) -> Vec<usize> {
    let mut plan = vec![0; rates.len()];
    let needy: Vec<usize> = (0..rates.len()).filter(|n| rates[*n] < ORGANIC_MIN).collect();
    for n in needy.iter().cycle().take(if needy.is_empty() { 0 } else { max }) {
        plan[*n] += 1;
    }
    plan
}

/// The rate of a query; what was never called has no series, and so 0.
async fn rate(client: &Client, prometheus: &Url, query: &str) -> std::result::Result<f64, String> {
    let mut url = prometheus.clone();
    url.path_segments_mut().map_err(|()| "its address takes no path")?.pop_if_empty().extend(["api", "v1", "query"]);
    url.query_pairs_mut().append_pair("query", query);
    let request = client.request(Method::GET, url).map_err(|e| e.to_string())?;
    let response = request.send().await.map_err(|e| e.without_url().to_string())?;
    let status = response.status();
    let body = read_body_capped(response, ANSWER_BYTES_MAX).await.map_err(|e| e.without_url().to_string())?;
    let answer: Value = serde_json::from_slice(&body.bytes).map_err(|_| format!("it answers {status}"))?;
    if answer["status"] != "success" {
        return Err(format!("it refuses {query:?}: {}", answer["error"].as_str().unwrap_or("without a reason")));
    }
    let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    Ok(value.filter(|rate| rate.is_finite()).unwrap_or(0.0))
}

async fn call(client: &Client, url: &Url) -> std::result::Result<(), String> {
    let request = client.request(Method::GET, url.clone()).map_err(|e| e.to_string())?;
    let request = request
        .header(HEADER.0, HEADER.1)
        .header(reqwest::header::USER_AGENT, concat!("agentforge-seed/", env!("CARGO_PKG_VERSION")));
    let response = request.send().await.map_err(|e| e.without_url().to_string())?;
    // Any answer was measured by the target.
    let _ = read_body_capped(response, ANSWER_BYTES_MAX).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_in_turn_to_those_that_are_called_too_rarely() {
        assert_eq!(plan(&[0.0, 5.0, 0.05], 10), [5, 0, 5]);
        assert_eq!(plan(&[0.0, 0.0, 0.0, 0.1], 10), [4, 3, 3, 0]);
        assert_eq!(plan(&[0.1, 9.0], 10), [0, 0]);
        assert_eq!(plan(&[0.0; 20], 10).iter().sum::<usize>(), 10);
    }
}
