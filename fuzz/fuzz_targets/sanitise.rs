//! Whatever is published, what leaves is RFC 7946 and has no key outside of the schema.
//!
//! `cargo +nightly fuzz run sanitise`. The first byte chooses between a marker and a zone, so that both
//! are reached; the rest is the payload. The same properties are held by proptest in the crate's tests.
#![no_main]

use agentforge_tactical_api::{
    feature::write_removed,
    links::Signer,
    sanitise::{Change, sanitise},
};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const PROPERTIES: [&str; 8] =
    ["id", "kind", "title", "description", "severity", "observed_at", "site", "evidence_link"];

fuzz_target!(|data: &[u8]| {
    let Some((first, payload)) = data.split_first() else { return };
    let subject = if first % 2 == 0 { "tactical.markers.s.m" } else { "tactical.zones.s.z" };
    let Ok(change) = sanitise(subject, payload, jiff::Timestamp::UNIX_EPOCH) else { return };
    let mut out = String::new();
    match &change {
        Change::State(feature) => feature.write(&Signer::new(["s"], Duration::from_secs(300)), &mut out),
        Change::Removed(key) => write_removed(key, &mut out),
    }
    let feature: geojson::Feature = out.parse().expect("RFC 7946");
    let properties = feature.properties.expect("there are properties");
    assert!(properties.keys().all(|key| PROPERTIES.contains(&key.as_str())), "{out}");
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(value.as_object().map(|object| object.len()), Some(3), "{out}");
    assert!(!out.contains(['<', '>', '&']), "{out}");
});
