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
