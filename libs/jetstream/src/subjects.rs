//! Names on the bus: streams, subjects, durable consumers, buckets. Each is made here and nowhere else.
//!
//! Values only. The grammar of missions and queues (one token, no `_`) keeps every name valid and
//! every pair of names apart.

use agentforge_message_id::{Mission, Queue, Site};

/// Jobs that wait for a worker (work queue).
pub const STREAM_JOBS: &str = "swarm_jobs";
/// Reports of workers (work queue, read only by the orchestrators).
pub const STREAM_RESULTS: &str = "swarm_results";
/// Dead letters, kept by age.
pub const STREAM_DLQ: &str = "swarm_dlq";
/// Life-cycle events, kept by age.
pub const STREAM_EVENTS: &str = "events";
/// The server's advisories about messages that ran out of deliveries or were terminated.
pub const STREAM_ADVISORIES: &str = "swarm_advisories";

/// Files that edge sites delivered, one message per site and content, kept.
pub const STREAM_EVIDENCE: &str = "edge_evidence";

/// Markers and zones of the live picture, kept for a day.
pub const STREAM_TACTICAL: &str = "tactical";

/// Object store of evidence that is too large for a message.
pub const BUCKET_EVIDENCE_BLOBS: &str = "edge_evidence_blobs";
/// Object store of outputs that are too large for a message.
pub const BUCKET_JOB_OUTPUTS: &str = "job_outputs";
/// Key-value bucket of finished operations that may be replayed.
pub const BUCKET_OPERATIONS: &str = "operations";
/// Key-value bucket that remembers hand-backs, so that they burn no delivery allowance.
pub const BUCKET_HANDBACKS: &str = "handbacks";

/// Where a queue's jobs are published.
pub fn job(mission: &Mission, queue: &Queue) -> String {
    format!("swarm.jobs.{mission}.{queue}")
}

/// What the subjects of a mission's jobs begin with; the queue follows.
pub fn job_prefix(mission: &Mission) -> String {
    format!("swarm.jobs.{mission}.")
}

/// Where workers publish what became of a queue's jobs.
pub fn results(mission: &Mission, queue: &Queue) -> String {
    format!("swarm.results.{mission}.{queue}")
}

/// What the subjects of a mission's results begin with; the queue follows.
pub fn results_prefix(mission: &Mission) -> String {
    format!("swarm.results.{mission}.")
}

/// All results of a mission.
pub fn results_filter(mission: &Mission) -> String {
    format!("{}>", results_prefix(mission))
}

/// Where a queue's dead letters are published.
pub fn dlq(mission: &Mission, queue: &Queue) -> String {
    format!("swarm.dlq.{mission}.{queue}")
}

/// The life-cycle events of one state; `state` is one token, such as `succeeded`.
pub fn event(mission: &Mission, state: &str) -> String {
    format!("agentforge.events.job.{mission}.{state}")
}

/// What other services than the orchestrator report for the audit log: service, mission or ENV, operation follow.
pub const AUDIT_REPORTED_FILTER: &str = "agentforge.events.audit.reported.>";

/// Where agents announce themselves (core NATS, not stored).
pub fn agent_heartbeat(mission: &Mission) -> String {
    format!("swarm.agents.{mission}.heartbeat")
}

/// Where workers are asked to cancel a running job (core NATS, not stored).
pub fn control_cancel(mission: &Mission) -> String {
    format!("swarm.control.{mission}.cancel")
}

/// What all subjects of evidence begin with, and what the stream takes.
pub const EVIDENCE_FILTER: &str = "edge.evidence.>";

/// Where a site's evidence goes; the SHA-256 of the content, in hex, is the token after it.
pub fn evidence(site: &Site) -> String {
    format!("edge.evidence.{site}")
}

/// The site that a subject of evidence belongs to: the token after `edge.evidence`.
pub fn evidence_site(subject: &str) -> Option<&str> {
    subject.strip_prefix("edge.evidence.")?.split('.').next().filter(|site| !site.is_empty())
}

/// The name of a large file's chunks in the bucket, below the site's token, so that a site can be confined to its own.
/// A second upload of the same content, where the first place has other bytes, has the run after it.
pub fn evidence_chunks(site: &str, sha256: &str, run: Option<&str>) -> String {
    match run {
        Some(run) => format!("{site}.{sha256}.{run}"),
        None => format!("{site}.{sha256}"),
    }
}

/// What all subjects of the live picture begin with, and what its stream takes.
pub const TACTICAL_FILTER: &str = "tactical.>";

/// Where the states of one marker go. Site and id may be any text; [`token`] makes them safe.
pub fn tactical_marker(site: &str, id: &str) -> String {
    format!("tactical.markers.{}.{}", token(site), token(id))
}

/// Where the states of one zone go.
pub fn tactical_zone(site: &str, id: &str) -> String {
    format!("tactical.zones.{}.{}", token(site), token(id))
}

/// Any text as one token of a subject, reversibly: bytes but letters, digits, `-` and `_` as `%XX`.
pub fn token(text: &str) -> String {
    use std::fmt::Write;
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => token.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(token, "%{byte:02X}")),
        }
    }
    token
}

/// The text of a [`token`]; `None` for what [`token`] does not make, so that one text has one subject.
pub fn untoken(encoded: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(encoded.len()), encoded.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(rest.next())? << 4 | digit(rest.next())?);
            }
            byte => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && token(&text) == encoded).then_some(text)
}

/// The stream of an object store's bucket.
pub fn bucket_stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

/// The stream of a key-value store's bucket.
pub fn bucket_of_keys(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Where the success of an operation is kept, in the bucket [`BUCKET_OPERATIONS`].
pub fn operation(mission: &Mission, key: &str) -> String {
    format!("$KV.{BUCKET_OPERATIONS}.{mission}.{key}")
}

/// The chunks of one object; `nuid` is the object's own name for its content, one token.
pub fn bucket_chunks(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

/// What describes one object; `name` is in URL-safe base64.
pub fn bucket_info(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{name}")
}

/// Where an edge site shows its hub that it is there (core NATS, not stored).
pub fn site_seen(site: &Site) -> String {
    format!("edge.site.{site}.seen")
}

/// All sites; the third token is the site.
pub const SITES_SEEN: &str = "edge.site.*.seen";

/// The durable consumer of a queue's workers: `worker-<mission>` for the default queue, the name that
/// scaler and alerts use, and `worker-<mission>_<queue>` for the others.
pub fn worker_durable(mission: &Mission, queue: &Queue) -> String {
    if *queue == Queue::default() { format!("worker-{mission}") } else { format!("worker-{mission}_{queue}") }
}

/// The durable consumer through which orchestrators read results.
pub fn orchestrator_durable(mission: &Mission) -> String {
    format!("orchestrator-{mission}")
}

/// The durable consumer through which orchestrators take in what other services report for the audit log.
pub fn audit_durable(mission: &Mission) -> String {
    format!("orchestrator-{mission}_audit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_token_and_comes_back() {
        for text in ["a", "pier-7", "unit 1.2", "*", ">", "é/ü", "100%", "\u{202e}x", "a_b"] {
            let token = token(text);
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%".contains(&b)), "{token}");
            assert_eq!(untoken(&token).as_deref(), Some(text));
        }
        // Lower-case digits, what needs no escape, halves, no UTF-8, nothing at all.
        for foreign in ["%2e", "%41", "%", "%2", "%zz", "%FF", "", "a b"] {
            assert_eq!(untoken(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn evidence_belongs_to_the_site_that_its_subject_names() {
        for (subject, site) in [
            ("edge.evidence.pier-7.ab", Some("pier-7")),
            ("edge.evidence.pier-7.names.x.ab", Some("pier-7")),
            ("edge.evidence..ab", None),
            ("edge.evidence", None),
            ("swarm.jobs.x", None),
        ] {
            assert_eq!(evidence_site(subject), site, "{subject}");
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let (mission, other) = (Mission::new("staging").unwrap(), Queue::new("gpu").unwrap());
        let default = Queue::default();
        let cases = [
            (job(&mission, &default), "swarm.jobs.staging.default"),
            (results(&mission, &other), "swarm.results.staging.gpu"),
            (results_filter(&mission), "swarm.results.staging.>"),
            (dlq(&mission, &other), "swarm.dlq.staging.gpu"),
            (event(&mission, "dead"), "agentforge.events.job.staging.dead"),
            (site_seen(&Site::new("pier-7").unwrap()), "edge.site.pier-7.seen"),
            (worker_durable(&mission, &default), "worker-staging"),
            (worker_durable(&mission, &other), "worker-staging_gpu"),
            (orchestrator_durable(&mission), "orchestrator-staging"),
            (audit_durable(&mission), "orchestrator-staging_audit"),
            (evidence(&Site::new("pier-7").unwrap()), "edge.evidence.pier-7"),
            (tactical_marker("pier-7", "truck 1"), "tactical.markers.pier-7.truck%201"),
            (tactical_zone("pier-7", "a.b"), "tactical.zones.pier-7.a%2Eb"),
            (bucket_stream(BUCKET_EVIDENCE_BLOBS), "OBJ_edge_evidence_blobs"),
            (bucket_chunks(BUCKET_EVIDENCE_BLOBS, "x"), "$O.edge_evidence_blobs.C.x"),
            (bucket_info(BUCKET_EVIDENCE_BLOBS, "eA=="), "$O.edge_evidence_blobs.M.eA=="),
            (evidence_chunks("pier-7", "ab", None), "pier-7.ab"),
            (evidence_chunks("pier-7", "ab", Some("7")), "pier-7.ab.7"),
        ];
        for (made, expected) in cases {
            assert_eq!(made, expected);
        }
    }
}
