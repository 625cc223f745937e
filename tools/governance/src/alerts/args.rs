//! The commands about alerts, with their options and examples. Parsing only.

use super::gates::Limits;
use clap::builder::BoolishValueParser;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every entry is complete and true to itself
    #[command(after_help = "\
Examples:
  agentforge governance alerts lint
  TAXONOMY_DEPRECATION_MAX_DAYS=60 agentforge governance alerts lint --strict")]
    Lint(LintArgs),
    /// Every rule has an entry that agrees with it, and the reverse
    #[command(after_help = "\
Examples:
  agentforge governance alerts check
  agentforge governance alerts check --taxonomy alerts_taxonomy.json --rules rules --rules more.yml")]
    Check(Inputs),
    /// Add entries for rules without one, to be filled in
    #[command(after_help = "\
Examples:
  agentforge governance alerts scaffold
  agentforge governance alerts scaffold --refresh")]
    Scaffold(ScaffoldArgs),
    /// Write the taxonomy as Markdown, HTML and JSON lines
    #[command(after_help = "\
Examples:
  agentforge governance alerts render
  agentforge governance alerts render --output public")]
    Render(TaxonomyArgs),
    /// Append what changed to ALERTS_CHANGELOG.md
    #[command(after_help = "\
Examples:
  agentforge governance alerts changelog --prev git:HEAD~1
  agentforge governance alerts changelog --prev old.json --curr new.json --file ALERTS_CHANGELOG.md")]
    Changelog(ChangelogArgs),
    /// Describe what changes, for a comment on a pull request
    #[command(after_help = "\
Examples:
  agentforge governance alerts delta --prev git:origin/main
  agentforge governance alerts delta --prev old.json --curr new.json --json")]
    Delta(Two),
    /// Send what changed to a webhook
    #[command(after_help = "\
Examples:
  agentforge governance alerts drift --prev git:HEAD~1 --webhook https://hooks.slack.com/services/T0/B0/secret
  TAXONOMY_SLACK_BLOCKS=1 agentforge governance alerts drift --prev old.json --curr new.json
  agentforge governance alerts drift --prev git:HEAD~1 --webhook nats://127.0.0.1:4222")]
    Drift(DriftArgs),
    /// Write metrics, badges and a dashboard of the taxonomy
    #[command(after_help = "\
Examples:
  agentforge governance alerts metrics
  agentforge governance alerts metrics --prev last-month.json --output public")]
    Metrics(MetricsArgs),
    /// Add today's metrics to the history
    #[command(after_help = "\
Examples:
  agentforge governance alerts history
  agentforge governance alerts history --output public")]
    History(HistoryArgs),
    /// Runbooks, churn and jumps of risk stay within their limits
    #[command(after_help = "\
Examples:
  agentforge governance alerts gate
  RUNBOOK_MIN_PERCENT=95 RISK_CHURN_SPIKE_FAIL=1 agentforge governance alerts gate")]
    Gate(GateArgs),
}

/// The taxonomy.
#[derive(Clone, Debug, clap::Args)]
pub struct TaxonomyArgs {
    /// The taxonomy
    #[arg(long, value_name = "FILE", default_value = "monitoring/alerts_taxonomy.json")]
    pub(super) taxonomy: PathBuf,
}

/// The taxonomy and the rules.
#[derive(Clone, Debug, clap::Args)]
pub struct Inputs {
    #[command(flatten)]
    pub(super) of: TaxonomyArgs,
    /// Rule files, or folders of them; repeated
    #[arg(long, value_name = "PATH", default_value = "monitoring/alerts")]
    pub(super) rules: Vec<PathBuf>,
}

/// What is asked of deprecated alerts.
#[derive(Clone, Debug, clap::Args)]
pub struct LintArgs {
    #[command(flatten)]
    pub(super) of: TaxonomyArgs,
    /// Days after which a deprecated alert should be gone; 0 is off
    #[arg(long, value_name = "DAYS", env = "TAXONOMY_DEPRECATION_MAX_DAYS", default_value_t = 0)]
    pub(super) max_days: u32,
    /// A deprecated alert that is too old is a fault, not a warning
    #[arg(long, env = "TAXONOMY_DEPRECATION_STRICT", value_parser = BoolishValueParser::new())]
    pub(super) strict: bool,
}

/// What is added.
#[derive(Clone, Debug, clap::Args)]
pub struct ScaffoldArgs {
    #[command(flatten)]
    pub(super) inputs: Inputs,
    /// Also bring expression, for, windows, group and labels of existing entries up to date
    #[arg(long)]
    pub(super) refresh: bool,
}

/// Two versions.
#[derive(Clone, Debug, clap::Args)]
pub struct Two {
    /// The taxonomy before: a file, or git:REVISION
    #[arg(long, value_name = "FILE|git:REV")]
    pub(super) prev: String,
    /// The taxonomy now
    #[arg(long, value_name = "FILE", default_value = "monitoring/alerts_taxonomy.json")]
    pub(super) curr: PathBuf,
}

/// Where the changelog is.
#[derive(Clone, Debug, clap::Args)]
pub struct ChangelogArgs {
    #[command(flatten)]
    pub(super) two: Two,
    /// The file that is appended to
    #[arg(long, value_name = "FILE", default_value = "ALERTS_CHANGELOG.md")]
    pub(super) file: PathBuf,
}

/// Where the notice goes.
#[derive(Clone, Debug, clap::Args)]
pub struct DriftArgs {
    #[command(flatten)]
    pub(super) two: Two,
    /// https://… is called; nats://… is published to, for the broadcaster. Without one it is only written
    #[arg(long, value_name = "URL", env = "TAXONOMY_WEBHOOK", hide_env_values = true)]
    pub(super) webhook: Option<String>,
    /// Format it as blocks of Slack
    #[arg(long, env = "TAXONOMY_SLACK_BLOCKS", value_parser = BoolishValueParser::new())]
    pub(super) blocks: bool,
}

/// What churn is counted from.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    #[command(flatten)]
    pub(super) of: TaxonomyArgs,
    /// The taxonomy of 30 days ago: a file, or git:REVISION [default: what git had then]
    #[arg(long, value_name = "FILE|git:REV")]
    pub(super) prev: Option<String>,
}

/// Which metrics are added.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// The metrics that `alerts metrics` wrote [default: status/taxonomy-metrics.json]
    #[arg(long, value_name = "FILE")]
    pub(super) metrics: Option<PathBuf>,
    /// Days that are kept
    #[arg(long, value_name = "DAYS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub(super) keep: u32,
}

/// The limits.
#[derive(Clone, Debug, clap::Args)]
pub struct GateArgs {
    /// The metrics that `alerts metrics` wrote [default: status/taxonomy-metrics.json]
    #[arg(long, value_name = "FILE")]
    pub(super) metrics: Option<PathBuf>,
    /// The history before them [default: status/taxonomy-metrics-history.json]
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    #[command(flatten)]
    pub(super) limits: Limits,
}
