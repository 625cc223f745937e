//! What a plan reserves, what is there, and which settings change it: for people whose server is too small.

use super::plan::{Plan, setting_of};
use crate::api;
use async_nats::jetstream::Context;
use serde_json::{Value, json};

/// Says what the plan's streams reserve together, what the account has, and the settings to change.
pub async fn room(js: &Context, plan: &Plan) -> String {
    let needed: i64 = plan.streams.iter().map(|s| s.max_bytes.max(0) * s.num_replicas.max(1) as i64).sum();
    let mut settings: Vec<&str> = plan.streams.iter().filter_map(|s| setting_of(&s.name)).collect();
    settings.dedup();
    let account: Option<Value> = api::call(js, "INFO".to_owned(), &json!({})).await.ok();
    describe(needed, &settings, account.as_ref())
}

fn describe(needed: i64, settings: &[&str], account: Option<&Value>) -> String {
    let number = |path: &str| account.and_then(|a| a.pointer(path)).and_then(Value::as_i64);
    let limit = match number("/limits/max_storage") {
        Some(limit) if limit >= 0 => format!("the account may use {}", size(limit)),
        _ => "the server's own limit is jetstream.max_file_store".to_owned(),
    };
    let there = match (number("/reserved_storage"), number("/storage")) {
        (Some(reserved), Some(used)) => {
            format!(", the streams that exist reserve {} and use {}", size(reserved), size(used))
        }
        (None, Some(used)) => format!(", the streams that exist use {}", size(used)),
        _ => String::new(),
    };
    format!(
        "all streams and buckets together reserve {}; {limit}{there}. Raise that limit or lower {}",
        size(needed),
        settings.join(", ")
    )
}

fn size(bytes: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_there_and_the_settings_are_named() {
        let account =
            json!({"limits": {"max_storage": 2_147_483_648_i64}, "storage": 1024, "reserved_storage": 1_073_741_824});
        let text = describe(5_502_926_848, &["JOBS_MAX_BYTES", "DLQ_MAX_BYTES"], Some(&account));
        assert_eq!(
            text,
            "all streams and buckets together reserve 5.1 GiB; the account may use 2.0 GiB, the streams that exist \
             reserve 1.0 GiB and use 1.0 KiB. Raise that limit or lower JOBS_MAX_BYTES, DLQ_MAX_BYTES"
        );
        let silent = describe(1, &["JOBS_MAX_BYTES"], None);
        assert!(silent.contains("jetstream.max_file_store") && silent.contains("JOBS_MAX_BYTES"), "{silent}");
    }
}
