//! How much waits on a queue's consumer, as JetStream counts it: the figure that workers are scaled by.
//!
//! Only reads. Without an address no server is asked, and the backlog is not shown.

use agentforge_jetstream::subjects::{STREAM_JOBS, worker_durable};
use agentforge_message_id::{Mission, Queue};
use agentforge_terminal::{Failure, Result};
use async_nats::jetstream::{self, consumer};
use std::time::Duration;
use tokio::time::timeout;

/// One question, and one connect.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Where NATS is.
#[derive(Debug, clap::Args)]
pub struct NatsArgs {
    /// Also ask NATS, and show how many messages waited
    #[arg(long, env = "AGENTFORGE_NATS_URL", value_name = "URL")]
    nats_url: Option<String>,
    /// Its user
    #[arg(long, env = "AGENTFORGE_NATS_USER", value_name = "NAME", requires = "nats_password")]
    nats_user: Option<String>,
    /// The user's password; prefer the environment
    #[arg(long, env = "AGENTFORGE_NATS_PASSWORD", value_name = "TEXT", hide_env_values = true, value_parser = agentforge_terminal::token)]
    nats_password: Option<agentforge_terminal::Token>,
}

/// A connection that looks.
pub struct Lag(jetstream::Context);

impl Lag {
    /// Connects where an address was given.
    ///
    /// # Errors
    /// There is no server, or it refuses the user.
    pub async fn connect(args: &NatsArgs) -> Result<Option<Self>> {
        let Some(url) = &args.nats_url else { return Ok(None) };
        let mut options = async_nats::ConnectOptions::new().name("agentforge-backlog");
        if let (Some(user), Some(password)) = (&args.nats_user, &args.nats_password) {
            // Like the services: a user may subscribe only to its own replies.
            options = options
                .user_and_password(user.clone(), password.0.clone())
                .custom_inbox_prefix(format!("_INBOX.{user}"));
        }
        let failed = |why: String| Failure::new(format!("NATS cannot be asked for the backlog: {why}"));
        match timeout(ASK_MAX, options.connect(url)).await {
            Ok(Ok(client)) => Ok(Some(Self(jetstream::new(client)))),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("no answer".to_owned())),
        }
    }

    /// Waiting and in work on the queue's consumer; `None` without an answer in time.
    pub async fn of(&self, mission: &str, queue: &str) -> Option<u64> {
        let name = worker_durable(&Mission::new(mission).ok()?, &Queue::new(queue).ok()?);
        let nothing = serde_json::json!({});
        let ask = self.0.request(format!("CONSUMER.INFO.{STREAM_JOBS}.{name}"), &nothing);
        let info: consumer::Info = match timeout(ASK_MAX, ask).await.ok()?.ok()? {
            jetstream::response::Response::Ok(info) => info,
            jetstream::response::Response::Err { .. } => return None,
        };
        Some(info.num_pending + info.num_ack_pending as u64)
    }
}
