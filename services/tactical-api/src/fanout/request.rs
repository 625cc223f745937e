//! What a client of a WebSocket may send: a filter, and nothing else. Pure.

use crate::filter::Filter;

/// The one thing that a client may say: `{"filter":{"bbox":"…","severity":"…","site":"…","kind":"…"}}`.
pub fn filter_of(text: &str) -> Option<Filter> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        filter: std::collections::BTreeMap<String, String>,
    }
    let asked: Asked = serde_json::from_str(text).ok()?;
    let is_known = |name: &String| ["bbox", "severity", "site", "kind"].contains(&name.as_str());
    if !asked.filter.keys().all(is_known) {
        return None;
    }
    Filter::parse(asked.filter.iter().map(|(k, v)| (k.as_str(), v.as_str()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_are_understood() {
        assert!(filter_of(r#"{"filter":{"site":"a"}}"#).is_some());
        assert!(filter_of(r#"{"filter":{}}"#).unwrap().is_empty());
        for other in [
            "",
            "x",
            "{}",
            r#"{"filter":null}"#,
            r#"{"filter":{"x":"1"}}"#,
            r#"{"filter":{"bbox":"1"}}"#,
            r#"{"filter":{},"x":1}"#,
        ] {
            assert!(filter_of(other).is_none(), "{other}");
        }
    }
}
