//! Alertmanager's webhook becomes events: one CloudEvent an alert. Pure but for the publishing.
//!
//! Alertmanager repeats itself until an alert is over; within the stream's duplicate window a repetition is
//! known by its id.

use crate::topology::names;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Alerts of one call, at most.
pub const ALERTS_MAX: usize = 1000;

/// The body of a call of Alertmanager's webhook (version 4), as far as it is read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AlertmanagerCall)]
pub struct Call<'a> {
    /// At most 1000; each becomes one event.
    #[serde(borrow)]
    #[schema(value_type = Vec<Alert>)]
    pub alerts: Vec<&'a RawValue>,
}

/// One alert, as far as it is read; the event holds it as it came.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AlertmanagerAlert)]
pub struct Alert {
    /// `resolved`; every other value counts as firing.
    #[serde(default)]
    status: String,
    /// `severity` is part of the event's subject, `alertname` is the event's subject field.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    labels: BTreeMap<String, Value>,
    /// RFC 3339. With fingerprint and state it is the event's id, so a repeated call makes no second event.
    #[serde(default, rename = "startsAt")]
    starts_at: String,
    /// Of the alert's labels; without one, `alertname` is used.
    #[serde(default)]
    fingerprint: String,
}

/// An alert, ready to be published.
#[derive(Debug, PartialEq, Eq)]
pub struct AlertEvent {
    /// Where it is published: `agentforge.events.alert.<severity>`.
    pub subject: String,
    /// `Nats-Msg-Id` and the event's id.
    pub id: String,
    /// The CloudEvent in structured JSON, with the alert as it came as `data`.
    pub body: Vec<u8>,
}

/// Makes events of a call.
///
/// # Errors
/// What is wrong with the body.
pub fn events(body: &[u8], now: jiff::Timestamp) -> Result<Vec<AlertEvent>, String> {
    let call: Call<'_> = serde_json::from_slice(body).map_err(|e| format!("no webhook of Alertmanager: {e}"))?;
    if call.alerts.len() > ALERTS_MAX {
        return Err(format!("{} alerts in one call; at most {ALERTS_MAX} are taken", call.alerts.len()));
    }
    call.alerts.into_iter().map(|alert| event(alert, now)).collect()
}

fn event(raw: &RawValue, now: jiff::Timestamp) -> Result<AlertEvent, String> {
    #[derive(Serialize)]
    struct CloudEvent<'a> {
        specversion: &'a str,
        id: &'a str,
        source: &'a str,
        #[serde(rename = "type")]
        kind: String,
        subject: String,
        time: String,
        datacontenttype: &'a str,
        data: &'a RawValue,
    }
    let alert: Alert = serde_json::from_str(raw.get()).map_err(|e| format!("an alert cannot be read: {e}"))?;
    let label = |name: &str| alert.labels.get(name).and_then(Value::as_str).unwrap_or_default();
    let state = if alert.status == "resolved" { "resolved" } else { "firing" };
    let severity = token(label("severity"));
    let fingerprint = if alert.fingerprint.is_empty() { token(label("alertname")) } else { token(&alert.fingerprint) };
    let id = format!("alert:{fingerprint}:{}:{state}", alert.starts_at.replace('.', "-"));
    let event = CloudEvent {
        specversion: "1.0",
        id: &id,
        source: "/agentforge/alertmanager",
        kind: format!("agentforge.alert.{state}"),
        subject: label("alertname").chars().take(200).collect(),
        time: now.to_string(),
        datacontenttype: "application/json",
        data: raw,
    };
    let body = serde_json::to_vec(&event).map_err(|e| e.to_string())?;
    Ok(AlertEvent { subject: names::alert(&severity), id, body })
}

/// One token of a subject, from any text in a label.
fn token(text: &str) -> String {
    let kept: String =
        text.to_ascii_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    if kept.is_empty() { "none".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_is_an_event_of_its_severity() {
        let body = br#"{"version":"4","status":"firing","alerts":[
            {"status":"firing","labels":{"alertname":"Late","severity":"critical"},"startsAt":"2026-01-01T00:00:00.5Z","fingerprint":"ab12"},
            {"status":"resolved","labels":{"alertname":"Odd","severity":"a.b > *"}}]}"#;
        let made = events(body, jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(made[0].subject, "agentforge.events.alert.critical");
        assert_eq!(made[0].id, "alert:ab12:2026-01-01T00:00:00-5Z:firing");
        assert_eq!((&*made[1].subject, &*made[1].id), ("agentforge.events.alert.ab", "alert:odd::resolved"));
        let event: Value = serde_json::from_slice(&made[0].body).unwrap();
        assert_eq!(
            (&event["type"], &event["data"]["labels"]["alertname"]),
            (&"agentforge.alert.firing".into(), &"Late".into())
        );
    }

    #[test]
    fn other_bodies_are_refused() {
        for bad in ["", "{}", "[]", r#"{"alerts":[1]}"#, r#"{"alerts":"x"}"#] {
            assert!(events(bad.as_bytes(), jiff::Timestamp::UNIX_EPOCH).is_err(), "{bad}");
        }
        let many = format!(r#"{{"alerts":[{}]}}"#, vec!["{}"; ALERTS_MAX + 1].join(","));
        assert!(events(many.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap_err().contains("1000"));
    }
}
