//! The table of what is cleaned and what is refused, and the properties that hold for any bytes.

use super::*;
use crate::{feature, links::Signer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

const MARKER: &str = "tactical.markers.pier-7.truck%201";
const ZONE: &str = "tactical.zones.pier-7.z";

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn marker(changes: Value) -> Result<Change, Rejection> {
    let mut body = json!({"title": "Truck", "coordinates": [13.4, 52.5]});
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    sanitise(MARKER, body.to_string().as_bytes(), now())
}

fn feature(change: Change) -> Feature {
    match change {
        Change::State(feature) => *feature,
        Change::Removed(key) => panic!("{key:?} is removed"),
    }
}

/// As it leaves.
fn shown(change: &Change) -> Value {
    let mut out = String::new();
    match change {
        Change::State(f) => f.write(Some(&Signer::new(["s"], Duration::from_secs(300))), &mut out),
        Change::Removed(key) => feature::write_removed(key, &mut out),
    }
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_marker_has_exactly_the_properties_of_the_schema() {
    let change = marker(json!({
        "description": "two\nlines", "severity": "high", "observed_at": "2026-01-01T00:00:00+01:00",
        "evidence_id": "ab", "secret": "x", "__proto__": {"a": 1}, "properties": {"id": "other"}, "id": "other",
    }));
    let value = shown(&change.unwrap());
    let link = value["properties"]["evidence_link"].as_str().unwrap();
    assert!(link.starts_with("/v1/evidence/~pier-7%2Fab."), "{link}");
    assert_eq!(
        value,
        json!({
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [13.4, 52.5]},
            "properties": {
                "id": "truck 1", "kind": "marker", "site": "pier-7", "title": "Truck", "description": "two lines",
                "severity": "high", "observed_at": "2025-12-31T23:00:00Z", "evidence_link": link,
            },
        })
    );
    assert_eq!(shown(&marker(json!({})).unwrap())["properties"]["evidence_link"], Value::Null);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    use Rejection as R;
    for (changes, reason) in [
        (json!({"title": 7}), R::Title),
        (json!({"title": null}), R::Title),
        (json!({"title": ["a"]}), R::Title),
        (json!({"title": ""}), R::Title),
        (json!({"title": " \u{200b}\n"}), R::Title),
        (json!({"title": format!("a{}", "\u{301}".repeat(300))}), R::Title),
        (json!({"coordinates": "13.4,52.5"}), R::Coordinates),
        (json!({"coordinates": [13.4]}), R::Coordinates),
        (json!({"coordinates": [13.4, "52.5"]}), R::Coordinates),
        (json!({"coordinates": [13.4, 52.5, 30, 1]}), R::Coordinates),
        (json!({"coordinates": [1e300, 0]}), R::Coordinates),
        (json!({"coordinates": [null, 0]}), R::Coordinates),
        (json!({"coordinates": null}), R::Coordinates),
        (json!({"severity": "urgent"}), R::Severity),
        (json!({"severity": 3}), R::Severity),
        (json!({"observed_at": "yesterday"}), R::Time),
        (json!({"observed_at": 1700000000}), R::Time),
        (json!({"expires_at": "2026-13-01T00:00:00Z"}), R::Time),
        (json!({"evidence_id": "x".repeat(129)}), R::EvidenceId),
        (json!({"evidence_id": ""}), R::EvidenceId),
        (json!({"evidence_id": "a\u{202e}b"}), R::EvidenceId),
        (json!({"evidence_id": 1}), R::EvidenceId),
    ] {
        assert_eq!(marker(changes.clone()), Err(reason), "{changes}");
    }
    let deep = format!(r#"{{"title":"t","coordinates":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let huge = format!(r#"{{"title":"t","coordinates":[1e999,0],"x":"{}"}}"#, "y".repeat(100));
    for (payload, reason) in [
        ("{", R::Malformed),
        ("[]", R::Malformed),
        ("null", R::Malformed),
        ("\u{feff}{}", R::Malformed),
        (r#"{"title":"a","title":"b","coordinates":[0,0]}"#, R::Malformed),
        (r#"{"title":"t","coordinates":[NaN,0]}"#, R::Malformed),
        (r#"{"title":"t","coordinates":[Infinity,0]}"#, R::Malformed),
        (&huge, R::Coordinates),
        (&deep, R::Coordinates),
        (r#"{"coordinates":[0,0]}"#, R::Title),
        (&format!(r#"{{"title":"{}"}}"#, "a".repeat(PAYLOAD_MAX_BYTES)), R::TooLarge),
    ] {
        assert_eq!(sanitise(MARKER, payload.as_bytes(), now()), Err(reason), "{}", &payload[..payload.len().min(80)]);
    }
    assert_eq!(sanitise(MARKER, b"{\"title\":\"\xff\"}", now()), Err(R::Malformed));
}

#[test]
fn unknown_fields_may_be_as_deep_as_they_like() {
    let deep =
        format!(r#"{{"title":"t","coordinates":[1,2],"x":{}{}}}"#, r#"{"a":["#.repeat(20_000), "]}".repeat(20_000));
    assert!(sanitise(MARKER, deep.as_bytes(), now()).is_ok());
}

#[test]
fn subjects_name_what_is_meant() {
    for subject in [
        "tactical.markers.pier-7",
        "tactical.markers.pier-7.a.b",
        "tactical.things.pier-7.a",
        "tactical.markers..a",
        "tactical.markers.pier-7.%2e",
        "tactical.markers.pier-7.%E2%80%AE",
        "other.markers.pier-7.a",
    ] {
        assert_eq!(sanitise(subject, b"", now()), Err(Rejection::Subject), "{subject}");
    }
    let long = format!("tactical.markers.pier-7.{}", "x".repeat(NAME_MAX + 1));
    assert_eq!(sanitise(&long, b"", now()), Err(Rejection::Subject));
}

#[test]
fn a_marker_ends_by_an_empty_payload_or_a_word() {
    for payload in ["", r#"{"removed":true}"#, r#"{"removed":true,"title":5}"#] {
        let change = sanitise(MARKER, payload.as_bytes(), now()).unwrap();
        assert_eq!(
            shown(&change),
            json!({"type": "Feature", "geometry": null,
                "properties": {"id": "truck 1", "kind": "marker", "site": "pier-7"}})
        );
    }
    assert!(matches!(marker(json!({"removed": "yes"})), Ok(Change::State(_))));
}

#[test]
fn texts_are_cut_and_cleaned() {
    let f = feature(marker(json!({"title": "a\u{0}\u{200b}".repeat(300), "description": "é".repeat(2000)})).unwrap());
    assert_eq!(f.title, "a".repeat(TITLE_MAX));
    assert_eq!(f.description.unwrap().chars().count(), DESCRIPTION_MAX);
    let f = feature(marker(json!({"description": {"html": "<b>"}, "title": "<img onerror=x>"})).unwrap());
    assert_eq!((f.title.as_str(), f.description), ("<img onerror=x>", None));
}

#[test]
fn zones_are_rings_or_lists_of_rings() {
    let zone = |polygon: Value| {
        sanitise(ZONE, json!({"title": "Z", "polygon": polygon}).to_string().as_bytes(), now()).map(|c| shown(&c))
    };
    let ring = json!([[0, 0], [0, 1], [1, 1], [1, 0]]);
    let closed = json!([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]);
    for polygon in [ring.clone(), json!([ring]), json!([[0, 0, 9], [0, 1, 9], [1, 1, 9], [1, 0, 9]])] {
        let value = zone(polygon).unwrap();
        let made: Vec<Vec<[f64; 2]>> = serde_json::from_value(value["geometry"]["coordinates"].clone()).unwrap();
        assert_eq!(vec![serde_json::from_value::<Vec<[f64; 2]>>(closed.clone()).unwrap()], made);
    }
    for bad in [json!([]), json!([[]]), json!([[0, 0], [1, 1]]), json!("x"), json!([[[[0, 0]]]]), json!(null)] {
        assert!(matches!(zone(bad.clone()), Err(Rejection::Polygon(_))), "{bad}");
    }
    let across = zone(json!([[170, -10], [190, -10], [190, 10], [170, 10]])).unwrap();
    assert_eq!(across["geometry"]["type"], "MultiPolygon");
    let bow_tie = zone(json!([[0, 0], [1, 1], [1, 0], [0, 1]])).unwrap_err();
    assert!(bow_tie.to_string().contains("crosses"), "{bow_tie}");
    assert_eq!(zone(json!([[0, 0], [1e9, 0], [1, 1]])), Err(Rejection::Coordinates));
}

/// What a fuzzer would find: any change is valid by another reader's rules and has no key of its own.
pub fn hold_for(subject: &str, payload: &[u8]) {
    let Ok(change) = sanitise(subject, payload, now()) else { return };
    let value = shown(&change);
    let parsed: geojson::Feature = value.to_string().parse().expect("RFC 7946");
    assert_eq!(parsed.geometry.is_some(), matches!(change, Change::State(_)));
    let keys: Vec<&String> = value["properties"].as_object().unwrap().keys().collect();
    let known = ["id", "kind", "title", "description", "severity", "observed_at", "site", "evidence_link"];
    assert!(keys.iter().all(|key| known.contains(&key.as_str())), "{keys:?}");
    assert_eq!(value.as_object().unwrap().len(), 3);
    if let Change::State(f) = &change {
        assert!(f.title.chars().count() <= TITLE_MAX && text::clean(&f.title, TITLE_MAX) == f.title);
        assert!(!f.title.is_empty());
        let b = f.bounds();
        assert!(b.west >= -180.0 && b.east <= 180.0 && b.south >= -90.0 && b.north <= 90.0, "{b:?}");
    }
}

/// JSON of the fields' names and of odd values.
fn body() -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        any::<f64>().prop_map(|f| json!(f)),
        (-400.0..400.0f64, -100.0..100.0f64).prop_map(|(a, b)| json!([a, b])),
        prop::collection::vec((-400.0..400.0f64, -100.0..100.0f64), 0..7).prop_map(|v| json!(v)),
        "\\PC{0,20}".prop_map(|s| json!(s)),
        any::<String>().prop_map(|s| json!(s)),
        Just(json!("high")),
        Just(json!("2026-01-01T00:00:00Z")),
        Just(json!(null)),
        Just(json!(true)),
    ];
    let names = prop::sample::select(vec![
        "title",
        "description",
        "coordinates",
        "polygon",
        "severity",
        "observed_at",
        "evidence_id",
        "removed",
        "other",
    ]);
    let start = (any::<String>(), -200.0..200.0f64, -100.0..100.0f64);
    (start, prop::collection::vec((names, odd), 0..4)).prop_map(|((title, lon, lat), fields)| {
        let mut body = json!({"title": title, "coordinates": [lon, lat]});
        body["polygon"] = json!([[lon, lat], [lon + 1.0, lat], [lon, lat + 1.0]]);
        for (name, value) in fields {
            body[name] = value;
        }
        body.to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_what_leaves_is_rfc_7946(body in body(), is_zone in any::<bool>()) {
        hold_for(if is_zone { ZONE } else { MARKER }, body.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_change_or_a_rejection(subject in "[a-z%.]{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        hold_for(&subject, &bytes);
        hold_for(MARKER, &bytes);
    }
}
