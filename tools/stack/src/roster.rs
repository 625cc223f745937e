//! The services that there are.

/// The name of the orchestrator, in the ready file too.
pub const ORCHESTRATOR: &str = "orchestrator";
/// The name of the worker.
pub const WORKER: &str = "worker";
/// The name of the syncdaemon.
pub const SYNCDAEMON: &str = "syncdaemon";
/// The name of the NATS exporter.
pub const NATS_EXPORTER: &str = "nats-exporter";
/// The name of the tactical API.
pub const TACTICAL_API: &str = "tactical-api";
/// The name of the broadcaster.
pub const BROADCASTER: &str = "broadcaster";

/// What `--without` may leave out: jobs run without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Extra {
    /// Delivers the files of the replay directory
    Syncdaemon,
    /// Sends events to webhooks
    Broadcaster,
    /// Streams the picture of markers and zones
    TacticalApi,
    /// Metrics of the NATS server
    NatsExporter,
}
