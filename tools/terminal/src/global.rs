//! Options that every command has: which orchestrator, as whom, and in which form.

use crate::{
    error::Result,
    values::{Token, duration, server, token},
};
use agentforge_client::{Client, Options};
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
    /// Print JSON, one document per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long one request may take; waiting for jobs is not counted
    #[arg(long, global = true, env = "AGENTFORGE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Global options")]
    pub request_timeout: Duration,
}

impl Global {
    /// A client of the orchestrator that they name. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A server that cannot be used.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(Options {
            server: self.server.clone(),
            token: self.token.as_ref().map(|token| token.0.clone()),
            request_timeout: self.request_timeout,
            user_agent: concat!("agentforge-cli/", env!("CARGO_PKG_VERSION")).to_owned(),
        })?)
    }
}
