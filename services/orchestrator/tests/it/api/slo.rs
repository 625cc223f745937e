//! The state of the objectives, as callers read it. That metrics show the same is tested on a whole stack.

use super::server::{DEADLINE, Server};
use agentforge_config::Reader;
use agentforge_harness::eventually;
use agentforge_orchestrator::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// The objective of a service, once it was judged on at least `observed` seconds.
async fn judged(server: &Server, service: &str, observed: i64) -> Value {
    eventually(DEADLINE, "the objective is judged", async || {
        let list: Value = server.get("/v1/slo").await.json().await.map_err(|e| e.to_string())?;
        let of = |slo: &&Value| slo["service"] == service && slo["total"].as_i64() >= Some(observed);
        list["slos"].as_array().unwrap().iter().find(of).cloned().ok_or(list.to_string())
    })
    .await
}

#[tokio::test]
async fn objectives_are_judged_on_what_was_observed() {
    let server = Server::start(&[("SLO_AVAILABILITY", "0.99")]).await;
    let own = judged(&server, "orchestrator", 5).await;
    assert_eq!((&own["slo"], &own["unit"], &own["target"]), (&"availability".into(), &"seconds".into(), &0.99.into()));
    assert_eq!((&own["status"], &own["bad"]), (&"healthy".into(), &0.into()), "{own}");
    assert_eq!(own["total"].as_i64().unwrap() + own["unknown_seconds"].as_i64().unwrap(), 30 * 86_400);
    // No listener at this server's NATS_URL.
    let nats = judged(&server, "nats", 5).await;
    assert_eq!((&nats["good"], &nats["status"]), (&0.into(), &"at_risk".into()), "{nats}");
    let list: Value = server.get("/v1/slo").await.json().await.unwrap();
    let latency = list["slos"].as_array().unwrap().iter().find(|slo| slo["slo"] == "latency").unwrap();
    assert_eq!((&latency["status"], &latency["consumed"]), (&"no_data".into(), &Value::Null), "no job, no figure");
}

#[tokio::test]
async fn a_restart_neither_resets_nor_heals_a_budget() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("DATA_DIR", data.path().to_str().unwrap())];
    let before = Server::start(&settings).await;
    let down = judged(&before, "nats", 3).await["bad"].as_i64().unwrap();
    before.stop().await;
    let after = Server::start(&settings).await;
    let first = judged(&after, "nats", 1).await;
    assert!(first["bad"].as_i64().unwrap() >= down, "{down} s down before, then {first}");
    assert!(first["total"].as_i64() == first["bad"].as_i64(), "the restart itself is unknown, not up: {first}");
}

#[test]
fn targets_outside_of_zero_and_one_are_refused_by_name() {
    for bad in ["0", "1", "1.5", "-0.1", "99.9", "NaN", "most"] {
        for key in ["SLO_AVAILABILITY", "SLO_LATENCY", "SLO_LATENCY_CAP"] {
            let env = BTreeMap::from([(key.to_owned(), bad.to_owned())]);
            let mut reader = Reader::new(&env);
            Config::read(&mut reader);
            let faults = reader.finish().unwrap_err().to_string();
            assert!(faults.contains(key), "{key}={bad}: {faults}");
        }
    }
}
