//! What each identity may publish and listen to, as a table: every cell is tried at a real server, and nothing that is
//! not in the table is let through.
//!
//! A subject that passes is not yet a right to what happens behind it: `attacks` tries what a reply or a consumer can reach.

use super::{Server, WAIT};
use crate::manifests::overlay;
use agentforge_harness::{eventually, require};
use std::collections::BTreeSet;

/// Every identity that connects as a client.
pub const IDENTITIES: [&str; 10] = [
    "topology",
    "orchestrator",
    "worker",
    "syncdaemon",
    "broadcaster",
    "tactical-api",
    "console",
    "backlog",
    "producer",
    "operator",
];

/// Each stream with a subject of it.
pub const STREAMS: [(&str, &str); 15] = [
    ("swarm_jobs", "swarm.jobs.staging.default"),
    ("swarm_results", "swarm.results.staging.default"),
    ("swarm_dlq", "swarm.dlq.staging.default"),
    ("swarm_advisories", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.swarm_jobs.w"),
    ("events", "agentforge.events.job.staging.dead"),
    ("OBJ_job_outputs", "$O.job_outputs.C.x"),
    ("KV_operations", "$KV.operations.staging.x"),
    ("KV_handbacks", "$KV.handbacks.x"),
    ("broadcaster_retries", "broadcaster.parked.staging.e.x"),
    ("broadcaster_dlq", "broadcaster.dlq.staging.e"),
    ("broadcaster_deliveries", "broadcaster.deliveries.staging"),
    ("KV_broadcaster_state", "$KV.broadcaster_state.staging.e"),
    ("tactical", "tactical.markers.s.m"),
    ("edge_evidence", "edge.evidence.s.x"),
    ("OBJ_edge_evidence_blobs", "$O.edge_evidence_blobs.C.x"),
];

/// What can be done with a stream, by a letter, and the subject that does it.
const DEEDS: [(char, &str); 23] = [
    ('s', "{subject}"),
    ('I', "$JS.API.STREAM.INFO.{stream}"),
    ('C', "$JS.API.STREAM.CREATE.{stream}"),
    ('U', "$JS.API.STREAM.UPDATE.{stream}"),
    ('D', "$JS.API.STREAM.DELETE.{stream}"),
    ('P', "$JS.API.STREAM.PURGE.{stream}"),
    ('M', "$JS.API.STREAM.MSG.DELETE.{stream}"),
    ('g', "$JS.API.STREAM.MSG.GET.{stream}"),
    ('d', "$JS.API.DIRECT.GET.{stream}"),
    ('l', "$JS.API.DIRECT.GET.{stream}.{subject}"),
    ('B', "$JS.API.STREAM.SNAPSHOT.{stream}"),
    ('R', "$JS.API.STREAM.RESTORE.{stream}"),
    ('E', "$JS.API.STREAM.LEADER.STEPDOWN.{stream}"),
    ('L', "$JS.API.CONSUMER.LIST.{stream}"),
    ('i', "$JS.API.CONSUMER.INFO.{stream}.x"),
    ('c', "$JS.API.CONSUMER.CREATE.{stream}.x.{subject}"),
    ('f', "$JS.API.CONSUMER.CREATE.{stream}.x"),
    ('k', "$JS.API.CONSUMER.CREATE.{stream}"),
    ('o', "$JS.API.CONSUMER.DURABLE.CREATE.{stream}.x"),
    ('x', "$JS.API.CONSUMER.DELETE.{stream}.x"),
    ('p', "$JS.API.CONSUMER.PAUSE.{stream}.x"),
    ('n', "$JS.API.CONSUMER.MSG.NEXT.{stream}.x"),
    ('a', "$JS.ACK.{stream}.x.1.2.3.4.5"),
];

/// What an identity may do with each stream; `*` is every stream, and what it may is added to what is listed here.
const MAY: [(&str, &[(&str, &str)]); 10] = [
    ("topology", &[("*", "ICU"), ("swarm_results", "icfx"), ("events", "ix")]),
    (
        "orchestrator",
        &[
            ("swarm_jobs", "sIMgdLicxp"),
            ("swarm_results", "Idina"),
            ("swarm_dlq", "sI"),
            ("swarm_advisories", "I"),
            // What other services report for the audit log, by a consumer that the topology makes.
            ("events", "sIina"),
            ("OBJ_job_outputs", "Ilckx"),
            ("KV_operations", "sIl"),
            ("KV_handbacks", "I"),
        ],
    ),
    (
        "worker",
        &[
            ("swarm_jobs", "Iina"),
            ("swarm_results", "sI"),
            ("OBJ_job_outputs", "sIlP"),
            ("KV_operations", "Il"),
            ("KV_handbacks", "sIl"),
        ],
    ),
    ("syncdaemon", &[("edge_evidence", "sIlg"), ("OBJ_edge_evidence_blobs", "sIlg")]),
    (
        "broadcaster",
        &[
            ("events", "Igdicfxna"),
            ("broadcaster_retries", "sIMgdlicfxna"),
            ("broadcaster_dlq", "sIMgdl"),
            ("broadcaster_deliveries", "sId"),
            ("KV_broadcaster_state", "sIlicfkx"),
        ],
    ),
    (
        "tactical-api",
        &[("tactical", "sIgdlicfkx"), ("edge_evidence", "Igdlicfkx"), ("OBJ_edge_evidence_blobs", "Iglcfkx")],
    ),
    ("console", &[]),
    ("backlog", &[("swarm_jobs", "i")]),
    ("producer", &[]),
    ("operator", &[("*", "ICUDPMgdlEBRLicfkoxpna")]),
];

/// Subjects of no one stream, and who may publish them.
const SUBJECTS: [(&str, &[&str]); 28] = [
    ("swarm.control.staging.cancel", &["orchestrator"]),
    ("swarm.agents.a.heartbeat", &["worker"]),
    ("swarm.anything", &[]),
    ("agentforge.events.custom.order", &["orchestrator", "producer"]),
    ("agentforge.events.alert.high", &["orchestrator", "broadcaster"]),
    ("agentforge.events.audit.orchestrator.staging.CancelJob", &["orchestrator"]),
    ("agentforge.events.audit.reported.broadcaster.staging.EnableEndpoint", &["orchestrator", "broadcaster"]),
    ("agentforge.events.audit.reported.tactical-api.staging.RemoveMarker", &["orchestrator", "tactical-api"]),
    ("agentforge.events.audit.reported.console.staging.AddUser", &["orchestrator", "console"]),
    ("todos.events", &["producer", "console"]),
    ("edge.site.s.seen", &["orchestrator"]),
    ("$KV.other.x", &[]),
    ("$O.other.C.x", &[]),
    ("$JS.API.INFO", &["topology", "orchestrator", "worker", "syncdaemon", "broadcaster", "tactical-api", "operator"]),
    ("$JS.API.STREAM.NAMES", &["broadcaster", "operator"]),
    ("$JS.API.STREAM.LIST", &["operator"]),
    ("$JS.API.STREAM.CREATE.mine", &["topology", "operator"]),
    ("$JS.API.META.LEADER.STEPDOWN", &["operator"]),
    ("$JS.API.ACCOUNT.PURGE.A", &["operator"]),
    ("$JS.EVENT.ADVISORY.STREAM.DELETED.swarm_jobs", &[]),
    ("$JS.EVENT.ADVISORY.API", &[]),
    ("$SYS.REQ.SERVER.PING", &[]),
    ("$SYS.REQ.ACCOUNT.PING.CONNZ", &[]),
    ("$SYS.ACCOUNT.A.CONNECT", &[]),
    ("_R_.x", &[]),
    ("_INBOX.x", &[]),
    ("$NRG.x", &[]),
    ("anything", &[]),
];

/// Subjects to listen to, and who may.
const HEARD: [(&str, &[&str]); 21] = [
    (">", &[]),
    ("swarm.>", &[]),
    ("swarm.jobs.>", &[]),
    ("swarm.results.>", &[]),
    ("swarm.control.*.cancel", &["worker"]),
    ("swarm.agents.*.heartbeat", &["orchestrator"]),
    ("agentforge.events.>", &[]),
    ("todos.events", &[]),
    ("$KV.>", &[]),
    ("$O.>", &[]),
    ("edge.evidence.>", &[]),
    ("edge.site.*.seen", &["orchestrator"]),
    ("tactical.>", &["tactical-api"]),
    ("$JS.>", &[]),
    ("$JS.API.>", &[]),
    ("$JS.ACK.>", &[]),
    ("$JS.EVENT.ADVISORY.STREAM.DELETED.>", &["topology", "operator"]),
    ("$JS.EVENT.ADVISORY.>", &["operator"]),
    ("$SYS.>", &[]),
    ("_R_.>", &[]),
    ("_INBOX.>", &[]),
];

/// What the table lets an identity publish, of all that is tried.
fn published(identity: &str) -> Vec<(String, bool)> {
    let may = MAY.iter().find(|(name, _)| *name == identity).unwrap().1;
    let mut cells = Vec::new();
    for (stream, subject) in STREAMS {
        let letters: String =
            may.iter().filter(|(name, _)| *name == "*" || *name == stream).map(|(_, letters)| *letters).collect();
        for (letter, deed) in DEEDS {
            cells.push((deed.replace("{stream}", stream).replace("{subject}", subject), letters.contains(letter)));
        }
    }
    cells.extend(SUBJECTS.map(|(subject, who)| (subject.to_owned(), who.contains(&identity))));
    // The backlog only asks: it sends nothing to itself.
    cells.extend(IDENTITIES.map(|other| (format!("_INBOX.{other}.x"), other == identity && identity != "backlog")));
    cells
}

/// What the table lets an identity listen to.
fn heard(identity: &str) -> Vec<(String, bool)> {
    let mut cells: Vec<_> =
        HEARD.iter().map(|(subject, who)| ((*subject).to_owned(), who.contains(&identity))).collect();
    cells.extend(IDENTITIES.map(|other| (format!("_INBOX.{other}.>"), other == identity)));
    cells
}

#[tokio::test]
async fn each_identity_publishes_and_hears_what_the_table_says_and_nothing_else() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let mut nats = Server::new(&overlay("staging"), "nats-0", &[]);
    nats.start().await;
    assert!(async_nats::connect(nats.url()).await.is_err(), "nobody gets in without a user");
    let wrong = async_nats::ConnectOptions::with_user_and_password("worker".into(), "guess".into());
    assert!(wrong.connect(nats.url()).await.is_err());
    assert!(super::login("gate").connect(nats.url()).await.is_err(), "the gate's user is for leaf nodes");

    let (mut wrongly, mut tried) = (Vec::new(), 0);
    for identity in IDENTITIES {
        let client = nats.client(identity).await;
        let cid = client.server_info().client_id;
        for (subject, _) in published(identity) {
            // No request of the API has such a body: what is let through changes nothing.
            client.publish(subject, "x".into()).await.unwrap();
        }
        let mut subscriptions = Vec::new();
        for (subject, _) in heard(identity) {
            subscriptions.push(client.subscribe(subject).await.unwrap());
        }
        // Refused to everybody, and the last: what the server says comes in order.
        client.publish("the.last", "x".into()).await.unwrap();
        client.flush().await.unwrap();
        let said = eventually(WAIT, "the server says what it refuses", || {
            let log = nats.log();
            let mine: Vec<String> =
                log.lines().filter(|line| line.contains(&format!(" cid:{cid} "))).map(str::to_owned).collect();
            async move { mine.iter().any(|line| line.contains("\"the.last\"")).then_some(mine) }
        })
        .await;
        let of = |kind: &str| -> BTreeSet<&str> {
            said.iter().filter_map(|line| line.split_once(kind)?.1.split('"').nth(1)).collect()
        };
        let (not_published, not_heard) = (of("Publish Violation - Subject"), of("Subscription Violation - Subject"));
        for (cells, refused, what) in
            [(published(identity), not_published, "publish"), (heard(identity), not_heard, "hear")]
        {
            tried += cells.len();
            for (subject, may) in cells {
                if refused.contains(subject.as_str()) == may {
                    wrongly
                        .push(format!("{identity} {what} {subject}: {}", if may { "refused" } else { "let through" }));
                }
            }
        }
    }
    assert!(wrongly.is_empty(), "{} of {tried} cells:\n{}", wrongly.len(), wrongly.join("\n"));
    assert!(tried > 3000, "{tried}");
}
