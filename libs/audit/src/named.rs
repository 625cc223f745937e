//! Entries about many things: each names those that it is about, as many as fit, and there are as many entries as it takes.

use crate::entry::{DETAIL_MAX_BYTES, Entry};
use serde_json::{Map, Value, json};

/// Things that one entry names, at most.
pub const NAMED_MAX: usize = 100;
/// What is left of a detail for the count and the part, bytes.
const RESERVE_BYTES: usize = 64;

impl Entry {
    /// The same entry about these things: the only one as its object, several in the detail's `ids`, with their `count`. As
    /// many entries as these ids need, which then say which `part` they are.
    pub fn naming(self, kind: &str, ids: &[String]) -> Vec<Self> {
        let entry = self.about(kind, None);
        if let [only] = ids {
            return vec![entry.about(kind, Some(only.clone())).counted(1)];
        }
        let base = entry.base();
        let parts = cut(ids, DETAIL_MAX_BYTES.saturating_sub(size(&Value::Object(base.clone())) + RESERVE_BYTES));
        if parts.is_empty() {
            return vec![entry.counted(0)];
        }
        let all = parts.len();
        let named = parts.into_iter().enumerate().map(|(n, ids)| {
            let mut detail = base.clone();
            detail.insert("ids".into(), json!(ids));
            detail.insert("count".into(), json!(ids.len()));
            if all > 1 {
                detail.insert("part".into(), json!(format!("{} of {all}", n + 1)));
            }
            Self { id: if n == 0 { entry.id.clone() } else { Self::new_id() }, ..entry.clone() }
                .with(&Value::Object(detail))
        });
        named.collect()
    }

    /// What each part says besides; only its length where it leaves no room for ids.
    fn base(&self) -> Map<String, Value> {
        let text = self.detail.as_deref().unwrap_or("{}");
        match serde_json::from_str(text) {
            Ok(Value::Object(detail)) if text.len() <= DETAIL_MAX_BYTES / 2 => detail,
            _ => Map::from_iter([("omitted_bytes".to_owned(), json!(text.len()))]),
        }
    }
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// Cuts ids into parts whose JSON fits into this room, in bytes.
fn cut(ids: &[String], room: usize) -> Vec<&[String]> {
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (n, id) in ids.iter().enumerate() {
        let more = size(&json!(id)) + 1;
        if n > from && (bytes + more > room || n - from == NAMED_MAX) {
            parts.push(&ids[from..n]);
            (from, bytes) = (n, 0);
        }
        bytes += more;
    }
    parts.extend((from < ids.len()).then(|| &ids[from..]));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_proto::time::Micros;

    fn entry(detail: &Value) -> Entry {
        Entry::own("DiscardDeadLetters", detail, Micros(1))
    }

    fn detail(entry: &Entry) -> Value {
        serde_json::from_str(entry.clone().bounded().detail.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn each_id_is_in_one_entry_and_each_entry_within_its_bounds() {
        for (count, bytes) in [(2, 1), (100, 36), (101, 36), (1_000, 36), (500, 60), (40, 256), (3, 1)] {
            let ids: Vec<String> = (0..count).map(|n| format!("{n:0>bytes$}")).collect();
            for asked in [json!({}), json!({"queue": "q".repeat(1_900)}), json!({"queue": "q".repeat(5_000)})] {
                let entries = entry(&asked).naming("dead_letter", &ids);
                let mut named = Vec::new();
                for (n, entry) in entries.iter().enumerate() {
                    let said = detail(entry);
                    let part = said["ids"].as_array().unwrap_or_else(|| panic!("{said}"));
                    assert_eq!(said["count"], part.len(), "{said}");
                    let of = format!("{} of {}", n + 1, entries.len());
                    assert_eq!(said["part"].as_str(), Some(of.as_str()).filter(|_| entries.len() > 1), "{said}");
                    named.extend(part.iter().map(|id| id.as_str().unwrap().to_owned()));
                }
                assert_eq!(named, ids);
            }
        }
    }

    #[test]
    fn a_single_thing_is_the_object_and_none_is_said_too() {
        let one = entry(&json!({"all": true})).naming("dead_letter", &["a".into()]);
        assert_eq!((one.len(), one[0].object_id.as_deref()), (1, Some("a")));
        assert_eq!(detail(&one[0]), json!({"all": true, "count": 1}));
        let none = entry(&json!({"all": true})).naming("dead_letter", &[]);
        assert_eq!((none.len(), detail(&none[0])), (1, json!({"all": true, "count": 0})));
    }
}
