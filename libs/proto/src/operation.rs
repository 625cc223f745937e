//! Operations whose success may be used again: their key, and what is stored under it.
//!
//! The key is the SHA-256 of the canonical JSON of {args, task, tool}, in [`json::canonical`]'s form. Equal keys must mean
//! equal operations, while a missed equality only costs a run. Pure.

use crate::bus::{OutputRef, Success};
use crate::json;
use crate::time::Micros;
use agentforge_message_id::{JobId, ToolName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The header of a report whose success may be kept for equal operations: its job asked for reuse.
pub const REUSABLE: &str = "Agentforge-Reusable";

/// A success that is kept for equal operations, in the bucket `operations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Whose success it is.
    pub job: JobId,
    /// When it was kept.
    pub at: Micros,
    /// JSON, when it is small enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<RawValue>>,
    /// Where it is kept otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ref: Option<OutputRef>,
}

impl Kept {
    /// A success, to be kept.
    pub fn new(job: JobId, success: &Success, at: Micros) -> Self {
        Self { job, at, output: success.output.clone(), output_ref: success.output_ref.clone() }
    }

    /// The success for an equal operation, if it is younger than `window` and there is an output.
    pub fn into_replay(self, now: Micros, window: Duration) -> Option<Success> {
        let young = now.since(self.at) < window;
        let has_output = self.output.is_some() || self.output_ref.is_some();
        (young && has_output).then_some(Success {
            output: self.output,
            output_ref: self.output_ref,
            idempotent_replay: Some(self.job),
        })
    }
}

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

    #[test]
    fn a_success_is_replayed_inside_its_window_only() {
        let operation = |output: Option<&str>| Kept {
            job: JobId::generate(),
            at: Micros(0),
            output: output.map(|text| RawValue::from_string(text.to_owned()).unwrap()),
            output_ref: None,
        };
        let (young, old) = (Micros(899_999_999), Micros(900_000_000));
        let window = Duration::from_secs(900);
        let first = operation(Some("1"));
        let job = first.job;
        let replay = first.into_replay(young, window).unwrap();
        assert_eq!(replay.idempotent_replay, Some(job));
        assert!(operation(Some("1")).into_replay(old, window).is_none());
        assert!(
            operation(Some("1")).into_replay(Micros(0), Duration::ZERO).is_none(),
            "a window of zero reuses nothing"
        );
        assert!(operation(None).into_replay(young, window).is_none());
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
