//! What differs between plan and server. Pure. Only what the plan speaks of is compared.

use async_nats::jetstream::{consumer, stream};
use std::fmt::Debug;

/// One field that is not as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field, by its name in JetStream's API.
    pub field: &'static str,
    /// The value in the plan, as JetStream writes it.
    pub expected: String,
    /// As it is.
    pub found: String,
    /// Whether JetStream can change it on something that exists.
    pub changeable: bool,
}

fn differing<T: PartialEq + Debug>(
    field: &'static str,
    changeable: bool,
    expected: &T,
    found: &T,
) -> Option<Difference> {
    let shown = |v: &T| format!("{v:?}");
    (expected != found).then(|| Difference { field, expected: shown(expected), found: shown(found), changeable })
}

/// Zero and below both mean "no limit".
fn limit(size: i64) -> Option<i64> {
    (size > 0).then_some(size)
}

pub(super) fn stream(expected: &stream::Config, found: &stream::Config) -> Vec<Difference> {
    let sorted = |s: &stream::Config| {
        let mut subjects = s.subjects.clone();
        subjects.sort();
        subjects
    };
    [
        differing("retention", false, &expected.retention, &found.retention),
        differing("storage", false, &expected.storage, &found.storage),
        differing("subjects", true, &sorted(expected), &sorted(found)),
        differing("discard", true, &expected.discard, &found.discard),
        differing("discard_new_per_subject", true, &expected.discard_new_per_subject, &found.discard_new_per_subject),
        differing("max_bytes", true, &expected.max_bytes, &found.max_bytes),
        differing("max_msgs", true, &expected.max_messages, &found.max_messages),
        differing("max_msgs_per_subject", true, &expected.max_messages_per_subject, &found.max_messages_per_subject),
        differing("max_age", true, &expected.max_age, &found.max_age),
        differing(
            "max_msg_size",
            true,
            &limit(expected.max_message_size.into()),
            &limit(found.max_message_size.into()),
        ),
        differing("no_ack", true, &expected.no_ack, &found.no_ack),
        differing("sealed", false, &expected.sealed, &found.sealed),
        differing("num_replicas", true, &expected.num_replicas, &found.num_replicas),
        differing("duplicate_window", true, &expected.duplicate_window, &found.duplicate_window),
        differing("allow_direct", true, &expected.allow_direct, &found.allow_direct),
        differing("allow_rollup_hdrs", true, &expected.allow_rollup, &found.allow_rollup),
        differing("deny_delete", true, &expected.deny_delete, &found.deny_delete),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The found stream with the planned fields in place: what to ask for in an update.
pub(super) fn updated_stream(expected: &stream::Config, found: &stream::Config) -> stream::Config {
    let e = expected.clone();
    stream::Config {
        subjects: e.subjects,
        discard: e.discard,
        discard_new_per_subject: e.discard_new_per_subject,
        max_bytes: e.max_bytes,
        max_messages: e.max_messages,
        max_messages_per_subject: e.max_messages_per_subject,
        max_age: e.max_age,
        max_message_size: if e.max_message_size > 0 { e.max_message_size } else { -1 },
        no_ack: e.no_ack,
        num_replicas: e.num_replicas,
        duplicate_window: e.duplicate_window,
        allow_direct: e.allow_direct,
        allow_rollup: e.allow_rollup,
        deny_delete: e.deny_delete,
        ..found.clone()
    }
}

pub(super) fn consumer(expected: &consumer::Config, found: &consumer::Config) -> Vec<Difference> {
    [
        differing("deliver_subject", false, &expected.deliver_subject, &found.deliver_subject),
        differing("deliver_policy", false, &expected.deliver_policy, &found.deliver_policy),
        differing("ack_policy", false, &expected.ack_policy, &found.ack_policy),
        differing("replay_policy", false, &expected.replay_policy, &found.replay_policy),
        differing("max_waiting", false, &expected.max_waiting, &found.max_waiting),
        differing("filter_subject", true, &expected.filter_subject, &found.filter_subject),
        differing("filter_subjects", true, &expected.filter_subjects, &found.filter_subjects),
        differing("ack_wait", true, &expected.ack_wait, &found.ack_wait),
        differing("backoff", true, &expected.backoff, &found.backoff),
        differing("max_deliver", true, &expected.max_deliver, &found.max_deliver),
        differing("max_ack_pending", true, &expected.max_ack_pending, &found.max_ack_pending),
        differing("headers_only", true, &expected.headers_only, &found.headers_only),
        differing("max_batch", true, &limit(expected.max_batch), &limit(found.max_batch)),
        differing("max_bytes", true, &limit(expected.max_bytes), &limit(found.max_bytes)),
        differing("max_expires", true, &expected.max_expires, &found.max_expires),
        differing("inactive_threshold", true, &expected.inactive_threshold, &found.inactive_threshold),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The found consumer with the planned fields in place.
pub(super) fn updated_consumer(expected: &consumer::Config, found: &consumer::Config) -> consumer::Config {
    let e = expected.clone();
    consumer::Config {
        filter_subject: e.filter_subject,
        filter_subjects: e.filter_subjects,
        ack_wait: e.ack_wait,
        backoff: e.backoff,
        max_deliver: e.max_deliver,
        max_ack_pending: e.max_ack_pending,
        headers_only: e.headers_only,
        max_batch: e.max_batch,
        max_bytes: e.max_bytes,
        max_expires: e.max_expires,
        inactive_threshold: e.inactive_threshold,
        ..found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream::stream::{Placement, RetentionPolicy};
    use std::time::Duration;

    #[test]
    fn an_update_brings_the_plan_and_leaves_the_rest() {
        let expected = stream::Config {
            name: "s".into(),
            max_bytes: 10,
            subjects: vec!["b".into(), "a".into()],
            ..Default::default()
        };
        let placement = Some(Placement { cluster: Some("east".into()), tags: vec![] });
        let found = stream::Config {
            max_bytes: 20,
            subjects: vec!["a".into(), "b".into()],
            placement: placement.clone(),
            ..expected.clone()
        };
        let fields: Vec<_> = stream(&expected, &found).into_iter().map(|d| d.field).collect();
        assert_eq!(fields, ["max_bytes"]);
        let updated = updated_stream(&expected, &found);
        assert_eq!((updated.max_bytes, updated.placement), (10, placement));
        assert!(stream(&expected, &updated_stream(&expected, &found)).is_empty());
    }

    #[test]
    fn retention_cannot_be_changed_and_ack_wait_can() {
        let work = stream::Config { retention: RetentionPolicy::WorkQueue, ..Default::default() };
        let found = stream(&work, &stream::Config::default());
        assert!(matches!(&found[..], [Difference { field: "retention", changeable: false, .. }]), "{found:?}");
        let c = consumer::Config { ack_wait: Duration::from_secs(1), ..Default::default() };
        let found = consumer(&c, &consumer::Config::default());
        assert!(matches!(&found[..], [Difference { field: "ack_wait", changeable: true, .. }]), "{found:?}");
        assert!(consumer(&c, &updated_consumer(&c, &consumer::Config::default())).is_empty());
    }
}
