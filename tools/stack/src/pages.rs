//! `agentforge settings` and the catalogue of metrics: from the declarations, so they cannot be stale.

use crate::roster::{ORCHESTRATOR, SERVICES, find};
use agentforge_config::Setting;
use agentforge_runtime::pages::{Declared, configuration_page, metrics_page, settings_by_group};
use agentforge_terminal::{Output, Result};
use serde::Serialize;

/// How settings are shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge settings
  agentforge settings --markdown > docs/configuration.md
  agentforge settings --json | jq -r '.groups[].settings[].key'")]
pub struct SettingsArgs {
    /// As tables in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// How metrics are shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge metrics-catalogue --markdown > docs/METRICS.md")]
pub struct MetricsArgs {
    /// As tables in Markdown (the only form)
    #[arg(long)]
    markdown: bool,
}

type Groups = Vec<(String, Vec<Setting>)>;

/// What each service declares.
pub fn declared() -> Vec<Declared> {
    SERVICES.iter().map(|service| (service.program.declared)()).collect()
}

/// Prints every setting.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &SettingsArgs, out: Output) -> Result {
    if args.markdown {
        return out.text(&configuration_page(&declared()));
    }
    let groups = settings_by_group(&declared());
    if out.json {
        return out.document(&json(&groups));
    }
    let borrowed: Vec<(&str, &[Setting])> =
        groups.iter().map(|(name, list)| (name.as_str(), list.as_slice())).collect();
    out.text(&agentforge_config::help(&borrowed))
}

/// Prints every metric.
///
/// # Errors
/// Output that cannot be written.
pub fn run_metrics(_args: &MetricsArgs, out: Output) -> Result {
    out.text(&metrics_page(&declared()))
}

/// Whose OpenAPI document is printed.
#[derive(Debug, clap::Args)]
pub struct OpenapiArgs {
    /// A service with an HTTP API
    #[arg(long, default_value = ORCHESTRATOR, value_parser = clap::builder::PossibleValuesParser::new(documented()))]
    service: String,
    /// Names of the services that have one, instead
    #[arg(long, conflicts_with = "service")]
    list: bool,
}

/// Names of services that have a document.
fn documented() -> Vec<&'static str> {
    SERVICES.iter().filter(|service| service.openapi.is_some()).map(|service| service.name).collect()
}

/// Prints the OpenAPI document of an HTTP API, indented; or who has one.
///
/// # Errors
/// Output that cannot be written.
pub fn run_openapi(args: &OpenapiArgs, out: Output) -> Result {
    if args.list {
        return documented().into_iter().try_for_each(|name| out.line(name));
    }
    let document =
        find(&args.service).and_then(|service| service.openapi).map(|document| document()).unwrap_or_default();
    let document: serde_json::Value = serde_json::from_str(&document).map_err(std::io::Error::from)?;
    out.text(&format!("{document:#}\n"))
}

fn json(groups: &Groups) -> impl Serialize {
    let shown = |s: &Setting| {
        serde_json::json!({
            "key": s.key,
            "values": s.values,
            "default": s.default,
            "default_note": s.default_note,
            "help": s.help,
            "secret": s.secret,
        })
    };
    let groups: Vec<_> = groups
        .iter()
        .map(|(name, list)| serde_json::json!({ "name": name, "settings": list.iter().map(shown).collect::<Vec<_>>() }))
        .collect();
    serde_json::json!({ "groups": groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_every_service_stands_once_per_meaning() {
        let groups = settings_by_group(&declared());
        let all: Vec<Setting> = groups.iter().flat_map(|(_, list)| list.iter().copied()).collect();
        for service in SERVICES {
            let lists = (service.program.settings)();
            for setting in lists.iter().flat_map(|(_, l)| l) {
                assert_eq!(all.iter().filter(|s| *s == setting).count(), 1, "{}", setting.key);
            }
        }
        assert!(groups.iter().all(|(_, list)| !list.is_empty()));
    }
}
