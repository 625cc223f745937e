//! kill -9 at every step, and what the next start makes of it.

use crate::site::{Hub, SITE, SOON, Site, header};
use agentforge_harness::{NatsOptions, Proc, require};
use agentforge_syncdaemon::steps::Step;

/// Files above this go in chunks: the server's limit in these tests.
const MAX_PAYLOAD: usize = 128 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_loses_nothing_and_leaves_one_copy() {
    let Some(()) = require("nats-server") else { return };
    let hub = Hub::with(NatsOptions::default().extra(&format!("max_payload: {MAX_PAYLOAD}"))).await;
    for (n, step) in Step::ALL.into_iter().enumerate() {
        let site = Site::new();
        let content = if step.is_of_large_files() {
            vec![u8::try_from(n).unwrap(); 3 * MAX_PAYLOAD]
        } else {
            format!("content of {step:?}").into_bytes()
        };
        site.put("evidence.bin", &content);
        let before = hub.stream().count().await;
        let mut process = Proc::builder(env!("CARGO_BIN_EXE_agentforge-syncdaemon"))
            .envs(site.settings(&hub.url()))
            .env("SYNC_KILL_AT", format!("{step:?}"))
            .start();
        assert_eq!(process.wait(SOON).await, 128 + 9, "{step:?} is a step that is passed\n{}", process.full_log());

        let daemon = site.daemon(&hub.url(), &[]).await;
        site.until_drained().await;
        assert_eq!(hub.stream().count().await, before + 1, "{step:?}");
        let delivered: Vec<_> = site.lines().into_iter().filter(|e| e.is_delivery()).collect();
        assert!((1..=2).contains(&delivered.len()), "{step:?}: {delivered:?}");
        let hash = crate::site::sha256(&content);
        assert!(delivered.iter().all(|e| e.sha256.as_deref() == Some(&*hash)), "{step:?}");
        daemon.stop().await;
    }
    let messages = hub.stream().messages().await;
    assert_eq!(messages.len(), Step::ALL.len());
    assert!(messages.iter().all(|m| header(m, "Agentforge-Site") == SITE));
}
