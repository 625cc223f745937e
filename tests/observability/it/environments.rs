//! Environments that share a Prometheus: a fault in one is reported with its name, and hides nothing of another.
//!
//! Made of the cases that each alert has anyway: the series of one that fires in one environment, next to those of one
//! that is quiet in the other.

use crate::files;
use agentforge_harness::{promtool, require};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

const ONE: &str = "agentforge";
const OTHER: &str = "agentforge-staging";
/// What a whole cluster has once belongs to no environment.
const OF_THE_CLUSTER: [&str; 1] = ["KEDADown"];

/// What promtool says of these tests, with all rules.
pub fn run(tests: &[Value]) -> (bool, String) {
    run_every("1m", tests)
}

/// As [`run`], with rules evaluated every so often.
pub fn run_every(interval: &str, tests: &[Value]) -> (bool, String) {
    run_with(&files::listed("monitoring/alerts", ".rules.yml"), &json!(interval), tests)
}

fn run_with(rules: &[PathBuf], interval: &Value, tests: &[Value]) -> (bool, String) {
    let rules: Vec<&str> = rules.iter().map(|path| path.to_str().unwrap()).collect();
    let document = json!({"rule_files": rules, "evaluation_interval": interval, "tests": tests});
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    promtool(&["test", "rules", file.path().to_str().unwrap()], b"")
}

/// A series or a sample with its environment. KEDA names it in a label of its own.
fn placed(series: &str, namespace: &str) -> String {
    let word = if series.contains("exported_namespace=") { "exported_namespace" } else { "namespace" };
    let label = format!("{word}=\"{namespace}\"");
    if let Some((before, after)) = series.split_once(&format!("{word}=\"")) {
        return format!("{before}{label}{}", after.split_once('"').unwrap().1);
    }
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{label}, {labels}"),
        None => format!("{series}{{{label}}}"),
    }
}

/// The series of a case in an environment. What a case has of other environments stays out.
fn series(case: &Value, namespace: &str) -> Vec<Value> {
    let own = |s: &&Value| !s["series"].as_str().unwrap().contains("{namespace=") && !has_namespace(s);
    let all = case["input_series"].as_array().map(Vec::as_slice).unwrap_or_default();
    let place = |s: &Value| json!({"series": placed(s["series"].as_str().unwrap(), namespace), "values": s["values"]});
    all.iter().filter(own).map(place).collect()
}

fn has_namespace(series: &Value) -> bool {
    series["series"].as_str().unwrap().contains(", namespace=")
}

/// What a case expects, in each of these environments.
fn expected(case: &Value, namespaces: &[&str]) -> Vec<Value> {
    let expect = |test: &Value| {
        let samples = test["exp_samples"].as_array().unwrap();
        let all = namespaces.iter().flat_map(|namespace| {
            samples.iter().map(|sample| {
                json!({"labels": placed(sample["labels"].as_str().unwrap(), namespace), "value": sample["value"]})
            })
        });
        json!({"expr": test["expr"], "eval_time": test["eval_time"], "exp_samples": all.collect::<Vec<_>>()})
    };
    case["promql_expr_test"].as_array().unwrap().iter().map(expect).collect()
}

/// Of each alert of a file the first case of a kind.
fn cases(document: &Value, kind: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for case in document["tests"].as_array().unwrap() {
        let Some((alert, word)) = case["name"].as_str().unwrap().split_once(": ") else { continue };
        if word.starts_with(kind) {
            found.entry(alert.to_owned()).or_insert_with(|| case.clone());
        }
    }
    found
}

/// The cases of a file, in two environments.
fn in_two(document: &Value) -> Vec<Value> {
    let (fires, quiet) = (cases(document, "fires"), cases(document, "quiet"));
    let mut tests = Vec::new();
    for (alert, fault) in fires.iter().filter(|(alert, _)| !OF_THE_CLUSTER.contains(&alert.as_str())) {
        let mut add = |word: &str, input: Vec<Value>, told: &[&str]| {
            tests.push(json!({
                "name": format!("{alert}, {word}"), "interval": fault["interval"], "input_series": input,
                "promql_expr_test": expected(fault, told),
            }));
        };
        add("in one", [series(fault, ONE), series(&quiet[alert], OTHER)].concat(), &[ONE]);
        add("in both", [series(fault, ONE), series(fault, OTHER)].concat(), &[ONE, OTHER]);
    }
    tests
}

#[test]
fn each_fault_in_one_environment_is_told_with_its_name_and_none_is_hidden() {
    let Some(()) = require("prometheus") else { return };
    let tried: Vec<(usize, bool, String)> = std::thread::scope(|scope| {
        let try_one = |path: PathBuf| {
            let document = files::yaml(&path);
            let names = document["rule_files"].as_array().unwrap();
            let rules: Vec<_> = names.iter().map(|name| path.with_file_name(name.as_str().unwrap())).collect();
            let tests = in_two(&document);
            let (is_content, said) = run_with(&rules, &document["evaluation_interval"], &tests);
            (tests.len(), is_content, said)
        };
        let all = files::listed("monitoring/alerts", "-alerts.test.yml");
        let running: Vec<_> = all.into_iter().map(|path| scope.spawn(move || try_one(path))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let alerts = files::alerts().len() - OF_THE_CLUSTER.len();
    assert_eq!(tried.iter().map(|(tests, ..)| tests).sum::<usize>(), 2 * alerts, "an alert has no cases");
    for (_, is_content, said) in tried {
        assert!(is_content, "{said}");
    }
}

#[test]
fn no_rule_forgets_where_its_series_are_from() {
    for rule in files::rules() {
        let found = crate::promql::named(&rule.expr);
        let is_grouped = found.grouping.contains("namespace") || !found.grouping.is_empty() && without(&rule.expr);
        let is_plain =
            found.grouping.is_empty() && !["sum(", "max(", "min(", "absent("].iter().any(|f| calls(&rule.expr, f));
        let is_known = OF_THE_CLUSTER.contains(&rule.name.as_str());
        assert!(is_grouped || is_plain || is_known, "{}: {}", rule.name, rule.expr);
    }
}

/// Whether an expression calls a function, and not one whose name ends like it.
fn calls(expr: &str, function: &str) -> bool {
    expr.match_indices(function).any(|(at, _)| !expr[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// Whether an expression keeps all labels but those of the replica.
fn without(expr: &str) -> bool {
    expr.contains("without (instance, pod)") && !expr.contains(" by (")
}
