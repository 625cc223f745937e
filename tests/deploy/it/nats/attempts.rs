//! Every way that is known from a NATS account to a stream, a consumer, a message or an answer of somebody else.

use async_nats::HeaderMap;
use serde_json::{Value, json};

/// What an attacker would like the hub to run, and where it would.
pub const ORDER: &str = "runs on the hub";
pub const JOBS: &str = "swarm.jobs.production.default";

/// One attempt: a message with its headers, that wants an answer.
pub struct Attempt {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: String,
}

fn attempt(subject: impl Into<String>, payload: impl ToString) -> Attempt {
    Attempt { subject: subject.into(), headers: HeaderMap::new(), payload: payload.to_string() }
}

fn with(subject: &str, payload: &str, name: &'static str, value: &'static str) -> Attempt {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    Attempt { headers, ..attempt(subject, payload) }
}

/// All of them, of the site `site-a` against `site-b` and the hub.
pub fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    let evil = json!({"name": "evil", "subjects": ["evil.>"], "storage": "file", "retention": "limits"});
    let changed = |name: &str, change: Value| {
        let mut config =
            json!({"name": name, "subjects": ["edge.evidence.>"], "storage": "file", "retention": "limits"});
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        config
    };
    for api in ["$JS.API", "$JS.hub.API"] {
        let mut ask = |request: &str, body: Value| all.push(attempt(format!("{api}.{request}"), body));
        for request in ["STREAM.NAMES", "STREAM.LIST", "SERVER.REMOVE", "META.LEADER.STEPDOWN", "ACCOUNT.PURGE.$G"] {
            ask(request, json!({}));
        }
        ask("STREAM.CREATE.evil", evil.clone());
        for change in [
            json!({"republish": {"src": "edge.evidence.>", "dest": JOBS}}),
            json!({"sources": [{"name": "swarm_jobs"}]}),
            json!({"mirror": {"name": "swarm_jobs"}}),
            json!({"subjects": ["edge.evidence.>", "_INBOX.>", "swarm.control.>"]}),
        ] {
            ask("STREAM.UPDATE.edge_evidence", changed("edge_evidence", change));
        }
        for stream in ["edge_evidence", "OBJ_edge_evidence_blobs", "swarm_jobs", "tactical"] {
            ask(&format!("STREAM.INFO.{stream}"), json!({"subjects_filter": ">"}));
            ask(&format!("STREAM.PURGE.{stream}"), json!({}));
            ask(&format!("STREAM.DELETE.{stream}"), json!({}));
            ask(&format!("STREAM.MSG.GET.{stream}"), json!({"seq": 1}));
            ask(&format!("STREAM.MSG.DELETE.{stream}"), json!({"seq": 1}));
            ask(&format!("STREAM.SNAPSHOT.{stream}"), json!({"deliver_subject": "heard"}));
            ask(&format!("STREAM.RESTORE.{stream}"), json!({}));
            ask(&format!("STREAM.LEADER.STEPDOWN.{stream}"), json!({}));
            ask(&format!("DIRECT.GET.{stream}"), json!({"seq": 1}));
            ask(&format!("DIRECT.GET.{stream}"), json!({"batch": 9, "next_by_subj": ">", "seq": 1}));
            let push = json!({"deliver_subject": "heard", "ack_policy": "none", "deliver_policy": "all"});
            let order = json!({"deliver_subject": JOBS, "ack_policy": "none", "deliver_policy": "all"});
            for config in [push, order] {
                let body = json!({"stream_name": stream, "config": config});
                ask(&format!("CONSUMER.CREATE.{stream}"), body.clone());
                ask(&format!("CONSUMER.CREATE.{stream}.evil"), body.clone());
                ask(&format!("CONSUMER.DURABLE.CREATE.{stream}.evil"), body);
            }
            ask(&format!("CONSUMER.LIST.{stream}"), json!({}));
            ask(&format!("CONSUMER.INFO.{stream}.worker"), json!({}));
            ask(&format!("CONSUMER.DELETE.{stream}.worker"), json!({}));
            ask(&format!("CONSUMER.MSG.NEXT.{stream}.worker"), json!({"batch": 9}));
        }
        ask("DIRECT.GET.edge_evidence.edge.evidence.site-b.secret", Value::Null);
        ask("DIRECT.GET.edge_evidence.edge.evidence.>", Value::Null);
        ask("DIRECT.GET.edge_evidence.edge.evidence.*.secret", Value::Null);
        ask("DIRECT.GET.swarm_jobs.swarm.jobs.production.default", Value::Null);
        ask("DIRECT.GET.OBJ_edge_evidence_blobs.$O.edge_evidence_blobs.C.site-b.secret", Value::Null);
        // The own subject, with a body that names another's.
        for body in [
            json!({"last_by_subj": "edge.evidence.site-b.secret"}),
            json!({"next_by_subj": "edge.evidence.site-b.>"}),
            json!({"multi_last": ["edge.evidence.site-b.>"], "batch": 9}),
            json!({"seq": 1}),
        ] {
            ask("DIRECT.GET.edge_evidence.edge.evidence.site-a.own", body);
        }
    }
    for subject in [
        JOBS,
        "swarm.results.production.default",
        "swarm.dlq.production.default",
        "swarm.control.production.cancel",
        "swarm.agents.production.heartbeat",
        "agentforge.events.job.production.succeeded",
        "agentforge.events.alert.critical",
        "todos.events",
        "tactical.markers.site-b.m",
        "tactical.zones.site-b.z",
        "tactical.other",
        "edge.evidence.site-b.forged",
        "edge.evidence.site-b",
        "edge.evidence.site-a",
        "edge.site.site-b.seen",
        "$O.edge_evidence_blobs.C.site-b.secret",
        "$O.edge_evidence_blobs.C.site-b-secret",
        "$O.edge_evidence_blobs.M.c2l0ZS1iL3NlY3JldA==",
        "$O.job_outputs.C.x",
        "$KV.operations.production.x",
        "$JS.ACK.swarm_jobs.worker.1.1.1.1.0",
        "$JS.FC.OBJ_edge_evidence_blobs.x",
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.swarm_jobs.worker",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "_INBOX.orchestrator.x",
        "_INBOX.worker.x",
        "_R_.x.y",
        "broadcaster.due.a.b",
    ] {
        all.push(attempt(subject, ORDER));
    }
    // Its own subjects, with a header that reaches further.
    all.push(with("edge.evidence.site-a.roll", ORDER, "Nats-Rollup", "all"));
    all.push(with("$O.edge_evidence_blobs.C.site-a.roll", ORDER, "Nats-Rollup", "all"));
    all.push(with("$O.edge_evidence_blobs.C.site-a.roll", ORDER, "Nats-Rollup", "sub"));
    all.push(with("edge.evidence.site-a.trace", ORDER, "Nats-Trace-Dest", JOBS));
    all.push(with("edge.evidence.site-a.schedule", ORDER, "Nats-Schedule-Target", JOBS));
    all
}
