//! The statements of a commit, made once.

use super::sql::{In, Rows};
use crate::store::rows::{attempt_columns, current_columns, job_columns};
use std::sync::LazyLock;

pub(super) static TAKEN_IDS: LazyLock<In> =
    LazyLock::new(|| In::new("SELECT id, mission, idempotency_key, body_hash FROM jobs WHERE id", 0, ""));

pub(super) static TAKEN_KEYS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "WITH asked (mission, idempotency_key) AS (",
        2,
        ") SELECT j.id, j.mission, j.idempotency_key, j.body_hash FROM asked AS a \
         CROSS JOIN jobs AS j ON j.mission = a.mission AND j.idempotency_key = a.idempotency_key",
    )
});

pub(super) static CURRENTS: LazyLock<In> =
    LazyLock::new(|| In::new(concat!("SELECT ", current_columns!(), " FROM jobs AS j WHERE j.id"), 0, ""));

pub(super) static KNOWN_LETTERS: LazyLock<In> = LazyLock::new(|| In::new("SELECT id FROM dead_letters WHERE id", 0, ""));

pub(super) static WHOLE_JOBS: LazyLock<In> = LazyLock::new(|| {
    In::new(
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs AS j JOIN job_payloads AS p ON p.seq = j.seq LEFT JOIN job_results AS r ON r.seq = j.seq \
             WHERE j.id"
        ),
        0,
        "",
    )
});

pub(super) static PAYLOADS: LazyLock<In> =
    LazyLock::new(|| In::new("SELECT seq, args, traceparent FROM job_payloads WHERE seq", 0, ""));

pub(super) static ATTEMPTS: LazyLock<In> = LazyLock::new(|| {
    In::new(concat!("SELECT seq, ", attempt_columns!(), " FROM job_attempts WHERE seq"), 0, "ORDER BY seq, attempt")
});

pub(super) static INSERT_JOBS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "INSERT INTO jobs (seq, id, state, attempt, attempt_limit, max_attempts, version, republished, stream_seq, \
         created_at, available_at, claimable_at, claim_owner, deadline, expires_at, checked_at, queued_at, started_at, \
         finished_at, mission, queue, tool, worker, labels, idempotency_key, body_hash, error_class, error_message, \
         error_log)",
        29,
        "",
    )
});

pub(super) static INSERT_PAYLOADS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "INSERT INTO job_payloads (seq, timeout_us, run_at, reuse, task, schedule_id, traceparent, args)",
        8,
        "",
    )
});

/// What `Queued` and `Started` touch: two of the five indexes.
pub(super) static UPDATE_PROGRESS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "WITH n (seq, state, queued_at, started_at, worker, stream_seq, version, checked_at) AS (",
        8,
        ") UPDATE jobs SET state = n.state, queued_at = n.queued_at, started_at = n.started_at, worker = n.worker, \
         stream_seq = n.stream_seq, version = n.version, checked_at = coalesce(jobs.checked_at, n.checked_at), \
         claimable_at = NULL, claim_owner = NULL FROM n WHERE jobs.seq = n.seq",
    )
});

pub(super) static UPDATE_WHOLE: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "WITH n (seq, state, attempt, attempt_limit, version, republished, stream_seq, available_at, claimable_at, \
         deadline, expires_at, checked_at, queued_at, started_at, finished_at, worker, error_class, error_message, \
         error_log) AS (",
        19,
        ") UPDATE jobs SET state = n.state, attempt = n.attempt, attempt_limit = n.attempt_limit, \
         version = n.version, republished = n.republished, stream_seq = n.stream_seq, available_at = n.available_at, \
         claimable_at = n.claimable_at, claim_owner = NULL, deadline = n.deadline, expires_at = n.expires_at, \
         checked_at = n.checked_at, queued_at = n.queued_at, started_at = n.started_at, finished_at = n.finished_at, \
         worker = n.worker, error_class = n.error_class, error_message = n.error_message, error_log = n.error_log \
         FROM n WHERE jobs.seq = n.seq",
    )
});

pub(super) static INSERT_ATTEMPTS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "INSERT INTO job_attempts (seq, attempt, outcome, delivery, started_at, finished_at, retry_at, worker, \
         error_class, error_message, error_log)",
        11,
        "",
    )
});

pub(super) static INSERT_RESULTS: LazyLock<Rows> =
    LazyLock::new(|| Rows::new("INSERT INTO job_results (seq, output_ref, replay_of, output)", 4, ""));

pub(super) static MARK_REDRIVEN: LazyLock<In> = LazyLock::new(|| {
    In::new("UPDATE dead_letters SET redriven_at = ?1 WHERE redriven_at IS NULL AND job_id", 1, "")
});

pub(super) static INSERT_LETTERS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "INSERT INTO dead_letters (id, job_id, mission, queue, tool, reason, created_at, redriven_at, error_class, \
         error_message, error_log)",
        11,
        "ON CONFLICT (id) DO NOTHING",
    )
});

pub(super) static INSERT_OUTBOX: LazyLock<Rows> = LazyLock::new(|| {
    Rows::new(
        "INSERT INTO outbox (seq, claim_until, claim_owner, created_at, subject, msg_id, payload)",
        7,
        "",
    )
});

pub(super) static DELETE_OUTBOX: LazyLock<In> = LazyLock::new(|| In::new("DELETE FROM outbox WHERE seq", 0, ""));
