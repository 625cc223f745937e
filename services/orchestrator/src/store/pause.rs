//! The pause of a queue, as it is stored.

use agentforge_message_id::{Mission, Queue};
use agentforge_proto::time::Micros;

/// A queue that is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePause {
    /// Its mission.
    pub mission: Mission,
    /// Which one.
    pub queue: Queue,
    /// Since when.
    pub since: Micros,
    /// The name of the caller's token.
    pub by: String,
}
