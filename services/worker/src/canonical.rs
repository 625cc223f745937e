//! The operation key: SHA-256 of the canonical JSON of {args, task, tool}.
//!
//! The form is [`json::canonical`]'s. Equal keys must mean equal operations, while a missed equality only
//! costs a run.

use agentforge_message_id::ToolName;
use agentforge_proto::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The key of an operation, in hex; `None` when the arguments are nested too deep, or read differently by
/// different readers.
pub fn operation_key(tool: &ToolName, args: &RawValue, task: Option<&str>) -> Option<String> {
    let args = json::canonical(args.get()).ok()?;
    let task = serde_json::to_string(&task).ok()?;
    let tool = serde_json::to_string(tool.as_str()).ok()?;
    Some(hex::encode(Sha256::digest(format!("{{\"args\":{args},\"task\":{task},\"tool\":{tool}}}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(args: &str, task: Option<&str>) -> Option<String> {
        operation_key(&ToolName::new("t").unwrap(), &RawValue::from_string(args.to_owned()).unwrap(), task)
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
        assert!(key(&deep(128), None).is_some());
        assert!(key(&deep(129), None).is_none());
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
