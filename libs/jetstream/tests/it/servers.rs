//! Which servers are supported: one list, and what is said of a server outside of it.

use crate::{SOON, connect};
use agentforge_harness::{NatsOptions, NatsServer, eventually, nats_pinned, nats_versions, require_nats};
use agentforge_jetstream::{NEWEST_TRIED, OLDEST, ServerVersion, Support};

const TOO_OLD: &str = "2.11.11";

#[test]
fn the_versions_that_are_tested_are_those_of_code_compose_and_documents() {
    let versions: Vec<ServerVersion> = nats_versions().iter().map(|v| ServerVersion::parse(v).unwrap()).collect();
    assert!(versions.is_sorted(), "{versions:?}");
    assert_eq!(versions[0], OLDEST);
    let newest = versions.last().unwrap();
    let pinned = ServerVersion::parse(&nats_pinned()).unwrap();
    assert!(versions.contains(&pinned), "{pinned} is not among {versions:?}");
    assert_eq!((newest.major, newest.minor), NEWEST_TRIED);
    for (file, text) in [
        ("compose.yaml", format!("docker.io/library/nats:{pinned}")),
        ("docs/deploy/upgrade-nats.md", format!("version, {pinned},")),
        ("docs/deploy/upgrade-nats.md", format!("nats-server **{OLDEST} and newer**")),
    ] {
        let path = format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"));
        let found = std::fs::read_to_string(path).unwrap();
        assert!(found.contains(&text), "{file} does not say {text:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named_and_its_successor_is_taken() {
    let (oldest, Some(())) = (OLDEST.to_string(), require_nats(TOO_OLD)) else { return };
    let Some(()) = require_nats(&oldest) else { return };
    let mut server = NatsServer::start(NatsOptions::default().version(TOO_OLD)).await;
    let nats = connect(&server.url()).await;
    assert!(matches!(nats.support(), Support::TooOld(_)));
    let (usable, words) = nats.readiness();
    assert!(!usable && words.contains("2.11.11 is too old: 2.12.0 or newer is needed"), "{words}");
    server.stop_gracefully().await;
    server.restart_as(&oldest).await;
    // The oldest that is taken is not one that anybody should stay on.
    eventually(SOON, "the newer one is taken", || async {
        let (usable, words) = nats.readiness();
        if usable && words.contains("published vulnerabilities: 2.12.7 or newer") { Ok(()) } else { Err(words) }
    })
    .await;
}
