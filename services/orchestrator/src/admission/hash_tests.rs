//! What makes two submissions the same.

use super::tests::{input, limits};
use super::{JobRequest, Limits, SubmitInput, admit};
use agentforge_proto::time::Micros;
use sha2::{Digest, Sha256};
use std::time::Duration;

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
    let with = |args: &str| of(SubmitInput { request: JobRequest { args: args.into(), ..input().request }, ..input() });
    assert_eq!(with(r#"{"a":1,"b":"é"}"#), with("{ \"b\": \"\\u00e9\",\n \"a\": 1 }"));
    let named = SubmitInput {
        request: JobRequest { queue: Some("default".into()), mission: Some("dev".into()), ..input().request },
        ..input()
    };
    assert_eq!(of(named), of(input()));
    assert_eq!(
        of(SubmitInput { request: JobRequest { args: String::new(), ..input().request }, ..input() }),
        with("{}")
    );
}

#[test]
fn whatever_a_caller_may_choose_makes_another_body() {
    let second = Duration::from_secs(1);
    let others = [
        SubmitInput { request: JobRequest { args: r#"{"a":2}"#.into(), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { args: r#"{"a":1.0}"#.into(), ..input().request }, ..input() },
        SubmitInput {
            request: JobRequest { args: r#"{"a":123456789012345678901}"#.into(), ..input().request },
            ..input()
        },
        SubmitInput {
            request: JobRequest { args: r#"{"a":123456789012345678902}"#.into(), ..input().request },
            ..input()
        },
        SubmitInput { request: JobRequest { tool: "sleep".into(), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { queue: Some("q".into()), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { task: Some("t".into()), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { labels: [("a".into(), "b".into())].into(), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { max_attempts: Some(5), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { timeout: Some(second), ..input().request }, ..input() },
        SubmitInput {
            request: JobRequest {
                retry: crate::model::RetryPolicy { base: Some(second), cap: None },
                ..input().request
            },
            ..input()
        },
        SubmitInput {
            request: JobRequest {
                retry: crate::model::RetryPolicy { base: None, cap: Some(second * 60) },
                ..input().request
            },
            ..input()
        },
        SubmitInput { run_at: Some(Micros(2_000_000)), ..input() },
        SubmitInput { run_in: Some(second), ..input() },
        SubmitInput { deadline: Some(Micros(3_000_000)), ..input() },
        SubmitInput { request: JobRequest { deadline_in: Some(second), ..input().request }, ..input() },
        SubmitInput { request: JobRequest { reuse: true, ..input().request }, ..input() },
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
                request: JobRequest {
                    queue: Some("mail".into()),
                    tool: "http".into(),
                    task: Some("t".into()),
                    args: r#"{"b":"x", "a":1}"#.into(),
                    labels: [("c".into(), "d".into()), ("a".into(), "b".into())].into(),
                    max_attempts: Some(5),
                    timeout: Some(second * 3 / 2),
                    retry: crate::model::RetryPolicy { base: Some(second), cap: Some(second * 60) },
                    reuse: true,
                    ..input().request
                },
                run_at: Some(Micros(2_000_000)),
                deadline: Some(Micros(3_000_000)),
                ..input()
            },
            "9e19742ed0b36fa94ed1727eabaa5727140cdfd63bb9e7ff92a91560c4da9c39",
            "179f9a7162493d363c67d1cb272504dae9c1082248a8848d9f7b591cb54c615c",
        ),
        (
            SubmitInput {
                request: JobRequest { deadline_in: Some(second * 60), ..input().request },
                run_in: Some(second * 600),
                ..input()
            },
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
