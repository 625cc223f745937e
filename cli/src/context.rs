//! What a command that talks to the orchestrator needs.

use agentforge_client::Client;
use agentforge_terminal::Output;

/// What a command that talks to the orchestrator needs.
pub struct Context {
    /// The client of the orchestrator, with the address and token of this call.
    pub client: Client,
    /// Where the answer goes.
    pub out: Output,
}
