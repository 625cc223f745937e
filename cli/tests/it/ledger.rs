//! `agentforge ledger` and `agentforge sync` against a real daemon: what is whole, what is missing, what was edited.

use crate::support::{SOON, agentforge};
use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, require};
use async_nats::jetstream;
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_is_proven_and_what_is_missing_or_edited_is_named() {
    let Some(()) = require("nats-server") else { return };
    let (server, home) = (NatsServer::start(NatsOptions::default()).await, tempfile::tempdir().unwrap());
    let path = |name: &str| home.path().join(name).to_string_lossy().into_owned();
    let mut daemon = Proc::builder(cargo_bin("agentforge-syncdaemon"))
        .envs([
            ("NATS_URL", server.url()),
            ("SITE", "pier-7".to_owned()),
            ("SYNC_QUEUE_DIR", path("replay")),
            ("SYNC_LEDGER_DIR", path("ledger")),
            ("HTTP_PORT", "0".to_owned()),
            ("METRICS_PORT", "0".to_owned()),
            ("EVIDENCE_MAX_BYTES", "64MiB".to_owned()),
            ("EVIDENCE_BLOBS_MAX_BYTES", "64MiB".to_owned()),
        ])
        .start();
    let http = daemon.ready(SOON).await["syncdaemon"]["http"].as_str().unwrap().to_owned();
    for n in 0..20 {
        fs::write(home.path().join("unfinished"), format!("content {n}")).unwrap();
        fs::rename(home.path().join("unfinished"), home.path().join(format!("replay/file {n}"))).unwrap();
    }
    let status = || agentforge(["sync", "status", "--json", "--url", &http]).ok();
    eventually(SOON, "all are delivered", || async {
        let status = status();
        if status["replayed"] == 20 && status["queue_depth"] == 0 { Ok(()) } else { Err(status) }
    })
    .await;
    let (ledger, url) = (path("ledger"), server.url());
    let verify = || agentforge(["ledger", "verify", "--json", "--contents", "--nats-url", &url, &ledger]);
    let report = verify().ok();
    assert_eq!((&report["ok"], &report["contents"], &report["not_in_ledger"]), (&true.into(), &20.into(), &0.into()));
    let shown = agentforge(["ledger", "show", &ledger, "--event", "replayed", "--file", "file%207", "--json"]).ok();
    let (seq, hash) = (shown["seq"].as_u64().unwrap(), shown["sha256"].as_str().unwrap());

    let js = jetstream::new(async_nats::connect(&url).await.unwrap());
    let stream = js.get_stream("edge_evidence").await.unwrap();
    stream.delete_message(seq).await.unwrap();
    let told = verify();
    assert_eq!(told.code, 1);
    assert_eq!(
        (&told.json()["missing"][0]["file"], &told.json()["missing"][0]["sha256"]),
        (&"file%207".into(), &hash.into())
    );
    let forged = format!("edge.evidence.pier-7.{hash}");
    js.publish(forged, "other bytes".into()).await.unwrap().await.unwrap();
    let told = verify();
    assert_eq!((told.code, &told.json()["altered"][0]["file"]), (1, &"file%207".into()));

    let file = fs::read_dir(&ledger).unwrap().flatten().next().unwrap().path();
    let edited = fs::read_to_string(&file).unwrap().replacen("\"bytes\":9", "\"bytes\":8", 1);
    fs::write(&file, edited).unwrap();
    let told = agentforge(["ledger", "verify", "--offline", "--json", &ledger]);
    assert_eq!((told.code, &told.json()["fault_count"]), (1, &1.into()));
    let told = agentforge(["ledger", "verify", "--offline", &ledger]);
    assert!(told.out.contains("does not follow the line before"), "{}", told.out);
}

/// A copy of a ledger with its one file's lines changed, under a name of its own.
fn copy_of(ledger: &std::path::Path, name: Option<&str>, change: impl Fn(&mut Vec<String>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let file = fs::read_dir(ledger).unwrap().flatten().next().unwrap().path();
    let mut lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    let name = name.map_or_else(|| file.file_name().unwrap().to_str().unwrap().to_owned(), str::to_owned);
    fs::write(copy.path().join(name), lines.concat()).unwrap();
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_head_a_cut_end_and_a_renamed_day_are_found() {
    let Some(()) = require("nats-server") else { return };
    let (server, home) = (NatsServer::start(NatsOptions::default()).await, tempfile::tempdir().unwrap());
    let path = |name: &str| home.path().join(name).to_string_lossy().into_owned();
    let mut daemon = Proc::builder(cargo_bin("agentforge-syncdaemon"))
        .envs([
            ("NATS_URL", server.url()),
            ("SITE", "pier-7".to_owned()),
            ("SYNC_QUEUE_DIR", path("replay")),
            ("SYNC_LEDGER_DIR", path("ledger")),
            ("HTTP_PORT", "0".to_owned()),
            ("METRICS_PORT", "0".to_owned()),
            ("EVIDENCE_MAX_BYTES", "64MiB".to_owned()),
            ("EVIDENCE_BLOBS_MAX_BYTES", "64MiB".to_owned()),
        ])
        .start();
    daemon.ready(SOON).await;
    for n in 0..12 {
        fs::write(home.path().join("unfinished"), format!("content {n}")).unwrap();
        let file = home.path().join(format!("replay/file {n}"));
        fs::rename(home.path().join("unfinished"), &file).unwrap();
        // One after the other, so that each is sent after the line of the one before.
        eventually(SOON, "it is delivered", || async { !file.exists() }).await;
    }
    assert_eq!(daemon.sigterm(SOON).await, 0);
    let (url, ledger) = (server.url(), home.path().join("ledger"));
    let verify = |dir: &std::path::Path, more: &[&str]| {
        let mut args = vec!["ledger", "verify", "--json"];
        args.extend(more);
        agentforge(args.into_iter().chain([dir.to_str().unwrap()]))
    };
    let hub = ["--nats-url", url.as_str()];
    let whole = copy_of(&ledger, None, |_| {});
    assert_eq!(verify(whole.path(), &hub).ok()["cut"].as_array().unwrap().len(), 0);

    let headless = copy_of(&ledger, None, |lines| drop(lines.drain(..5)));
    for more in [&["--offline"][..], &hub, &["--offline", "--archived"]] {
        let told = verify(headless.path(), more);
        assert_eq!(told.code, 1, "{more:?}");
        assert!(told.json()["cut"][0].as_str().unwrap().contains("head"), "{}", told.out);
    }
    // Many lines, or no more than that of the newest message.
    for left in [6, 11] {
        let short = copy_of(&ledger, None, |lines| {
            let mut delivered = 0;
            lines.retain(|line| {
                delivered += usize::from(line.contains("\"replayed\""));
                delivered <= left
            });
        });
        let told = verify(short.path(), &hub);
        assert_eq!((told.code, told.json()["fault_count"].as_u64()), (1, Some(0)), "{}", told.out);
        assert!(told.json()["cut"][0].as_str().unwrap().contains("end was cut off"), "{}", told.out);
    }
    for day in ["sync_20991231.jsonl", "sync_20200101.jsonl"] {
        let renamed = copy_of(&ledger, Some(day), |_| {});
        let told = verify(renamed.path(), &["--offline"]);
        assert!(
            told.code == 1 && told.json()["faults"][0]["problem"].as_str().unwrap().contains("renamed"),
            "{}",
            told.out
        );
    }
}
