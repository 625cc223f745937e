//! Options that every command has: which orchestrator, as whom, and in which form.

use crate::{
    error::{Failure, Result},
    values::{Token, duration, server, token},
};
use agentforge_client::{Client, Options, trust};
use std::path::PathBuf;
use std::time::Duration;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The orchestrator's gRPC address
    #[arg(long, global = true, env = "AGENTFORGE_SERVER", value_name = "URL", default_value = "http://127.0.0.1:50051", value_parser = server, help_heading = "Global options")]
    pub server: String,
    /// Bearer token; prefer the environment, where other users cannot see it
    #[arg(long, global = true, env = "AGENTFORGE_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token, help_heading = "Global options")]
    pub token: Option<Token>,
    /// PEM file of the authorities to trust for https:// servers, instead of the system's
    #[arg(long, global = true, env = "AGENTFORGE_CA_FILE", value_name = "FILE", help_heading = "Global options")]
    pub ca: Option<PathBuf>,
    /// Print JSON, one document per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long one request may take; waiting for jobs is not counted
    #[arg(long, global = true, env = "AGENTFORGE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Global options")]
    pub request_timeout: Duration,
}

impl Global {
    /// Has this process trust the authorities that they name, if they do.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn trust(&self) -> Result<()> {
        let Some(ca) = &self.ca else { return Ok(()) };
        trust(ca).map_err(|e| Failure::from(anyhow::Error::from(e)).hint("--ca or AGENTFORGE_CA_FILE names the file"))
    }

    /// A client of the orchestrator that they name. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A server that cannot be used.
    pub fn client(&self) -> Result<Client> {
        self.trust()?;
        Ok(Client::new(Options {
            server: self.server.clone(),
            token: self.token.as_ref().map(|token| token.0.clone()),
            request_timeout: self.request_timeout,
            user_agent: concat!("agentforge-cli/", env!("CARGO_PKG_VERSION")).to_owned(),
        })?)
    }
}
