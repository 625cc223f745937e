//! The operation key: SHA-256 of the canonical JSON of {args, task, tool}.
//!
//! Canonical: keys sorted at every depth, no blanks, strings in one spelling. Numbers keep the text
//! they came with, because two texts that a float cannot tell apart may be two numbers: equal keys
//! must mean equal operations, while a missed equality only costs a run.

use agentforge_message_id::ToolName;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Deeper than this and there is no key; every level reads its text once more.
const DEPTH_MAX: usize = 64;

/// The key of an operation, in hex; `None` when the arguments are nested too deep.
pub fn operation_key(tool: &ToolName, args: &RawValue, task: Option<&str>) -> Option<String> {
    let mut text = Vec::with_capacity(args.get().len() + 64);
    text.extend_from_slice(b"{\"args\":");
    write(&mut text, args, DEPTH_MAX)?;
    text.extend_from_slice(b",\"task\":");
    serde_json::to_writer(&mut text, &task).ok()?;
    text.extend_from_slice(b",\"tool\":");
    serde_json::to_writer(&mut text, tool.as_str()).ok()?;
    text.push(b'}');
    Some(hex::encode(Sha256::digest(&text)))
}

fn write(out: &mut Vec<u8>, value: &RawValue, depth: usize) -> Option<()> {
    let text = value.get().trim();
    match text.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            list(out, b"{}", fields.into_iter(), |out, (key, value)| {
                serde_json::to_writer(&mut *out, &key).ok()?;
                out.push(b':');
                write(out, value, depth.checked_sub(1)?)
            })
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            list(out, b"[]", items.into_iter(), |out, item| write(out, item, depth.checked_sub(1)?))
        }
        b'"' => {
            let string: String = serde_json::from_str(text).ok()?;
            serde_json::to_writer(out, &string).ok()
        }
        _ => {
            out.extend_from_slice(text.as_bytes());
            Some(())
        }
    }
}

fn list<T>(
    out: &mut Vec<u8>,
    brackets: &[u8; 2],
    items: impl Iterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T) -> Option<()>,
) -> Option<()> {
    out.push(brackets[0]);
    for (index, value) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(out, value)?;
    }
    out.push(brackets[1]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(args: &str, task: Option<&str>) -> Option<String> {
        operation_key(&ToolName::new("t").unwrap(), &RawValue::from_string(args.to_owned()).unwrap(), task)
    }

    fn canonical(args: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, &RawValue::from_string(args.to_owned()).unwrap(), DEPTH_MAX).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_form_is_sorted_and_without_blanks_at_every_depth() {
        let text = r#" { "b" : [ { "z":1, "a":null } , "\u0041\/" ], "a" : { "d":1.50,"c":true } } "#;
        assert_eq!(canonical(text), r#"{"a":{"c":true,"d":1.50},"b":[{"a":null,"z":1},"A/"]}"#);
    }

    #[test]
    fn equal_keys_mean_equal_operations() {
        let same = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, "{ \"b\": 2,\n\"\\u0061\":1 }"];
        assert!(same.iter().all(|s| key(s, None) == key(same[0], None)));
        let different = [
            key(r#"{"a":1}"#, None),
            key(r#"{"a":"1"}"#, None),
            key(r#"{"a":1}"#, Some("t")),
            key(r#"{"a":1}"#, Some("")),
            key(r#"{"a":9007199254740993}"#, None),
            key(r#"{"a":9007199254740992}"#, None),
            key(r#"{"a":10000000000000000000000001}"#, None),
            key(r#"{"a":10000000000000000000000000}"#, None),
            key(r#"{"a":[1,2]}"#, None),
            key(r#"{"a":[2,1]}"#, None),
        ];
        let set: std::collections::HashSet<_> = different.iter().collect();
        assert_eq!(set.len(), different.len());
    }

    #[test]
    fn the_key_stays_what_it_is() {
        // Workers of two versions share the bucket of operations.
        let text = r#"{"args":{"hello":"world"},"task":null,"tool":"t"}"#;
        assert_eq!(key(r#"{"hello":"world"}"#, None).unwrap(), hex::encode(Sha256::digest(text)));
    }

    #[test]
    fn too_deep_has_no_key() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(key(&deep(60), None).is_some());
        assert!(key(&deep(100), None).is_none());
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(fields in prop::collection::btree_map("[a-z]{1,4}", -100i64..100, 0..8)) {
            let forward: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
            let backward: Vec<String> = forward.iter().rev().cloned().collect();
            prop_assert_eq!(
                key(&format!("{{{}}}", forward.join(",")), None),
                key(&format!("{{ {} }}", backward.join(" , ")), None)
            );
        }
    }
}
