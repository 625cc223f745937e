//! Jobs at the command line as people and scripts use them: waits that survive a restart, results of any size, ids of
//! batches, short ids, queues, dead letters, and a server at the wrong port.

use super::support::{Dev, SOON, agentforge, extras_but, feed, has_service_binaries, kill9, pid, said};
use agentforge_harness::{eventually, require};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("agentforge-jobs-").tempdir().unwrap()
}

/// As [`Dev::command`], for people.
fn plain(dev: &Dev) -> Command {
    let mut command = super::support::command();
    command.env("AGENTFORGE_SERVER", dev.ready["services"]["orchestrator"]["grpc"].as_str().unwrap());
    command
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_names_its_job_first_and_survives_a_killed_orchestrator() {
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = tempdir();
    let dev = Dev::start(&home, &["--processes"]).await;
    let victim = pid(&dev.ready["services"]["orchestrator"]["pid"]);
    let wait = std::thread::spawn({
        let mut command = plain(&dev);
        move || said(command.args(["job", "submit", "sleep", r#"{"seconds":8}"#, "--wait"]).output().unwrap())
    });
    let started = eventually(SOON, "the job runs", || {
        let said = dev.run(["job", "list", "--state", "running"]);
        let id = (said.code == 0).then(|| said.json()["jobs"][0]["id"].as_str().map(str::to_owned)).flatten();
        async move { id.ok_or(said.err) }
    })
    .await;
    kill9(victim);
    let said = wait.join().unwrap();
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(said.err.lines().next(), Some(format!("job {started}").as_str()), "{}", said.err);
    assert!(said.out.contains("slept"), "the result alone: {:?}", said.out);
    assert_eq!(dev.run(["job", "list", "--all"]).ok()["jobs"].as_array().unwrap().len(), 1, "submitted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_as_people_and_scripts_use_them() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let dev = Dev::start(&home, &["--concurrency", "8"]).await;
    results_of_any_size(&dev, &home);
    ids_of_a_batch_and_waits(&dev);
    lists_and_short_ids(&dev);
    dead_letters(&dev);
    queues(&dev);
    let said = said(plain(&dev).args(["agent", "list", "--status", "left"]).output().unwrap());
    assert_eq!((said.code, said.out.trim()), (0, "No agent has this status."));
}

fn results_of_any_size(dev: &Dev, home: &tempfile::TempDir) {
    let args = json!({"text": "x".repeat(700_000)}).to_string();
    let file = home.path().join("args.json");
    std::fs::write(&file, &args).unwrap();
    let given = format!("@{}", file.display());
    let said = said(plain(dev).args(["job", "submit", "echo", &given, "--wait", "60s"]).output().unwrap());
    assert_eq!((said.code, said.out.trim_end() == args), (0, true), "{} bytes: {}", said.out.len(), said.err);
    let id = said.err.lines().next().unwrap().strip_prefix("job ").unwrap().to_owned();

    let output = super::support::said(plain(dev).args(["job", "output", &id]).output().unwrap());
    assert!(output.code == 0 && output.out.trim_end() == args, "{}", output.err);
    let to = home.path().join("result.json");
    let written = plain(dev).args(["job", "output", &id, "--to"]).arg(&to).output().unwrap();
    assert!(written.status.success() && written.stdout.is_empty());
    assert_eq!(std::fs::read_to_string(&to).unwrap().trim_end(), args);

    // A small one is the same call, and a job without a result says what it is.
    let small =
        super::support::said(plain(dev).args(["job", "submit", "echo", r#"{"n":1}"#, "--wait"]).output().unwrap());
    let id = small.err.lines().next().unwrap().strip_prefix("job ").unwrap().to_owned();
    assert_eq!(super::support::said(plain(dev).args(["job", "output", &id]).output().unwrap()).out, "{\"n\":1}\n");
    let cancelled = dev.run(["job", "submit", "sleep", r#"{"ms":1}"#, "--run-at", "+1h"]).ok();
    let id = cancelled["id"].as_str().unwrap();
    dev.run(["job", "cancel", id]).ok();
    let none = dev.run(["job", "output", id]);
    assert!(none.code == 1 && none.err.contains("cancelled") && none.err.contains("no result"), "{}", none.err);
    assert!(!none.err.contains("--help shows the form"), "nothing is wrong with the command: {}", none.err);
}

fn ids_of_a_batch_and_waits(dev: &Dev) {
    let input = "{\"tool\":\"echo\",\"args\":{\"n\":1}}\n{\"tool\":x}\n{\"tool\":\"fail\",\"max_attempts\":1}\n";
    let batch = feed(dev.command().args(["job", "submit", "--batch", "-", "--label", "kind=batch"]), input);
    let told = lines(&batch.out);
    assert_eq!((batch.code, told.len()), (1, 3), "{}{}", batch.out, batch.err);
    assert_eq!((told[0]["line"].as_u64(), told[1]["line"].as_u64()), (Some(1), Some(3)));
    assert_eq!(told[2]["accepted"], 2);
    let refusal = told[2]["refusals"][0].to_string();
    assert!(refusal.contains("at column") && !refusal.contains("at line"), "{refusal}");
    let ids: Vec<&str> = told[..2].iter().map(|t| t["id"].as_str().unwrap()).collect();

    let text = feed(plain(dev).args(["job", "submit", "--batch", "-"]), "{\"tool\":\"echo\"}\n");
    let (line, id) = text.out.trim_end().split_once('\t').unwrap();
    assert_eq!((text.code, line, id.len()), (0, "1", 36), "{}{}", text.out, text.err);
    assert!(text.err.contains("1 stored"), "{}", text.err);

    let waited = feed(dev.command().args(["job", "wait", "-", "--timeout", "60s"]), &ids.join("\n"));
    let states: Vec<_> = lines(&waited.out).iter().map(|job| job["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!((waited.code, states.len()), (3, 2), "{}{}", waited.out, waited.err);
    assert!(states.contains(&"succeeded".to_owned()) && !states.contains(&"running".to_owned()), "{states:?}");
    assert_eq!(dev.run(["job", "wait", ids[0]]).code, 0);
    assert_eq!(dev.run(["job", "wait", "01234567-0000-7000-8000-000000000000"]).code, 1);

    let both = feed(dev.command().args(["job", "submit", "--batch", "-", "--wait", "60s"]), "{\"tool\":\"echo\"}\n");
    let told = lines(&both.out);
    assert_eq!((both.code, told.len()), (0, 3), "the id, the summary, the job: {}{}", both.out, both.err);
    assert_eq!(told[2]["state"], "succeeded");
}

fn lists_and_short_ids(dev: &Dev) {
    let long = "because ".repeat(40);
    let args = json!({"class": "validation", "message": long}).to_string();
    let failed = dev.run(["job", "submit", "fail", &args, "--wait"]).json();
    let id = failed["id"].as_str().unwrap();
    let table = said(plain(dev).args(["job", "list", "-o", "id,error,labels", "--state", "failed"]).output().unwrap());
    let row = table.out.lines().find(|l| l.contains(id)).unwrap_or_else(|| panic!("{}", table.out));
    assert!(table.out.starts_with("ID") && row.contains(long.trim()) && !row.contains('…'), "nothing is cut: {row}");

    let all = dev.run(["job", "list", "--all"]).ok()["jobs"].as_array().unwrap().len();
    assert!(all > 4);
    assert_eq!(
        dev.run(["job", "list", "--since", "1h", "--limit", "1000"]).ok()["jobs"].as_array().unwrap().len(),
        all
    );
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(dev.run(["job", "list", "--since", "1s"]).ok()["jobs"], json!([]));
    let sorted = dev.run(["job", "list", "--sort", "took", "--limit", "1000"]).ok();
    let took = |job: &Value| {
        let at = |key: &str| job[key].as_str().map(|t| t.parse::<jiff::Timestamp>().unwrap());
        Some(at("finished_at")?.duration_since(at("created_at")?))
    };
    let order: Vec<_> = sorted["jobs"].as_array().unwrap().iter().map(took).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");

    // Ids begin with the time, so the first digits are of many, and enough of them are of one.
    assert_eq!(dev.run(["job", "get", &id[..23]]).ok()["id"], id);
    let many = dev.run(["job", "get", &id[..4]]);
    assert!(many.code == 1 && many.err.contains("more digits"), "{}", many.err);
    let none = dev.run(["job", "get", "ffff1234"]);
    assert!(none.code == 1 && none.err.contains("ffff1234"), "{}", none.err);
}

fn dead_letters(dev: &Dev) {
    let dead = dev.run(["job", "submit", "fail", r#"{"class":"validation","message":"no"}"#, "--wait"]).json();
    let job = dead["id"].as_str().unwrap();
    let letter = dev.run(["dlq", "get", job]).ok();
    assert_eq!((letter["job_id"].as_str(), letter["attempts"][0]["attempt"].as_u64()), (Some(job), Some(1)));
    let text = said(plain(dev).args(["dlq", "get", letter["id"].as_str().unwrap()]).output().unwrap());
    assert!(text.code == 0 && text.out.contains("try 1"), "{}{}", text.out, text.err);

    let before = dev.run(["dlq", "list", "--all"]).ok()["dead_letters"].as_array().unwrap().len();
    let unknown = dev.run(["dlq", "discard", job, "00000000-0000-7000-8000-000000000000"]);
    assert_eq!(unknown.code, 1, "one is unknown, so none is discarded");
    assert_eq!(dev.run(["dlq", "list", "--all"]).ok()["dead_letters"].as_array().unwrap().len(), before);
    assert_eq!(dev.run(["dlq", "discard", job]).ok()["discarded"], 1);
    assert_eq!(dev.run(["dlq", "get", job]).code, 1);
    assert_eq!(dev.run(["job", "get", job]).ok()["state"], "failed", "its job stays as it is");
    assert_eq!(dev.run(["dlq", "discard", "--all", "--reason", "worker_lost"]).ok()["discarded"], 0);
    assert_eq!(dev.run(["dlq", "discard", "--all"]).ok()["discarded"], before as u64 - 1);
    assert_eq!(dev.run(["dlq", "list", "--all"]).ok()["dead_letters"], json!([]));
}

fn queues(dev: &Dev) {
    for _ in 0..3 {
        dev.run(["job", "submit", "echo", "{}", "--queue", "nobody-serves-this"]).ok();
    }
    dev.run(["job", "submit", "echo", "{}", "--run-at", "+1h", "--queue", "nobody-serves-this"]).ok();
    let counts = dev.run(["job", "counts"]).ok();
    assert!(counts["accepted"].as_u64() >= Some(1) && counts["counted_at"].is_string(), "{counts}");
    let all = dev.run(["queue", "list"]).ok();
    let find = |name: &str| all["queues"].as_array().unwrap().iter().find(|q| q["queue"] == name).cloned().unwrap();
    let (served, alone) = (find("default"), find("nobody-serves-this"));
    assert_eq!((served["workers"].as_u64(), served["capacity"].as_u64()), (Some(1), Some(8)), "{served}");
    let waiting = alone["accepted"].as_u64().unwrap() + alone["queued"].as_u64().unwrap();
    assert_eq!((waiting, alone["delayed"].as_u64(), alone["workers"].as_u64()), (3, Some(1), Some(0)), "{alone}");
    assert!(alone["oldest_waiting_since"].is_string());
    let told = said(plain(dev).args(["queue", "get", "nobody-serves-this"]).output().unwrap());
    assert!(told.code == 0 && told.err.contains("no worker serves dev/nobody-serves-this"), "{}{}", told.out, told.err);
    assert_eq!(dev.run(["queue", "get", "never-heard-of"]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_port_is_recognised() {
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let dev = Dev::start(&home, &["--without", &extras_but(&[])]).await;
    let rest = dev.ready["services"]["orchestrator"]["http"].as_str().unwrap();
    for args in [&["job", "list"][..], &["job", "submit", "echo", "{}", "--wait"], &["agent", "list"]] {
        let said = agentforge(["--server", rest].iter().chain(args));
        assert_eq!(said.code, 1, "{args:?}");
        assert!(said.err.contains("not with gRPC") && said.err.contains("50051"), "{args:?}: {}", said.err);
    }
    // A server that speaks only HTTP/1, as many proxies do.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let said = agentforge(["--server", &address, "job", "list"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("hint:"), "{}", said.err);
}

#[test]
fn a_server_that_is_away_is_told_at_once_also_with_a_wait() {
    let begun = std::time::Instant::now();
    let child = super::support::command()
        .args(["--server", "http://127.0.0.1:1", "job", "submit", "echo", "{}", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = said(child);
    assert!(said.code == 1 && said.err.contains("cannot be reached"), "{}", said.err);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it is not waited for: {:?}", begun.elapsed());
}
