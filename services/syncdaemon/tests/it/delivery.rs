//! What becomes of a file: in the stream with its headers, in the ledger, and gone.

use crate::site::{Hub, SITE, Site, header, sha256};
use agentforge_harness::{eventually, require};
use agentforge_ledger::Event;
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_in_the_stream_in_the_ledger_and_gone() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    fs::write(site.queue().join("before.txt"), "here before the start").unwrap();
    let daemon = site.daemon(&hub.url(), &[]).await;
    site.put("a report.json", r#"{"x":1}"#);
    site.until_drained().await;

    let messages = hub.stream().messages().await;
    assert_eq!(messages.len(), 2);
    let message = messages.iter().find(|m| header(m, "Agentforge-File") == "a%20report.json").unwrap();
    let hash = sha256(br#"{"x":1}"#);
    assert_eq!(message.subject.as_str(), format!("edge.evidence.{SITE}.{hash}"));
    assert_eq!(&*message.payload, br#"{"x":1}"#);
    for (name, value) in [
        ("Nats-Msg-Id", format!("{SITE}:{hash}").as_str()),
        ("Agentforge-Size", "7"),
        ("Agentforge-Site", SITE),
        ("Content-Type", "application/json"),
    ] {
        assert_eq!(header(message, name), value, "{name}");
    }
    assert!(header(message, "Agentforge-Mtime").parse::<jiff::Timestamp>().is_ok());

    let line = site.lines_of(Event::Replayed).into_iter().find(|e| e.sha256.as_deref() == Some(&*hash)).unwrap();
    assert_eq!((line.file.as_deref(), line.bytes, line.attempts), (Some("a%20report.json"), Some(7), Some(1)));
    assert_eq!((line.stream.as_deref(), line.domain.as_deref()), (Some("edge_evidence"), None));
    assert_eq!(line.msg_id, Some(format!("{SITE}:{hash}")));
    assert_eq!(site.lines_of(Event::Startup).len(), 1);
    eventually(crate::site::SOON, "the queue shows as drained", || async {
        daemon.metric("replay_queue_depth", &[SITE]).await == Some(0.0)
    })
    .await;
    assert_eq!(daemon.metric("replay_files_total", &["replayed"]).await, Some(2.0));
    daemon.stop().await;
}
