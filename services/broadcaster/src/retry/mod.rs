//! What waits: records of messages that could not be delivered, within their quota, until they are due or dead.

pub mod quota;
pub mod record;
pub mod reserve;
pub mod schedule;
pub mod server_clock;
pub mod store;
pub mod sweep;
