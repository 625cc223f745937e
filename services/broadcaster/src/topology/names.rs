//! Names on the bus: our streams, subjects, consumers and the bucket. Values only.
//!
//! Environment and endpoint are one token each, without `_`, so that every pair of names is apart.

pub use agentforge_jetstream::topology::webhooks::{
    BUCKET_STATE, STREAM_DELIVERIES, STREAM_RETRIES, STREAM_WEBHOOK_DLQ as STREAM_DLQ,
};

/// Replicas share a core subscription by this name.
pub const QUEUE_GROUP: &str = "broadcaster-workers";
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
