//! The value of `Nats-Msg-Id`, made from what is sent and never from the moment of sending.

use crate::{Attempt, JobId, Site};
use std::fmt;

/// A deduplication id. Two sends of the same thing have the same id; two different things never do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MsgId(String);

impl MsgId {
    /// The queue message of one attempt: `<job>:<attempt>`.
    pub fn attempt(job: JobId, attempt: Attempt) -> Self {
        Self(format!("{job}:{attempt}"))
    }
    /// A queue message published again because the stored one was found to be gone: `<job>:<attempt>:r<n>`, so that the
    /// duplicate window cannot swallow the replacement.
    pub fn republished(job: JobId, attempt: Attempt, n: u32) -> Self {
        if n == 0 { Self::attempt(job, attempt) } else { Self(format!("{job}:{attempt}:r{n}")) }
    }
    /// A worker's result for one delivery of an attempt: `<job>:<attempt>:<delivery>`.
    pub fn result(job: JobId, attempt: Attempt, delivery: u64) -> Self {
        Self(format!("{job}:{attempt}:{delivery}"))
    }
    /// The same for an attempt that was published again, `run` times: `<job>:<attempt>:r<run>:<delivery>`. The message
    /// that was lost may have had a result, which was lost too and is still in the duplicate window.
    pub fn result_of_run(job: JobId, attempt: Attempt, run: u32, delivery: u64) -> Self {
        match run {
            0 => Self::result(job, attempt, delivery),
            _ => Self(format!("{job}:{attempt}:r{run}:{delivery}")),
        }
    }
    /// How often the queue message with this id was published again.
    pub fn run_of(id: &str) -> u32 {
        id.rsplit_once(":r").and_then(|(_, run)| run.parse().ok()).unwrap_or(0)
    }
    /// Several results in one message: `reports:<key>`, with a key that is used once. It is sent once: results that may
    /// be lost are sent again one by one, under their own ids.
    pub fn reports(key: &str) -> Self {
        Self(format!("reports:{key}"))
    }
    /// A worker's word that it has begun: `<job>:<attempt>:<delivery>:started`.
    pub fn started(job: JobId, attempt: Attempt, delivery: u64) -> Self {
        Self(format!("{job}:{attempt}:{delivery}:started"))
    }
    /// Something on a stream that no worker could read: `rejected:<stream>:<sequence>:<stored at, ns>`.
    /// The time of storage keeps a purged and re-created stream's numbers apart.
    pub fn rejected(stream: &str, sequence: u64, stored_at_ns: i128) -> Self {
        Self(format!("rejected:{stream}:{sequence}:{stored_at_ns}"))
    }
    /// A row of the outbox (event or dead letter), by its own key there.
    pub fn outbox(key: &str) -> Self {
        Self(key.to_owned())
    }
    /// A notice of the governance commands, by what it is about: `notice:<kind>:<key>`.
    pub fn notice(kind: &str, key: &str) -> Self {
        Self(format!("notice:{kind}:{key}"))
    }
    /// A file of a site's evidence, by its content: `<site>:<SHA-256 in hex>`.
    pub fn evidence(site: &Site, sha256_hex: &str) -> Self {
        Self(format!("{site}:{sha256_hex}"))
    }
    /// The same file's message once more, where the stream remembers the id of one that it does not have any more:
    /// `<site>:<SHA-256 in hex>:<run>`.
    pub fn evidence_again(site: &Site, sha256_hex: &str, run: &str) -> Self {
        Self(format!("{site}:{sha256_hex}:{run}"))
    }
    /// That a content was delivered under another name: `<site>:<SHA-256 in hex>:name:<hash of the name>`.
    pub fn evidence_name(site: &Site, sha256_hex: &str, name: &str) -> Self {
        Self(format!("{site}:{sha256_hex}:name:{name}"))
    }
    /// One chunk of a large file, counted from 0: `<site>:<SHA-256 of the file in hex>:<run>:<chunk>`. The
    /// run tells uploads of one content apart: chunks of one that was purged must not swallow the next.
    pub fn evidence_chunk(site: &Site, sha256_hex: &str, run: &str, chunk: u64) -> Self {
        Self(format!("{site}:{sha256_hex}:{run}:{chunk}"))
    }
    /// What describes a large file in its bucket: `<site>:<SHA-256 of the file in hex>:<run>:info`.
    pub fn evidence_info(site: &Site, sha256_hex: &str, run: &str) -> Self {
        Self(format!("{site}:{sha256_hex}:{run}:info"))
    }
    /// A step of an event on its way to a webhook: `<step>:<environment>.<endpoint>:<origin>:<attempts>`. The origin is
    /// the place in a stream that the event was read from, so that an event that is published or redelivered again is
    /// another one.
    pub fn webhook(step: &str, env: &str, endpoint: &str, origin: &str, attempts: u32) -> Self {
        Self(format!("{step}:{env}.{endpoint}:{origin}:{attempts}"))
    }
    /// A state of a marker or zone that a caller published: `tactical:<key of the request>`.
    pub fn tactical(key: &str) -> Self {
        Self(format!("tactical:{key}"))
    }
    /// A marker or zone that a job's result carries: `tactical:<job>:<attempt>:<number>`.
    pub fn tactical_of_job(job: JobId, attempt: Attempt, n: usize) -> Self {
        Self(format!("tactical:{job}:{attempt}:{n}"))
    }
    /// The end of a marker or zone whose time is over: `tactical:expired:<stored at, ns>:<sequence>`. Of all
    /// who notice, one is heard.
    pub fn tactical_expired(seq: u64, stored_at_ns: i128) -> Self {
        Self(format!("tactical:expired:{stored_at_ns}:{seq}"))
    }
    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_survive_a_retry_and_keep_apart_what_differs() {
        let (a, b) = (JobId::generate(), JobId::generate());
        let one = Attempt::FIRST;
        let (pier, dock) = (Site::new("pier").unwrap(), Site::new("dock").unwrap());
        assert_eq!(MsgId::attempt(a, one), MsgId::attempt(a, one));
        let all = [
            MsgId::attempt(a, one),
            MsgId::attempt(b, one),
            MsgId::attempt(a, one.next()),
            MsgId::republished(a, one, 1),
            MsgId::result(a, one, 1),
            MsgId::result(a, one, 2),
            MsgId::result_of_run(a, one, 1, 1),
            MsgId::result_of_run(a, one, 2, 1),
            MsgId::reports("k"),
            MsgId::started(a, one, 1),
            MsgId::rejected("swarm_jobs", 7, 1),
            MsgId::rejected("swarm_jobs", 7, 2),
            MsgId::evidence(&pier, "ab"),
            MsgId::evidence(&dock, "ab"),
            MsgId::evidence_chunk(&pier, "ab", "r", 0),
            MsgId::evidence_chunk(&pier, "ab", "r", 1),
            MsgId::evidence_chunk(&pier, "ab", "s", 1),
            MsgId::evidence_info(&pier, "ab", "r"),
            MsgId::evidence_again(&pier, "ab", "r"),
            MsgId::evidence_name(&pier, "ab", "r"),
            MsgId::tactical("a"),
            MsgId::tactical_of_job(a, one, 0),
            MsgId::tactical_expired(1, 2),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(MsgId::republished(a, one, 0), MsgId::attempt(a, one));
        assert_eq!(MsgId::result_of_run(a, one, 0, 3), MsgId::result(a, one, 3));
        for run in [0, 1, 77] {
            assert_eq!(MsgId::run_of(MsgId::republished(a, one, run).as_str()), run);
        }
        assert_eq!(MsgId::run_of("what a stranger sent"), 0);
    }
}
