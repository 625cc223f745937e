//! What a newcomer sees: where everything is, and what to try next.

use crate::{
    ready::{NatsReady, Ready},
    roster::{ORCHESTRATOR, SERVICES, SYNCDAEMON},
    settings::Settings,
};
use agentforge_terminal::{BOLD, CYAN, DIM, GREEN, Output, Result, styled};
use std::time::Duration;

/// The default of `--data-dir`.
const DEFAULT_DATA_DIR: &str = ".agentforge";
/// The default of `--server`.
const DEFAULT_GRPC: &str = "http://127.0.0.1:50051";

/// Where everything is. With `--json` the ready file's content.
///
/// # Errors
/// Output that cannot be written.
pub fn ready(ready: &Ready, settings: &Settings, took: Duration, out: Output) -> Result {
    if out.json {
        return out.document(ready);
    }
    let metrics = ready.services.get(ORCHESTRATOR).and_then(|s| s.metrics.clone()).unwrap_or_default();
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
    let of_services =
        SERVICES.iter().filter_map(|service| Some((service.lines)(ready.services.get(service.name)?, settings)));
    // Without a label they continue the line of NATS.
    let (more, mut lines): (Vec<_>, Vec<_>) = of_services.flatten().partition(|(label, _)| label.is_empty());
    lines.extend([("metrics", metrics), ("NATS", place_of(&ready.nats))]);
    lines.extend(more);
    lines.extend(ready.hub.as_ref().map(|hub| ("hub", place_of(hub))));
    lines.push(("data", format!("{}   logs {}", data.display(), data.join("logs").display())));
    for (name, value) in lines {
        text += &format!("  {} {value}\n", styled(BOLD, format!("{name:<8}")));
    }
    out.line(text)
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
    for service in SERVICES {
        lines.extend(ready.services.get(service.name).into_iter().flat_map(|ready| (service.tries)(&program, ready)));
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
