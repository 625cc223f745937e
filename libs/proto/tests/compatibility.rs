//! Messages of version 0.1, as they were sent: every later version must read them, and what this
//! version writes must be readable by 0.1, which ignores fields that it does not know.
#![allow(clippy::unwrap_used)]

use agentforge_proto::bus::{CancelSignal, DeadLetterMessage, Heartbeat, HeartbeatReply, JobEvent, JobMessage, Report};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads it, with and without a field of the future, and writes back all that was in it.
fn check<T: Serialize + DeserializeOwned>(name: &str, text: &str) {
    let read: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let before: Value = serde_json::from_str(text).unwrap();
    let after = serde_json::to_value(&read).unwrap();
    for field in leaves(&before) {
        assert!(leaves(&after).contains(&field), "{name}: {field} was lost");
    }
    let of_the_future = add_fields(before);
    serde_json::from_value::<T>(of_the_future).unwrap_or_else(|e| panic!("{name} with fields of a later version: {e}"));
}

/// Every `path=value` of a document.
fn leaves(v: &Value) -> Vec<String> {
    fn walk(path: &str, v: &Value, out: &mut Vec<String>) {
        match v {
            Value::Object(o) => o.iter().for_each(|(k, v)| walk(&format!("{path}.{k}"), v, out)),
            Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| walk(&format!("{path}[{i}]"), v, out)),
            leaf => out.push(format!("{path}={leaf}")),
        }
    }
    let mut out = vec![];
    walk("", v, &mut out);
    out
}

/// Adds an unknown field to the message and, where a report wraps it, to what it wraps.
fn add_fields(mut v: Value) -> Value {
    let extra = serde_json::json!({"of": "a later version"});
    if let Some(o) = v.as_object_mut() {
        for key in ["started", "finished", "rejected"] {
            if let Some(inner) = o.get_mut(key).and_then(Value::as_object_mut) {
                inner.insert("field_of_the_future".into(), extra);
                return v;
            }
        }
        o.insert("field_of_the_future".into(), extra);
    }
    v
}

macro_rules! fixture {
    ($name:literal, $t:ty) => {
        check::<$t>($name, include_str!(concat!("fixtures/v0.1/", $name, ".json")))
    };
}

#[test]
fn messages_of_0_1_stay_readable_and_unknown_fields_are_ignored() {
    fixture!("job_minimal", JobMessage);
    fixture!("job_full", JobMessage);
    fixture!("job_scheduled", JobMessage);
    fixture!("report_started", Report);
    fixture!("report_succeeded", Report);
    fixture!("report_offloaded", Report);
    fixture!("report_failed", Report);
    fixture!("report_cancelled", Report);
    fixture!("report_expired", Report);
    fixture!("report_rejected", Report);
    fixture!("heartbeat", Heartbeat);
    fixture!("heartbeat_leaving", Heartbeat);
    fixture!("heartbeat_reply", HeartbeatReply);
    fixture!("cancel_signal", CancelSignal);
    fixture!("cancel_signal_attempt", CancelSignal);
    fixture!("dead_letter", DeadLetterMessage);
    fixture!("event", JobEvent);
}
