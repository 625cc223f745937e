//! Several services in one process: they stop together, and the first failure is reported.

use crate::support::{Probe, ask};
use agentforge_config::Reader;
use agentforge_runtime::{Host, Member, Process, Runtime, Service, Signals, run};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

async fn member(name: &'static str, tricks: &str, stop: &CancellationToken, process: &Process) -> Member {
    let source =
        BTreeMap::from([("PROBE_TRICKS".to_owned(), tricks.to_owned()), ("METRICS_PORT".to_owned(), "0".to_owned())]);
    let mut reader = Reader::new(&source);
    let config = Probe::read_config(&mut reader);
    reader.finish().unwrap();
    let runtime = Runtime::new(name, stop.child_token(), Duration::from_secs(2), process);
    Member::build::<Probe>(config, runtime).await.unwrap()
}

fn host(stop: &CancellationToken) -> Host {
    Host { stop: stop.clone(), signals: Signals::never(), pause: Duration::ZERO, ready_file: None }
}

#[tokio::test]
async fn two_services_share_a_process_and_stop_by_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let (stop, process) = (CancellationToken::new(), Process::for_tests());
    let members = vec![member("one", "", &stop, &process).await, member("two", "", &stop, &process).await];
    let addresses: Vec<_> = members.iter().map(|member| member.endpoints().http.unwrap()).collect();
    let path = directory.path().join("ready.json");
    let running = tokio::spawn(run(members, Host { ready_file: Some(path.clone()), ..host(&stop) }));
    for address in addresses {
        assert!(ask(address, "GET /readyz", "").await.starts_with("HTTP/1.1 200"));
    }
    let start = Instant::now();
    let file = loop {
        match std::fs::read_to_string(&path) {
            Ok(text) => break text,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(10), "no ready file"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert!(file["one"]["http"].is_string() && file["two"]["http"].is_string(), "{file}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_service_that_fails_stops_the_other_and_is_the_cause() {
    let (stop, process) = (CancellationToken::new(), Process::for_tests());
    let members = vec![member("good", "", &stop, &process).await, member("bad", "fail", &stop, &process).await];
    let failure = run(members, host(&stop)).await.unwrap_err();
    let text = format!("{failure:#}");
    assert!(
        text.contains("service bad") && text.contains("task failing failed") && text.contains("lost my marbles"),
        "{text}"
    );
}

#[tokio::test]
async fn a_task_that_ignores_the_stop_fails_the_run_at_the_deadline() {
    let (stop, process) = (CancellationToken::new(), Process::for_tests());
    let members = vec![member("stubborn", "deaf", &stop, &process).await];
    stop.cancel();
    let start = Instant::now();
    let failure = run(members, host(&stop)).await.unwrap_err();
    assert!(format!("{failure:#}").contains("deaf"), "{failure:#}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_install_is_harmless_and_its_metrics_are_there() {
    let process = Process::for_tests();
    let source = BTreeMap::new();
    let mut reader = Reader::new(&source);
    let common = agentforge_config::Common::read(&mut reader);
    let metrics = Probe::metrics();
    let second = Process::init(&[], &common, &metrics);
    let third = Process::init(&[], &common, &metrics);
    for process in [process, second, third] {
        let text = process.scrape().await;
        assert_eq!(text.matches("# TYPE agentforge_probe_total counter").count(), 1, "{text}");
    }
}
