//! What belongs to a site stays there, what belongs to the hub crosses, and nothing is stored twice.

use super::{SITE, Site};
use crate::oracle::Submitted;
use crate::stack::{Options, Stack};
use agentforge_harness::{EdgeSite, eventually, require};
use async_nats::jetstream::{self, stream};
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// Different at both ends, so that no sum fits by chance.
const AT_SITE: usize = 70;
const AT_HUB: usize = 40;
const EVIDENCE: u64 = 15;

/// One event and one report per job, so that streams can be counted.
fn counted() -> Options {
    Options::new().orchestrator("JOB_EVENTS", "final").worker("STARTED_AFTER", "60s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_site_is_stored_there_once_and_nowhere_else() {
    let Some(()) = require("nats-server") else { return };
    // The same mission and the same subjects at both ends: only the accounts keep them apart.
    let Site { hub, gate: _gate, link: _link, stack: at_site } =
        Site::start(EdgeSite::start(SITE).await, counted()).await;
    let at_hub = Stack::start_on(hub, counted()).await;
    let (of_site, of_hub) = (at_site.api(), at_hub.api());
    let (site_jobs, hub_jobs) = tokio::join!(
        Submitted::submit(&of_site, AT_SITE, "site", "echo"),
        Submitted::submit(&of_hub, AT_HUB, "hub", "echo"),
    );
    site_jobs.all_final(&of_site, Duration::from_secs(60)).await;
    hub_jobs.all_final(&of_hub, Duration::from_secs(60)).await;
    site_jobs.judge(&at_site).await;
    hub_jobs.judge(&at_hub).await;

    // Evidence of the site is the hub's, through a plain client of the leaf.
    let hub = jetstream::new(async_nats::connect(at_hub.nats.url()).await.unwrap());
    let subjects = vec!["edge.evidence.>".to_owned()];
    hub.get_or_create_stream(stream::Config { name: "edge_evidence".into(), subjects, ..Default::default() })
        .await
        .unwrap();
    let leaf = jetstream::new(async_nats::connect(at_site.nats.url()).await.unwrap());
    for n in 0..EVIDENCE {
        let subject = format!("edge.evidence.{SITE}.{n}");
        let ack = eventually(Duration::from_secs(60), "the leaf knows the hub's new stream", || async {
            leaf.publish(subject.clone(), "x".into()).await.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())
        })
        .await;
        assert_eq!((ack.domain.as_str(), ack.stream.as_str()), ("hub", "edge_evidence"));
    }

    assert_eq!((job_events(&leaf).await, job_events(&hub).await), (AT_SITE as u64, AT_HUB as u64), "events of jobs");
    let (site, hub) = (ever_stored(&leaf).await, ever_stored(&hub).await);
    for (place, streams, count) in [("site", &site, AT_SITE as u64), ("hub", &hub, AT_HUB as u64)] {
        assert_eq!(streams.get("swarm_jobs"), Some(&count), "jobs at the {place}: {streams:?}");
        // Results that are ready at the same time are one message.
        let results = streams.get("swarm_results").copied().unwrap_or(0);
        assert!((1..=count).contains(&results), "results at the {place}: {streams:?}");
    }
    assert_eq!(hub.get("edge_evidence"), Some(&EVIDENCE));
    assert_eq!(site.get("edge_evidence"), None, "the leaf keeps evidence of its own");
}

/// How many events of jobs there are; those of the audit log depend on how calls share commits.
async fn job_events(js: &jetstream::Context) -> u64 {
    let stream = js.get_stream("events").await.unwrap();
    let subjects = stream.info_with_subjects("agentforge.events.job.>").await.unwrap();
    subjects.try_fold(0, |all, (_, n)| async move { Ok(all + n as u64) }).await.unwrap()
}

/// Per stream, how many messages it has ever stored: work queues delete what was done.
async fn ever_stored(js: &jetstream::Context) -> BTreeMap<String, u64> {
    let infos: Vec<stream::Info> = js.streams().try_collect().await.unwrap();
    infos.into_iter().map(|info| (info.config.name, info.state.last_sequence)).collect()
}
