//! The statements of a commit, each over one row, made once.

use crate::store::rows::{attempt_columns, current_columns, outcome_columns, taken_columns};
use crate::store::spec;
use crate::store::spec::spec_columns;
use std::sync::LazyLock;

/// `INSERT INTO table (names) VALUES (…) tail`. A name may be followed by `=` and a constant, which then is no parameter.
pub(super) fn insert(table: &str, names: &[&str], tail: &str) -> String {
    let parts: Vec<(&str, &str)> = names.iter().map(|n| n.split_once('=').unwrap_or((n, "?"))).collect();
    let columns: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = parts.iter().map(|(_, value)| *value).collect();
    format!("INSERT INTO {table} ({}) VALUES ({}) {tail}", columns.join(", "), values.join(", "))
}

pub(super) const TAKEN_IDS: &str = concat!("SELECT ", taken_columns!(), " FROM jobs AS j WHERE j.id = ?");

pub(super) const TAKEN_KEYS: &str =
    concat!("SELECT ", taken_columns!(), " FROM jobs AS j WHERE j.mission = ? AND j.idempotency_key = ?");

pub(super) const CURRENTS: &str = concat!("SELECT ", current_columns!(), " FROM jobs AS j WHERE j.id = ?");

pub(super) const KNOWN_LETTERS: &str = "SELECT id FROM dead_letters WHERE id = ?";

pub(super) const WHOLE_JOBS: &str = concat!(
    "SELECT ",
    outcome_columns!(),
    spec_columns!(),
    " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
     WHERE j.id = ?"
);

pub(super) const PAYLOADS: &str = "SELECT seq, args, traceparent FROM job_payloads WHERE seq = ?";

pub(super) const ATTEMPTS: &str =
    concat!("SELECT seq, ", attempt_columns!(), " FROM job_attempts WHERE seq = ? ORDER BY attempt");

/// Jobs that ended without success give their keys away; 5 to 8 are those ends.
pub(super) const RELEASE_KEYS: &str = "UPDATE jobs SET former_key = idempotency_key, idempotency_key = NULL \
     WHERE idempotency_key IS NOT NULL AND state IN (5, 6, 7, 8) AND id = ?";

/// A job as accepted; what changed in the same group is written by `UPDATE_WHOLE`. Its description comes last.
pub(super) static INSERT_JOBS: LazyLock<String> = LazyLock::new(|| {
    let own = [
        "seq",
        "state=1",
        "attempt=1",
        "attempt_limit",
        "version=1",
        "republished=0",
        "available_at",
        "claimable_at",
        "claim_owner",
        "deadline",
        "expires_at",
        "body_hash",
        "given_hash",
        "lifetime_us",
    ];
    let names: Vec<&str> = own.into_iter().chain(spec::columns_of("jobs").map(|column| column.name)).collect();
    insert("jobs", &names, "")
});

pub(super) static INSERT_PAYLOADS: LazyLock<String> = LazyLock::new(|| {
    let described = spec::columns_of("job_payloads").map(|column| column.name);
    insert("job_payloads", &["seq"].into_iter().chain(described).collect::<Vec<_>>(), "")
});

/// The labels of a stored job.
pub(super) const INSERT_LABELS: &str = "INSERT INTO job_labels (key, value, seq) \
     SELECT l.key, l.value, j.seq FROM jobs AS j, json_each(j.labels) AS l WHERE j.seq = ?";

/// Those of the newest jobs, down to the first that has them: the version before stores jobs without.
pub(super) const MISSING_LABELS: &str = "INSERT OR IGNORE INTO job_labels (key, value, seq) \
     SELECT l.key, l.value, j.seq FROM jobs AS j INDEXED BY jobs_labelled, json_each(j.labels) AS l \
     WHERE j.labels IS NOT NULL AND j.seq > coalesce( \
       (SELECT k.seq FROM jobs AS k INDEXED BY jobs_labelled WHERE k.labels IS NOT NULL \
          AND EXISTS (SELECT 1 FROM json_each(k.labels) AS h JOIN job_labels AS m \
                        ON m.key = h.key AND m.value = h.value AND m.seq = k.seq) \
        ORDER BY k.seq DESC LIMIT 1), 0)";

/// What `Queued` and `Started` touch: two of the five indexes.
pub(super) const UPDATE_PROGRESS: &str = "UPDATE jobs SET state = ?2, queued_at = ?3, started_at = ?4, worker = ?5, \
     stream_seq = ?6, version = ?7, checked_at = coalesce(checked_at, ?8), claimable_at = NULL, claim_owner = NULL \
     WHERE seq = ?1";

pub(super) const UPDATE_WHOLE: &str = "UPDATE jobs SET state = ?2, attempt = ?3, attempt_limit = ?4, version = ?5, \
     republished = ?6, stream_seq = ?7, available_at = ?8, claimable_at = ?9, claim_owner = NULL, deadline = ?10, \
     expires_at = ?11, checked_at = ?12, queued_at = ?13, started_at = ?14, finished_at = ?15, worker = ?16, \
     cancelled_by = ?17, error_class = ?18, error_message = ?19, error_log = ?20 WHERE seq = ?1";

pub(super) static INSERT_ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    let names = [
        "seq",
        "attempt",
        "outcome",
        "delivery",
        "started_at",
        "finished_at",
        "retry_at",
        "worker",
        "error_class",
        "error_message",
        "error_log",
    ];
    insert("job_attempts", &names, "")
});

pub(super) static INSERT_RESULTS: LazyLock<String> =
    LazyLock::new(|| insert("job_results", &["seq", "output_ref", "replay_of", "output"], ""));

pub(super) const MARK_REDRIVEN: &str =
    "UPDATE dead_letters SET redriven_at = ? WHERE redriven_at IS NULL AND job_id = ?";

pub(super) static INSERT_LETTERS: LazyLock<String> = LazyLock::new(|| {
    let names = [
        "id",
        "job_id",
        "mission",
        "queue",
        "tool",
        "reason",
        "created_at",
        "redriven_at",
        "error_class",
        "error_message",
        "error_log",
    ];
    insert("dead_letters", &names, "ON CONFLICT (id) DO NOTHING")
});

pub(super) static INSERT_OUTBOX: LazyLock<String> = LazyLock::new(|| {
    let names = ["seq", "claim_until", "group_until", "claim_owner", "created_at", "subject", "msg_id", "payload"];
    insert("outbox", &names, "")
});

pub(super) static INSERT_AUDIT: LazyLock<String> = LazyLock::new(|| {
    let names = [
        "chain",
        "place",
        "id",
        "at",
        "surface",
        "principal",
        "role",
        "address",
        "request_id",
        "operation",
        "object_kind",
        "object_id",
        "outcome",
        "calls",
        "detail",
        "previous",
        "hash",
    ];
    insert("audit", &names, "")
});

pub(super) const MOVE_HEAD: &str = "UPDATE audit_chains SET place = ?2, hash = ?3 WHERE chain = ?1";

pub(super) const DELETE_OUTBOX: &str = "DELETE FROM outbox WHERE seq BETWEEN ? AND ?";

#[cfg(test)]
mod tests {
    use super::insert;

    #[test]
    fn constants_are_no_parameters() {
        assert_eq!(insert("t", &["a", "b=1", "c"], "TAIL"), "INSERT INTO t (a, b, c) VALUES (?, 1, ?) TAIL");
    }
}
