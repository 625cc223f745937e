//! Names on the bus: our streams, subjects, consumers and the bucket. Values only.
//!
//! Environment and endpoint are one token each, without `_`, so that every pair of names is apart.

/// Retries: parked until they are due, and due.
pub const STREAM_RETRIES: &str = "broadcaster_retries";
pub const STREAM_DLQ: &str = "broadcaster_dlq";
/// What became of each attempt.
pub const STREAM_DELIVERIES: &str = "broadcaster_deliveries";
/// Disabled endpoints and open circuits.
pub const BUCKET_STATE: &str = "broadcaster_state";
/// Replicas share a core subscription by this name.
pub const QUEUE_GROUP: &str = "broadcaster-workers";
/// The subjects of retries that wait for their time.
pub const PARKED_FILTER: &str = "broadcaster.parked.>";
/// The subjects of retries whose time has come.
pub const DUE_FILTER: &str = "broadcaster.due.>";
/// Every dead letter.
pub const DLQ_FILTER: &str = "broadcaster.dlq.>";

/// An endpoint's parked retries; a token for the event follows. Here and below `>` names those of all endpoints.
pub fn parked(env: &str, endpoint: &str) -> String {
    format!("broadcaster.parked.{env}.{endpoint}")
}
/// An endpoint's due retries.
pub fn due(env: &str, endpoint: &str) -> String {
    format!("broadcaster.due.{env}.{endpoint}")
}
/// An endpoint's dead letters.
pub fn dlq(env: &str, endpoint: &str) -> String {
    format!("broadcaster.dlq.{env}.{endpoint}")
}
/// An endpoint's durable consumer, on the streams of its events and on that of retries.
pub fn durable(env: &str, endpoint: &str) -> String {
    format!("broadcaster-{env}-{endpoint}")
}
/// An endpoint's key in the bucket.
pub fn state_key(env: &str, endpoint: &str) -> String {
    format!("{env}.{endpoint}")
}
/// What became of attempts in an environment.
pub fn deliveries(env: &str) -> String {
    format!("broadcaster.deliveries.{env}")
}
/// The key of the endpoints that the API made. No environment begins so.
pub fn managed_key(env: &str) -> String {
    format!("_made.{env}")
}
/// The endpoint in one of our subjects.
pub fn endpoint_of(subject: &str) -> Option<&str> {
    subject.split('.').nth(3)
}
/// Where alerts of a severity are published.
pub fn alert(severity: &str) -> String {
    format!("agentforge.events.alert.{severity}")
}
