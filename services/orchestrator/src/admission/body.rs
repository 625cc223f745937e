//! What makes two submissions the same: hashes of what the caller gave, and of what it came to.
//!
//! The first decides. It knows nothing of defaults, so that a change of settings between a submission and
//! its repetition makes no conflict. The second is what versions before this one stored and compare.

use super::SubmitInput;
use crate::model::NewJob;
use agentforge_proto::json;
use agentforge_proto::time::Micros;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Everything the caller chose. Names are in it as they came to be (their defaults never change), numbers
/// and times as they were given: none is not the same as what the default is today.
pub(super) fn given(job: &NewJob, input: &SubmitInput) -> [u8; 32] {
    let mut parts = Parts::default();
    parts.add("version", b"2");
    parts.names(job);
    // Checked before: this cannot fail.
    let args = json::canonical(&job.args);
    parts.add("args", args.as_deref().unwrap_or(&job.args).as_bytes());
    for (k, v) in &job.labels {
        parts.add("label", k.as_bytes());
        parts.add("=", v.as_bytes());
    }
    parts.maybe("max_attempts", input.max_attempts.filter(|n| *n > 0));
    parts.maybe("timeout", input.timeout.map(|d| d.as_micros()));
    parts.maybe("retry_base", input.retry.base.map(|d| d.as_micros()));
    parts.maybe("retry_cap", input.retry.cap.map(|d| d.as_micros()));
    parts.maybe("run_at", input.run_at.map(|t| t.0));
    parts.maybe("run_in", input.run_in.map(|d| d.as_micros()));
    parts.maybe("deadline", input.deadline.map(|t| t.0));
    parts.maybe("deadline_in", input.deadline_in.map(|d| d.as_micros()));
    parts.add("reuse", &[u8::from(job.reuse)]);
    parts.0.finalize().into()
}

/// As the version before has it: with defaults filled in, and numbers as floats.
pub(super) fn resolved(job: &NewJob, deadline_given: Option<Micros>) -> [u8; 32] {
    let mut parts = Parts::default();
    parts.names(job);
    let args =
        serde_json::from_str::<serde_json::Value>(&job.args).map_or_else(|_| job.args.clone(), |v| v.to_string());
    parts.add("args", args.as_bytes());
    for (k, v) in &job.labels {
        parts.add(k, v.as_bytes());
    }
    parts.add("max_attempts", &job.max_attempts.to_be_bytes());
    parts.add("timeout", &Duration::as_millis(&job.timeout).to_be_bytes());
    parts.add("run_at", &job.run_at.map_or(i64::MIN, |t| t.0).to_be_bytes());
    parts.add("deadline", &deadline_given.map_or(i64::MIN, |t| t.0).to_be_bytes());
    parts.add("reuse", &[u8::from(job.reuse)]);
    parts.0.finalize().into()
}

#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    /// Lengths first: no two lists of parts are the same bytes.
    fn add(&mut self, name: &str, value: &[u8]) {
        self.0.update((name.len() as u64).to_be_bytes());
        self.0.update(name);
        self.0.update((value.len() as u64).to_be_bytes());
        self.0.update(value);
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value.to_string().as_bytes());
        }
    }

    fn names(&mut self, job: &NewJob) {
        self.add("mission", job.mission.as_str().as_bytes());
        self.add("queue", job.queue.as_str().as_bytes());
        self.add("tool", job.tool.as_str().as_bytes());
        self.add("task", job.task.as_deref().unwrap_or_default().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, limits};
    use super::super::{Limits, SubmitInput, admit};
    use super::*;

    fn hashes(i: SubmitInput, limits: &Limits) -> ([u8; 32], [u8; 32]) {
        let i = SubmitInput { idempotency_key: Some("k".into()), ..i };
        let job = admit(i, limits, Micros(1_000_000), None).unwrap();
        (job.given_hash.unwrap(), job.body_hash.unwrap())
    }

    fn of(i: SubmitInput) -> [u8; 32] {
        hashes(i, &limits()).0
    }

    #[test]
    fn the_same_submission_has_the_same_hash_however_it_is_spelled() {
        let with = |args: &str| of(SubmitInput { args: args.into(), ..input() });
        assert_eq!(with(r#"{"a":1,"b":"é"}"#), with("{ \"b\": \"\\u00e9\",\n \"a\": 1 }"));
        let named = SubmitInput { queue: Some("default".into()), mission: Some("dev".into()), ..input() };
        assert_eq!(of(named), of(input()));
        assert_eq!(of(SubmitInput { args: String::new(), ..input() }), with("{}"));
    }

    #[test]
    fn whatever_a_caller_may_choose_makes_another_body() {
        let second = Duration::from_secs(1);
        let others = [
            SubmitInput { args: r#"{"a":2}"#.into(), ..input() },
            SubmitInput { args: r#"{"a":1.0}"#.into(), ..input() },
            SubmitInput { args: r#"{"a":123456789012345678901}"#.into(), ..input() },
            SubmitInput { args: r#"{"a":123456789012345678902}"#.into(), ..input() },
            SubmitInput { tool: "sleep".into(), ..input() },
            SubmitInput { queue: Some("q".into()), ..input() },
            SubmitInput { task: Some("t".into()), ..input() },
            SubmitInput { labels: [("a".into(), "b".into())].into(), ..input() },
            SubmitInput { max_attempts: Some(5), ..input() },
            SubmitInput { timeout: Some(second), ..input() },
            SubmitInput { retry: crate::model::RetryPolicy { base: Some(second), cap: None }, ..input() },
            SubmitInput { retry: crate::model::RetryPolicy { base: None, cap: Some(second * 60) }, ..input() },
            SubmitInput { run_at: Some(Micros(2_000_000)), ..input() },
            SubmitInput { run_in: Some(second), ..input() },
            SubmitInput { deadline: Some(Micros(3_000_000)), ..input() },
            SubmitInput { deadline_in: Some(second), ..input() },
            SubmitInput { reuse: true, ..input() },
            input(),
        ];
        let hashes: std::collections::HashSet<_> = others.iter().map(|i| of(i.clone())).collect();
        assert_eq!(hashes.len(), others.len());
    }

    #[test]
    fn other_defaults_make_no_other_body() {
        let changed = Limits {
            max_attempts_default: 7,
            timeout_default: Duration::from_secs(600),
            deadline_default: None,
            ..limits()
        };
        let (one, other) = (hashes(input(), &limits()), hashes(input(), &changed));
        assert_eq!(one.0, other.0);
        assert_ne!(one.1, other.1, "which the version before took for another body");
    }

    #[test]
    fn a_relative_time_is_the_same_when_it_is_given_again() {
        let i = SubmitInput { run_in: Some(Duration::from_secs(600)), idempotency_key: Some("k".into()), ..input() };
        let at = |now: i64| admit(i.clone(), &limits(), Micros(now), None).unwrap();
        let (first, again) = (at(1_000_000), at(9_000_000));
        assert_eq!((first.run_at, again.run_at), (Some(Micros(601_000_000)), Some(Micros(609_000_000))));
        assert_eq!(first.given_hash, again.given_hash);
    }

    /// Rows hold these: another hash of the same submission would make its repetition a conflict.
    #[test]
    fn stored_hashes_stay_what_they_are() {
        let second = Duration::from_secs(1);
        let table = [
            (
                input(),
                "9d2c88eebb613aa6f871f9c5795530a192b2502718314adbf476cb48b3b7fb4d",
                "df013c31f6625060c56f73f9dd2e98a6ccaf7503759de81574489ce4f36f0fc8",
            ),
            (
                SubmitInput {
                    queue: Some("mail".into()),
                    tool: "http".into(),
                    task: Some("t".into()),
                    args: r#"{"b":"x", "a":1}"#.into(),
                    labels: [("c".into(), "d".into()), ("a".into(), "b".into())].into(),
                    max_attempts: Some(5),
                    timeout: Some(second * 3 / 2),
                    retry: crate::model::RetryPolicy { base: Some(second), cap: Some(second * 60) },
                    run_at: Some(Micros(2_000_000)),
                    deadline: Some(Micros(3_000_000)),
                    reuse: true,
                    ..input()
                },
                "9e19742ed0b36fa94ed1727eabaa5727140cdfd63bb9e7ff92a91560c4da9c39",
                "179f9a7162493d363c67d1cb272504dae9c1082248a8848d9f7b591cb54c615c",
            ),
            (
                SubmitInput { run_in: Some(second * 600), deadline_in: Some(second * 60), ..input() },
                "6c8cac41f92d24e768295146b7bddec317299ef86824627af28c29fc296b0c8a",
                "3a2118b20a53d99dd7f0b49859ced5c63e0cd47a40cb2179b62fd2a4dd6f4699",
            ),
        ];
        for (i, given, resolved) in table {
            let hex = |hash: [u8; 32]| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let (ours, before) = hashes(i, &limits());
            assert_eq!((hex(ours), hex(before)), (given.to_owned(), resolved.to_owned()));
        }
    }

    /// Made with the version before; rows that it stored must be known again.
    #[test]
    fn what_the_version_before_stored_stays_what_it_is() {
        let hex: String = hashes(input(), &limits()).1.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, resolved_by_the_version_before());
    }

    fn resolved_by_the_version_before() -> String {
        let mut h = Sha256::new();
        for (name, value) in [
            ("mission", b"dev".to_vec()),
            ("queue", b"default".to_vec()),
            ("tool", b"echo".to_vec()),
            ("task", vec![]),
            ("args", br#"{"a":1}"#.to_vec()),
            ("max_attempts", 3_u32.to_be_bytes().to_vec()),
            ("timeout", 300_000_u128.to_be_bytes().to_vec()),
            ("run_at", i64::MIN.to_be_bytes().to_vec()),
            ("deadline", i64::MIN.to_be_bytes().to_vec()),
            ("reuse", vec![0]),
        ] {
            h.update((name.len() as u64).to_be_bytes());
            h.update(name);
            h.update((value.len() as u64).to_be_bytes());
            h.update(value);
        }
        h.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}
