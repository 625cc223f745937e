//! Other names of a content that the stream has: told to the hub by a small message each, once.
//!
//! It goes below the site's own subject, so it crosses the link as evidence does, and is kept by the same stream.
//! A name that was told before is refused there, which is success. Bounded for each content: a million empty
//! files are not a million messages.

use crate::{
    delivery::publish::{Hub, Label},
    names,
    outcome::{Hold, Verdict, judge},
    pace::ack_limit,
};
use agentforge_message_id::MsgId;
use agentforge_proto::evidence::{HEADER_SAME_AS, SIGHTINGS, Sighting};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Names of one content that are told; more of them are in the ledger alone.
const NAMES_MAX: u32 = 1000;
/// Contents whose names are counted; with more, counting begins anew.
const CONTENTS_MAX: usize = 4096;

/// How many names of each content were told since the start.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<HashMap<String, u32>>);

impl Sightings {
    /// Whether one more may be told.
    fn admit(&self, sha256: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= CONTENTS_MAX && !told.contains_key(sha256) {
            told.clear();
        }
        let names = told.entry(sha256.to_owned()).or_default();
        *names = names.saturating_add(1);
        *names <= NAMES_MAX
    }
}

/// Tells the hub that a content, which its stream has at `seq`, was delivered under this name, too.
///
/// # Errors
/// It could not be told now, and why.
pub async fn tell(hub: &Hub, label: &Label, seq: u64) -> Result<(), (Hold, String)> {
    if !hub.sightings.admit(&label.sha256) {
        return Ok(());
    }
    let file = names::encode(&label.name);
    let name = hex::encode(&digest(&SHA256, file.as_bytes()).as_ref()[..16]);
    let subject = format!("{}.{SIGHTINGS}.{name}.{}", hub.subject, label.sha256);
    let mut headers = hub.headers(label, false);
    headers.insert(HEADER_SAME_AS, hub.subject_of(label));
    let mtime = jiff::Timestamp::from_nanosecond(i128::from(label.stamp.mtime_ns)).unwrap_or_default().to_string();
    let sighting = Sighting { file, size: label.stamp.size, sha256: label.sha256.clone(), mtime, seq };
    let payload = Bytes::from(serde_json::to_vec(&sighting).expect("a record of plain values serializes"));
    let (id, limit) = (MsgId::evidence_name(hub.site(), &label.sha256, &name), ack_limit(payload.len() + 65_536));
    hub.progress.sent(hub.cost(label, payload.len()));
    let answer = match hub.publisher.send_within(subject.clone(), id, headers, payload, limit).await {
        Ok(ack) => ack.await,
        Err(error) => Err(error),
    };
    match (judge(&answer, hub.domain()), answer) {
        (Verdict::Stored | Verdict::Duplicate, _) => Ok(()),
        (Verdict::LookUp, Err(refused)) => {
            match hub.last(agentforge_jetstream::subjects::STREAM_EVIDENCE, &subject).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err((Hold::Full, refused.to_string())),
                Err(error) => Err((Hold::Unavailable, format!("{refused}; and it cannot be read back: {error}"))),
            }
        }
        (Verdict::Hold(hold), Err(error)) => Err((hold, error.to_string())),
        (Verdict::Hold(hold), Ok(ack)) => Err((hold, format!("stream {} is not the hub's", ack.stream))),
        (_, answer) => Err((Hold::Refused, format!("{answer:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_within_bounds() {
        let told = Sightings::default();
        assert!((0..NAMES_MAX).all(|_| told.admit("a")) && !told.admit("a") && told.admit("b"));
        for n in 0..2 * CONTENTS_MAX {
            told.admit(&n.to_string());
        }
        assert!(told.0.lock().unwrap().len() <= CONTENTS_MAX);
    }
}
