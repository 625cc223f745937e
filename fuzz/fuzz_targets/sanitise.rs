//! Regardless of what is published, the output is RFC 7946 and has no key outside the schema.
//!
//! The first byte chooses between a marker and a zone, so that both are reached; the rest is the payload.
//! `README.md` says how it runs. The same properties are held by proptest in the crate's tests.
#![no_main]

use agentforge_tactical_api::{
    feature::write_removed,
    links::Signer,
    sanitise::{Change, DESCRIPTION_MAX, TITLE_MAX, sanitise},
};
use geojson::{Feature, GeometryValue, Position};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::time::Duration;

const PROPERTIES: [&str; 8] =
    ["id", "kind", "title", "description", "severity", "observed_at", "site", "evidence_link"];
/// What the sum of an area may be off by.
const ROUNDING: f64 = 1e-12;

fuzz_target!(|data: &[u8]| {
    let Some((first, payload)) = data.split_first() else { return };
    let subject = if first % 2 == 0 { "tactical.markers.s.m" } else { "tactical.zones.s.z" };
    let Ok(change) = sanitise(subject, payload, jiff::Timestamp::UNIX_EPOCH) else { return };
    let mut out = String::new();
    match &change {
        Change::State(feature) => feature.write(Some(&Signer::new(["s"], Duration::from_secs(300))), &mut out),
        Change::Removed(key) => write_removed(key, &mut out),
    }
    // One line of text that is neither markup nor the end of a frame, wherever it is pasted.
    assert!(!out.contains(['<', '>', '&']) && !out.contains(char::is_control), "{out}");
    let value: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(value.as_object().map(|object| object.len()), Some(3), "{out}");
    let feature: Feature = out.parse().expect("RFC 7946");
    let properties = feature.properties.expect("there are properties");
    assert!(properties.keys().all(|key| PROPERTIES.contains(&key.as_str())), "{out}");
    for (name, max) in [("title", TITLE_MAX), ("description", DESCRIPTION_MAX)] {
        let text = properties.get(name).and_then(Value::as_str).unwrap_or_default();
        assert!(text.chars().count() <= max && !text.contains(char::is_control), "{out}");
    }
    match (&change, feature.geometry.map(|geometry| geometry.value)) {
        (Change::Removed(_), None) => {}
        (Change::State(_), Some(GeometryValue::Point { coordinates })) => in_range(&coordinates),
        (Change::State(_), Some(GeometryValue::Polygon { coordinates })) => right_handed(&coordinates, &out),
        (Change::State(_), Some(GeometryValue::MultiPolygon { coordinates })) => {
            assert!(coordinates.len() > 1, "{out}");
            coordinates.iter().for_each(|part| right_handed(part, &out));
        }
        (_, other) => panic!("{other:?} in {out}"),
    }
});

fn right_handed(rings: &[Vec<Position>], out: &str) {
    for (n, ring) in rings.iter().enumerate() {
        ring.iter().for_each(in_range);
        assert!(ring.len() >= 4 && ring.first() == ring.last(), "{out}");
        let area = area(ring);
        assert!(if n == 0 { area >= -ROUNDING } else { area <= ROUNDING }, "{area}: {out}");
    }
}

fn in_range(position: &Position) {
    let [lon, lat] = position[..] else { panic!("{position:?}") };
    assert!((-180.0..=180.0).contains(&lon) && (-90.0..=90.0).contains(&lat), "{position:?}");
}

/// Twice the signed area, about the first point: positive when counter-clockwise.
fn area(ring: &[Position]) -> f64 {
    let (x, y) = (ring[0][0], ring[0][1]);
    ring.windows(2).map(|w| (w[0][0] - x) * (w[1][1] - y) - (w[1][0] - x) * (w[0][1] - y)).sum()
}
