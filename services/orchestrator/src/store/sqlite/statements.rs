//! The statements of a commit, made once.

use super::sql::Batch;
use crate::store::rows::{attempt_columns, current_columns, outcome_columns, taken_columns};
use crate::store::spec;
use crate::store::spec::spec_columns;
use std::sync::LazyLock;

pub(super) static TAKEN_IDS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list(concat!("SELECT ", taken_columns!(), " FROM jobs AS j WHERE j.id IN"), ""));

pub(super) static TAKEN_KEYS: LazyLock<Batch> = LazyLock::new(|| {
    Batch::with(
        "mission, key",
        concat!(
            "SELECT ",
            taken_columns!(),
            " FROM n CROSS JOIN jobs AS j ON j.mission = n.mission AND j.idempotency_key = n.key"
        ),
    )
});

pub(super) static CURRENTS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list(concat!("SELECT ", current_columns!(), " FROM jobs AS j WHERE j.id IN"), ""));

pub(super) static KNOWN_LETTERS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("SELECT id FROM dead_letters WHERE id IN", ""));

pub(super) static WHOLE_JOBS: LazyLock<Batch> = LazyLock::new(|| {
    let head = concat!(
        "SELECT ",
        outcome_columns!(),
        spec_columns!(),
        " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
         WHERE j.id IN"
    );
    Batch::list(head, "")
});

pub(super) static PAYLOADS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("SELECT seq, args, traceparent FROM job_payloads WHERE seq IN", ""));

pub(super) static ATTEMPTS: LazyLock<Batch> = LazyLock::new(|| {
    let head = concat!("SELECT seq, ", attempt_columns!(), " FROM job_attempts WHERE seq IN");
    Batch::list(head, "ORDER BY seq, attempt")
});

/// Jobs that ended without success give their keys away; 5 to 8 are those ends.
pub(super) static RELEASE_KEYS: LazyLock<Batch> = LazyLock::new(|| {
    let head = "UPDATE jobs SET former_key = idempotency_key, idempotency_key = NULL \
                WHERE idempotency_key IS NOT NULL AND state IN (5, 6, 7, 8) AND id IN";
    Batch::list(head, "")
});

/// A job as accepted; what changed in the same group is written by `UPDATE_WHOLE`. Its description comes last.
pub(super) static INSERT_JOBS: LazyLock<Batch> = LazyLock::new(|| {
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
    Batch::insert("jobs", &names, "")
});

pub(super) static INSERT_PAYLOADS: LazyLock<Batch> = LazyLock::new(|| {
    let described = spec::columns_of("job_payloads").map(|column| column.name);
    Batch::insert("job_payloads", &["seq"].into_iter().chain(described).collect::<Vec<_>>(), "")
});

/// What `Queued` and `Started` touch: two of the five indexes.
pub(super) static UPDATE_PROGRESS: LazyLock<Batch> = LazyLock::new(|| {
    Batch::with(
        "seq, state, queued_at, started_at, worker, stream_seq, version, checked_at",
        "UPDATE jobs SET state = n.state, queued_at = n.queued_at, started_at = n.started_at, worker = n.worker, \
         stream_seq = n.stream_seq, version = n.version, checked_at = coalesce(jobs.checked_at, n.checked_at), \
         claimable_at = NULL, claim_owner = NULL FROM n WHERE jobs.seq = n.seq",
    )
});

pub(super) static UPDATE_WHOLE: LazyLock<Batch> = LazyLock::new(|| {
    Batch::with(
        "seq, state, attempt, attempt_limit, version, republished, stream_seq, available_at, claimable_at, deadline, \
         expires_at, checked_at, queued_at, started_at, finished_at, worker, cancelled_by, error_class, error_message, \
         error_log",
        "UPDATE jobs SET state = n.state, attempt = n.attempt, attempt_limit = n.attempt_limit, version = n.version, \
         republished = n.republished, stream_seq = n.stream_seq, available_at = n.available_at, \
         claimable_at = n.claimable_at, claim_owner = NULL, deadline = n.deadline, expires_at = n.expires_at, \
         checked_at = n.checked_at, queued_at = n.queued_at, started_at = n.started_at, finished_at = n.finished_at, \
         worker = n.worker, cancelled_by = n.cancelled_by, error_class = n.error_class, \
         error_message = n.error_message, error_log = n.error_log \
         FROM n WHERE jobs.seq = n.seq",
    )
});

pub(super) static INSERT_ATTEMPTS: LazyLock<Batch> = LazyLock::new(|| {
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
    Batch::insert("job_attempts", &names, "")
});

pub(super) static INSERT_RESULTS: LazyLock<Batch> =
    LazyLock::new(|| Batch::insert("job_results", &["seq", "output_ref", "replay_of", "output"], ""));

pub(super) static MARK_REDRIVEN: LazyLock<Batch> = LazyLock::new(|| {
    Batch::list("UPDATE dead_letters SET redriven_at = ? WHERE redriven_at IS NULL AND job_id IN", "")
});

pub(super) static INSERT_LETTERS: LazyLock<Batch> = LazyLock::new(|| {
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
    Batch::insert("dead_letters", &names, "ON CONFLICT (id) DO NOTHING")
});

pub(super) static INSERT_OUTBOX: LazyLock<Batch> = LazyLock::new(|| {
    let names = ["seq", "claim_until", "claim_owner", "created_at", "subject", "msg_id", "payload"];
    Batch::insert("outbox", &names, "")
});

pub(super) static INSERT_AUDIT: LazyLock<Batch> = LazyLock::new(|| {
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
    Batch::insert("audit", &names, "")
});

pub(super) static MOVE_HEAD: LazyLock<Batch> = LazyLock::new(|| {
    Batch::with(
        "chain, place, hash",
        "UPDATE audit_chains SET place = n.place, hash = n.hash FROM n WHERE audit_chains.chain = n.chain",
    )
});

pub(super) static DELETE_OUTBOX: LazyLock<Batch> = LazyLock::new(|| Batch::list("DELETE FROM outbox WHERE seq IN", ""));
