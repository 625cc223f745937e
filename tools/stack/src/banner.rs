//! What a newcomer sees: where everything is, and what to try next.

use crate::{
    ready::{NatsReady, Ready},
    roster::{BROADCASTER, NATS_EXPORTER, ORCHESTRATOR, SYNCDAEMON, TACTICAL_API, WORKER},
    settings::Settings,
};
use agentforge_terminal::{BOLD, CYAN, DIM, GREEN, Output, Result, styled};
use std::time::Duration;

/// The default of `--data-dir`.
const DEFAULT_DATA_DIR: &str = ".agentforge";
/// The default of `--server`.
const DEFAULT_GRPC: &str = "http://127.0.0.1:50051";

/// The default of `--url` of `marker`.
const DEFAULT_TACTICAL: &str = "http://127.0.0.1:8010";
/// The default of `--url` of `webhook`.
const DEFAULT_BROADCASTER: &str = "http://127.0.0.1:8002";

/// Where everything is. With `--json` the ready file's content.
///
/// # Errors
/// Output that cannot be written.
pub fn ready(ready: &Ready, settings: &Settings, took: Duration, out: Output) -> Result {
    if out.json {
        return out.document(ready);
    }
    let http = ready.http(ORCHESTRATOR).unwrap_or_default();
    let service = ready.services.get(ORCHESTRATOR);
    let grpc = service.and_then(|s| s.grpc.as_deref()).unwrap_or_default();
    let metrics = service.and_then(|s| s.metrics.as_deref()).unwrap_or_default();
    let mut text = format!(
        "{} in {:.1} s. Ctrl-C stops everything.\n\n",
        styled(GREEN, "AgentForge is ready"),
        took.as_secs_f64()
    );
    if let Some(site) = &settings.site {
        text += &format!(
            "  The services and their NATS server are those of the site {}. The hub is a second NATS server.\n  \
             Between them is a link that you can cut: the site works on, and its evidence follows later.\n\n",
            styled(BOLD, site)
        );
    }
    let data = &settings.data;
    let mut lines = vec![
        ("REST", format!("{http}/v1   docs {http}/docs")),
        ("gRPC", grpc.to_owned()),
        ("worker", format!("{}/readyz", ready.http(WORKER).unwrap_or_default())),
    ];
    let replay = settings.replay();
    lines.extend(ready.http(SYNCDAEMON).map(|url| ("replay", format!("{}   status {url}/status", replay.display()))));
    lines.extend(ready.http(TACTICAL_API).map(|url| ("tactical", format!("{url}/events/stream"))));
    lines.extend(ready.http(BROADCASTER).map(|url| ("webhooks", webhooks(url, settings))));
    lines.extend([("metrics", metrics.to_owned()), ("NATS", place_of(&ready.nats))]);
    let exporter = ready.services.get(NATS_EXPORTER).and_then(|s| s.metrics.clone());
    lines.extend(exporter.map(|page| ("", format!("as metrics {page}"))));
    lines.extend(ready.hub.as_ref().map(|hub| ("hub", place_of(hub))));
    lines.push(("data", format!("{}   logs {}", data.display(), data.join("logs").display())));
    for (name, value) in lines {
        text += &format!("  {} {value}\n", styled(BOLD, format!("{name:<8}")));
    }
    out.line(text)
}

fn webhooks(url: &str, settings: &Settings) -> String {
    let sink = settings.webhook_sink.as_ref().map(|sink| format!("   to a sink at {sink}")).unwrap_or_default();
    format!("{url}/v1/endpoints{sink}")
}

fn place_of(nats: &NatsReady) -> String {
    let monitor = nats.monitor.as_ref().map(|m| format!("   monitoring {m}")).unwrap_or_default();
    format!("{}{monitor}", nats.url)
}

/// Commands to try. Silent with `--json`.
///
/// # Errors
/// Output that cannot be written.
pub fn next_steps(ready: &Ready, settings: &Settings, has_digest: bool, out: Output) -> Result {
    if out.json {
        return Ok(());
    }
    let program = std::env::args().next().unwrap_or_else(|| "agentforge".to_owned());
    let grpc = ready.services.get(ORCHESTRATOR).and_then(|s| s.grpc.as_deref()).unwrap_or_default();
    let mut lines = Vec::new();
    if grpc != DEFAULT_GRPC {
        lines.push(format!("export AGENTFORGE_SERVER={grpc}"));
    }
    lines.push(format!("{program} job submit echo '{{\"hello\":\"world\"}}' --wait"));
    if has_digest {
        lines.push(format!("{program} job submit digest '{{\"path\":\"README.md\"}}' --wait"));
    }
    lines.push(format!("{program} job submit fail '{{}}' --max-attempts 1; {program} dlq list"));
    lines.push(format!("{program} job list"));
    lines.push(format!("{program} schedule create every-minute --cron '* * * * *' echo '{{\"tick\":true}}'"));
    lines.push(format!("{program} agent list"));
    if let Some(tactical) = ready.http(TACTICAL_API) {
        let at = if tactical == DEFAULT_TACTICAL { String::new() } else { format!(" --url {tactical}") };
        lines.push(format!("{program} marker watch --snapshot{at}"));
        lines.push(format!("curl -N {tactical}/events/stream"));
    }
    if let Some(broadcaster) = ready.http(BROADCASTER) {
        let at = if broadcaster == DEFAULT_BROADCASTER { String::new() } else { format!(" --url {broadcaster}") };
        lines.push(format!("{program} webhook tail{at}"));
    }
    if let Some(hub) = ready.hub.as_ref().filter(|_| ready.http(SYNCDAEMON).is_some()) {
        lines.extend(edge_steps(&program, settings, &hub.url));
    }
    let mut text = format!(
        "{} {}\n",
        styled(BOLD, "Try, in another terminal:"),
        styled(DIM, "(every command has --help and --json)")
    );
    for line in lines {
        text += &format!("  {}\n", styled(CYAN, line));
    }
    out.text(&text)
}

/// Cut the link, hand in evidence, restore it, look for proof.
fn edge_steps(program: &str, settings: &Settings, hub: &str) -> Vec<String> {
    let is_default = std::env::current_dir().is_ok_and(|here| here.join(DEFAULT_DATA_DIR) == settings.data);
    let at = if is_default { String::new() } else { format!(" --data-dir {}", settings.data.display()) };
    vec![
        format!("{program} link down{at}"),
        format!("cp README.md {}/", settings.replay().display()),
        format!("{program} link up{at}"),
        format!("{program} ledger verify {} --nats-url {hub}", settings.ledger().display()),
    ]
}
