//! Contracts as pipelines check them: what breaks fails and is remembered, notices go out and recoveries go out once.

use super::support::{command, run, said};
use agentforge_governance::contract::{openapi::Document, rules, tree};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    sync::mpsc,
    time::Duration,
};

const SHA: &str = "0123abc";

/// A small API, at a version.
fn api(version: &str) -> Value {
    json!({
        "openapi": "3.1.0", "info": {"title": "Shop", "version": version},
        "paths": {
            "/items": {
                "get": {"operationId": "list", "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}}}},
                "post": {"operationId": "add", "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewItem"}}}},
                    "responses": {"201": {"description": "ok"}}},
            },
            "/items/{id}": {"delete": {"operationId": "remove", "parameters": [{"in": "path", "name": "id", "required": true, "schema": {"type": "string"}}],
                "responses": {"204": {"description": "gone"}}}},
        },
        "components": {"schemas": {
            "Item": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "kind": {"type": "string", "enum": ["a", "b"]}}},
            "NewItem": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string", "enum": ["a", "b"]}, "note": {"type": "string"}}},
        }},
    })
}

fn write(home: &Path, name: &str, document: &Value) {
    fs::write(home.join(name), serde_json::to_string_pretty(document).unwrap()).unwrap();
}

fn artifact(home: &Path, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(home.join("status").join(name)).unwrap()).unwrap()
}

fn history(home: &Path) -> Vec<Value> {
    let text = fs::read_to_string(home.join("status/stability-history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_removed_operation_fails_the_check_and_is_in_the_history() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "old.json", &api("1.4.2"));
    let mut new = api("1.4.3");
    new["paths"].as_object_mut().unwrap().remove("/items/{id}");
    write(home.path(), "new.json", &new);
    let ended = run(home.path(), &["contract", "check", "old.json", "new.json", "--sha", SHA]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.contains("breaking: operation-removed: new.json: DELETE /items/{id}"), "{}", ended.out);
    let [one] = &history(home.path())[..] else { panic!("one run") };
    assert_eq!((&one["outcome"], &one["sha"], &one["removed"]), (&json!("breaking"), &json!(SHA), &json!(1)));
    let operations = artifact(home.path(), "operations-classification.json");
    assert_eq!(operations["removed"], json!([{"method": "DELETE", "path": "/items/{id}"}]));
    assert_eq!(operations["added"], json!([]));
    let semver = artifact(home.path(), "semver-validation.json");
    assert_eq!(semver["status"], "fail");
    assert!(semver["recommendations"][0].as_str().unwrap().contains("2.0.0"));
}

/// A change of the small API, and the rule that it breaks, if it breaks one.
type Case = (&'static str, fn(&mut Value), &'static str);

const CASES: &[Case] = &[
    (
        "a new required request field",
        |d| d["components"]["schemas"]["NewItem"]["required"] = json!(["kind", "note"]),
        "request-field-became-required",
    ),
    (
        "another new required request field",
        |d| {
            d["components"]["schemas"]["NewItem"]["properties"]["x"] = json!({"type": "string"});
            d["components"]["schemas"]["NewItem"]["required"] = json!(["kind", "x"]);
        },
        "request-field-added-required",
    ),
    (
        "a narrowed enum in a request",
        |d| d["components"]["schemas"]["NewItem"]["properties"]["kind"]["enum"] = json!(["a"]),
        "request-enum-narrowed",
    ),
    (
        "a narrowed enum in a response",
        |d| d["components"]["schemas"]["Item"]["properties"]["kind"]["enum"] = json!(["a"]),
        "response-enum-narrowed",
    ),
    (
        "a removed response field",
        |d| drop(d["components"]["schemas"]["Item"]["properties"].as_object_mut().unwrap().remove("kind")),
        "response-field-removed",
    ),
    (
        "a response field that may be missing",
        |d| d["components"]["schemas"]["Item"]["required"] = json!([]),
        "response-field-became-optional",
    ),
    (
        "a response of another type",
        |d| d["components"]["schemas"]["Item"]["properties"]["id"]["type"] = json!("integer"),
        "response-type-widened",
    ),
    (
        "a request of a narrower type",
        |d| d["components"]["schemas"]["NewItem"]["properties"]["note"]["type"] = json!("integer"),
        "request-type-narrowed",
    ),
    (
        "a bound of a request",
        |d| d["components"]["schemas"]["NewItem"]["properties"]["note"]["maxLength"] = json!(9),
        "request-bound-narrowed",
    ),
    (
        "null in a response",
        |d| d["components"]["schemas"]["Item"]["properties"]["id"]["type"] = json!(["string", "null"]),
        "response-became-nullable",
    ),
    (
        "unknown request fields are refused",
        |d| d["components"]["schemas"]["NewItem"]["additionalProperties"] = json!(false),
        "request-closed",
    ),
    (
        "another status",
        |d| {
            let all = d["paths"]["/items"]["post"]["responses"].as_object_mut().unwrap();
            let was = all.remove("201").unwrap();
            all.insert("200".to_owned(), was);
        },
        "success-status-removed",
    ),
    (
        "a required parameter",
        |d| {
            d["paths"]["/items"]["get"]["parameters"] =
                json!([{"in": "query", "name": "q", "required": true, "schema": {"type": "string"}}])
        },
        "parameter-added-required",
    ),
    (
        "a parameter with a default is not required",
        |d| {
            d["paths"]["/items"]["get"]["parameters"] =
                json!([{"in": "query", "name": "q", "required": true, "schema": {"type": "string", "default": "x"}}])
        },
        "",
    ),
    ("credentials", |d| d["paths"]["/items"]["get"]["security"] = json!([{"token": []}]), "security-tightened"),
    ("a role", |d| d["paths"]["/items"]["get"]["x-required-role"] = json!("admin"), "role-raised"),
    (
        "a media type",
        |d| {
            let content = d["paths"]["/items"]["get"]["responses"]["200"]["content"].as_object_mut().unwrap();
            let was = content.remove("application/json").unwrap();
            content.insert("text/csv".to_owned(), was);
        },
        "response-media-type-removed",
    ),
    (
        "the name of a parameter in the path",
        |d| {
            let paths = d["paths"].as_object_mut().unwrap();
            let mut was = paths.remove("/items/{id}").unwrap();
            was["delete"]["parameters"][0]["name"] = json!("item");
            paths.insert("/items/{item}".to_owned(), was);
        },
        "",
    ),
    (
        "an added optional request field",
        |d| d["components"]["schemas"]["NewItem"]["properties"]["x"] = json!({"type": "string"}),
        "",
    ),
    ("a new response field", |d| d["components"]["schemas"]["Item"]["properties"]["x"] = json!({"type": "string"}), ""),
    (
        "a wider enum in a request",
        |d| d["components"]["schemas"]["NewItem"]["properties"]["kind"]["enum"] = json!(["a", "b", "c"]),
        "",
    ),
    ("a new operation", |d| d["paths"]["/new"] = json!({"get": {"responses": {"200": {"description": "ok"}}}}), ""),
    ("a description", |d| d["info"]["description"] = json!("better"), ""),
    (
        "the same schema behind a reference",
        |d| {
            let inline = d["components"]["schemas"]["Item"].clone();
            d["paths"]["/items"]["get"]["responses"]["200"]["content"]["application/json"]["schema"] = inline;
        },
        "",
    ),
];

#[test]
fn each_change_is_classed_by_its_rule() {
    let old = Document::new(api("1.0.0")).unwrap();
    for (what, change, rule) in CASES {
        let mut new = api("1.0.0");
        change(&mut new);
        let new = Document::new(new).unwrap();
        let mut findings = agentforge_governance::contract::finding::Findings::of("api");
        agentforge_governance::contract::openapi::compare(&old, &new, &mut findings);
        let all = findings.sorted();
        let breaking: Vec<&str> = all.iter().filter(|f| f.level.to_string() == "breaking").map(|f| f.rule).collect();
        if rule.is_empty() {
            assert!(breaking.is_empty(), "{what}: {all:?}")
        } else {
            assert!(breaking.contains(rule), "{what}: {all:?}")
        }
    }
}

#[test]
fn every_rule_is_on_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/reference/contract-rules.md")).unwrap();
    for rule in rules::ALL {
        let row = format!("| `{}` | {} | {} |", rule.id, rule.level, rule.meaning);
        assert!(page.contains(&row), "the page lacks: {row}");
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `") && rules::ALL.iter().any(|r| line.contains(&format!("`{}` |", r.id))));
    assert_eq!(rows.count(), rules::ALL.len(), "the page has rules that are none");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bytes = || {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "old.json", &api("1.0.0"));
        let mut new = api("1.1.0");
        new["paths"]["/new"] = json!({"get": {"responses": {"200": {"description": "ok"}}}});
        write(home.path(), "new.json", &new);
        assert_eq!(run(home.path(), &["contract", "check", "old.json", "new.json", "--sha", SHA]).code, 0);
        let mut files: Vec<_> = fs::read_dir(home.path().join("status")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| (file.file_name().unwrap().to_owned(), fs::read(file).unwrap())).collect::<Vec<_>>()
    };
    let first = bytes();
    assert_eq!(first.len(), 12);
    assert_eq!(first, bytes());
}

#[test]
fn broken_input_is_a_placeholder_that_lowers_the_ratio() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "a.json", &api("1.0.0"));
    fs::write(home.path().join("broken.json"), "{\n \"openapi\": }").unwrap();
    let check = |new: &str, max: &str| {
        run(
            home.path(),
            &["contract", "check", "a.json", new, "--sha", SHA, "--placeholder-max-runs", max, "--stability-min", "0"],
        )
    };
    assert_eq!(check("a.json", "0").code, 0);
    let ended = check("broken.json", "0");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.err.contains("broken.json:2: "), "{}", ended.err);
    let metrics = artifact(home.path(), "stability-metrics.json");
    assert_eq!((&metrics["window_stability_ratio"], &metrics["placeholder"]), (&json!(0.5), &json!(true)));
    // Some may be tolerated, and no more.
    assert_eq!(check("broken.json", "2").code, 0);
    assert_eq!(check("broken.json", "2").code, 1);
    assert_eq!(artifact(home.path(), "stability-metrics.json")["extensions"]["placeholder_streak"], 3);
    assert_eq!(artifact(home.path(), "placeholder-streak-badge.json")["color"], "yellow");
    assert_eq!(artifact(home.path(), "stability-badge.json")["message"], "unknown");
}

#[test]
fn an_announced_change_does_not_fail_a_comparison() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "old.json", &api("1.0.0"));
    let mut new = api("2.0.0");
    new["paths"].as_object_mut().unwrap().remove("/items/{id}");
    write(home.path(), "new.json", &new);
    let diff = |announced: Value| {
        write(home.path(), "announced.json", &announced);
        run(home.path(), &["contract", "diff", "old.json", "new.json", "--announced", "announced.json"])
    };
    let one = json!({"rule": "operation-removed", "place": "DELETE /items/{id}", "reason": "Items stay."});
    assert_eq!(diff(json!([])).code, 1);
    let ended = diff(json!([one]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let report = artifact(home.path(), "contract-diff.json");
    assert_eq!((&report["breaking"], &report["counts"]["announced"]), (&json!(true), &json!(1)));
    let other = json!({"rule": "operation-removed", "place": "GET /nothing", "reason": "?"});
    let ended = diff(json!([one, other]));
    assert!(ended.out.contains("GET /nothing") || ended.err.contains("GET /nothing"), "{ended:?}");
}

#[test]
fn versions_are_judged_on_their_own() {
    let home = tempfile::tempdir().unwrap();
    for (previous, current, breaking, code) in [
        ("1.4.2", "1.5.0", true, 1),
        ("1.4.2", "2.0.0", false, 1),
        ("1.4.2", "1.5.0", false, 0),
        ("1.4.2", "1.4.1", false, 1),
    ] {
        let mut words = vec!["contract", "semver", "--previous", previous, "--current", current];
        words.extend(breaking.then_some("--breaking"));
        assert_eq!(run(home.path(), &words).code, code, "{previous} {current} {breaking}");
    }
    assert_eq!(run(home.path(), &["contract", "semver", "--previous", "x", "--current", "1.0.0"]).code, 2);
}

#[test]
fn a_history_of_sixty_random_runs_gives_the_ratios_of_an_oracle() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "old.json", &api("1.0.0"));
    let mut breaking = api("2.0.0");
    breaking["paths"].as_object_mut().unwrap().remove("/items/{id}");
    write(home.path(), "breaking.json", &breaking);
    fs::write(home.path().join("broken.json"), "{").unwrap();
    let (mut seed, mut outcomes) = (20_260_301_u64, Vec::new());
    for n in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (new, outcome) =
            [("old.json", 's'), ("old.json", 's'), ("old.json", 's'), ("breaking.json", 'b'), ("broken.json", 'p')]
                [(seed >> 33) as usize % 5];
        outcomes.push(outcome);
        run(home.path(), &["contract", "check", "old.json", new, "--sha", SHA, "--window", "30"]);
        // Counted in another way than ours: run by run.
        let (mut current, mut longest, mut streak) = (0, 0, 0);
        for outcome in &outcomes {
            current = if *outcome == 's' { current + 1 } else { 0 };
            streak = if *outcome == 'p' { streak + 1 } else { 0 };
            longest = longest.max(current);
        }
        let stable = |of: &[char]| of.iter().filter(|o| **o == 's').count();
        let window = &outcomes[outcomes.len().saturating_sub(30)..];
        let m = artifact(home.path(), "stability-metrics.json");
        let wanted = json!({
            "schema_version": 1, "window_size": 30, "window_stable_count": stable(window), "window_total_count": window.len(),
            "window_stability_ratio": stable(window) as f64 / window.len() as f64,
            "overall_stability_ratio": stable(&outcomes) as f64 / outcomes.len() as f64,
            "window_mean_score": stable(window) as f64 / window.len() as f64,
            "current_stable_streak": current, "longest_stable_streak": longest, "placeholder": outcome == 'p',
            "extensions": {"placeholder_streak": streak},
        });
        assert_eq!(m, wanted, "after {n}: {outcomes:?}");
    }
}

/// A receiver that keeps the bodies of what it gets.
fn receiver(status: &'static str) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let (send, bodies) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                length = line
                    .to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map_or(length, |n| n.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            write!(stream.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if send.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

#[test]
fn a_recovery_is_sent_once_on_the_first_healthy_run() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "old.json", &api("1.4.2"));
    write(home.path(), "patch.json", &api("1.4.3"));
    let mut breaking = api("1.5.0");
    breaking["paths"].as_object_mut().unwrap().remove("/items/{id}");
    write(home.path(), "breaking.json", &breaking);
    let (url, bodies) = receiver("204 No Content");
    let check = |new: &str, url: &str| {
        let mut command = command(home.path());
        command
            .args(["contract", "check", "old.json", new, "--sha", SHA, "--stability-min", "0"])
            .env("GOVERNANCE_WEBHOOK", url);
        said(command.output().unwrap())
    };
    assert_eq!(check("patch.json", &url).code, 0);
    assert_eq!(check("breaking.json", &url).code, 1);
    let notice = bodies.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(
        (&notice["reasons"], &notice["operations"]),
        (&json!(["semver_fail"]), &json!({"added": 0, "removed": 1}))
    );
    assert_eq!(
        (&notice["event"], &notice["version"], &notice["sha"]),
        (&json!("governance_notice"), &json!(1), &json!(SHA))
    );
    // What a receiver did not get is sent by the next run.
    let (full, _) = receiver("503 Service Unavailable");
    assert_eq!(check("patch.json", &full).code, 1);
    for _ in 0..3 {
        assert_eq!(check("patch.json", &url).code, 0);
    }
    let recovery = bodies.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((&recovery["reasons"], &recovery["semver_status"]), (&json!(["semver_recovered"]), &json!("ok")));
    assert!(bodies.try_recv().is_err(), "sent once");
}

#[test]
fn what_cannot_be_compared_is_named() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "ok.json", &api("1.0.0"));
    for (name, text, named) in [
        ("swagger.json", r#"{"openapi": "2.0"}"#, "is not 3.x"),
        ("dangling.json", r##"{"openapi": "3.1.0", "paths": {"/a": {"$ref": "#/none"}}}"##, "leads nowhere"),
        ("none.json", r#"{"a": 1}"#, "there is no OpenAPI document"),
        ("bad.yaml", "openapi: 3.1.0\npaths: [\n", "bad.yaml:"),
        ("bad.proto", "syntax = \"proto3\";\nmessage {", "bad.proto"),
    ] {
        fs::write(home.path().join(name), text).unwrap();
        let ended = run(home.path(), &["contract", "diff", "ok.json", name]);
        assert_eq!(ended.code, 3, "{name}: {ended:?}");
        assert!(ended.err.contains(named), "{name}: {}", ended.err);
    }
    assert!(tree::Tree::read(&home.path().join("ok.json")).unwrap().version().is_some());
}
