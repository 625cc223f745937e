//! Rows of either database as values of `model`: each column list with its reader, from one description.

use super::OutboxPick;
use super::columns::{Columns, Record, columns};
use super::fault::Fault;
use super::identity::Taken;
use super::spec::spec;
use super::{AuditRow, OutboxRow, Outgoing, Parked, StaleJob};
use crate::model::{Agent, AttemptRecord, DeadLetter, Job, JobError, RetryPolicy, Schedule, SkippedTurn, State};
use crate::transition::Current;
use agentforge_audit::{Base, Chain, Chained, Entry, Hash, Head};
use agentforge_message_id::{JobId, NameError};
use agentforge_proto::bus::ErrorClass;
use uuid::Uuid;

columns! {
    /// Of `jobs` (as `j`), what a commit decides about.
    current_columns, current("job", row, c) -> Current {
        seq: "j.seq",
        id: "j.id",
        mission: "j.mission",
        queue: "j.queue",
        tool: "j.tool",
        labels: "j.labels",
        state: "j.state",
        attempt: "j.attempt",
        attempt_limit: "j.attempt_limit",
        max_attempts: "j.max_attempts",
        deadline: "j.deadline",
        created_at: "j.created_at",
        available_at: "j.available_at",
        queued_at: "j.queued_at",
        started_at: "j.started_at",
        finished_at: "j.finished_at",
        worker: "j.worker",
        stream_seq: "j.stream_seq",
        republished: "j.republished",
        version: "j.version",
        lifetime: "j.lifetime_us",
        cancelled_by: "j.cancelled_by",
        submitted_by: "j.submitted_by",
        key_released: "j.former_key IS NOT NULL",
    } need {
        error_class: "j.error_class",
        error_message: "j.error_message",
        error_log: "j.error_log",
        retry_base: "j.retry_base_us",
        retry_cap: "j.retry_cap_us",
    } with {
        error: error(&c)?,
        retry: retry(&c)?,
    }
}

columns! {
    /// Of `jobs` and `job_results` (as `r`), what callers see besides the description: `spec_columns` follows.
    outcome_columns, job("job", row, c) -> Job {
        seq: "j.seq",
        state: "j.state",
        attempt: "j.attempt",
        deadline: "j.deadline",
        queued_at: "j.queued_at",
        started_at: "j.started_at",
        finished_at: "j.finished_at",
        available_at: "j.available_at",
        worker: "j.worker",
        result: "r.output",
        output_ref: "r.output_ref",
        replay_of: "r.replay_of",
        cancelled_by: "j.cancelled_by",
        version: "j.version",
    } need {
        error_class: "j.error_class",
        error_message: "j.error_message",
        error_log: "j.error_log",
    } with {
        error: error(&c)?,
        spec: spec(row)?,
        warning: None,
    }
}

columns! {
    /// Of `jobs`, what goes to a worker besides the description: `spec_columns` follows. An attempt that a worker took
    /// for expired by mistake goes out without its deadline, which is ours to watch.
    attempted_columns, outgoing("job", row, c) -> Outgoing {
        seq: "j.seq",
        attempt: "j.attempt",
        republished: "j.republished",
        deadline: "CASE WHEN j.error_class = 'expired' THEN NULL ELSE j.deadline END",
    } need {} with {
        spec: spec(row)?.into(),
    }
}

columns! {
    /// Of `jobs` (as `j`), what says whether a submission is new.
    taken_columns, taken("job", row, c) -> Taken {
        id: "j.id",
        mission: "j.mission",
        key: "coalesce(j.idempotency_key, j.former_key)",
        holds_key: "j.idempotency_key IS NOT NULL",
        body_hash: "j.body_hash",
        given_hash: "j.given_hash",
        state: "j.state",
    }
}

columns! {
    /// Of `jobs`, what a check of open jobs needs.
    stale_columns, stale_job("job", row, c) -> StaleJob {
        id: "id",
        attempt: "attempt",
        state: "state",
        stream_seq: "stream_seq",
        checked_at: "checked_at",
    }
}

columns! {
    /// Of `job_attempts`.
    attempt_columns, attempt_record("attempt", row, c) -> AttemptRecord {
        attempt: "attempt",
        outcome: "outcome",
        worker: "worker",
        delivery: "delivery",
        started_at: "started_at",
        finished_at: "finished_at",
        retry_at: "retry_at",
    } need {
        error_class: "error_class",
        error_message: "error_message",
        error_log: "error_log",
    } with {
        error: error(&c)?,
    }
}

columns! {
    /// Of `dead_letters`.
    letter_columns, dead_letter("dead letter", row, c) -> DeadLetter {
        seq: "seq",
        id: "id",
        job: "job_id",
        mission: "mission",
        queue: "queue",
        tool: "tool",
        reason: "reason",
        created_at: "created_at",
        redriven_at: "redriven_at",
    } need {
        error_class: "error_class",
        error_message: "error_message",
        error_log: "error_log",
    } with {
        error: error(&c)?.ok_or_else(|| Fault::row("dead letter", "it has no error"))?,
    }
}

columns! {
    /// Of `outbox`.
    outbox_columns, stored_row("message", row, c) -> StoredRow {
        seq: "seq",
        subject: "subject",
        msg_id: "msg_id",
        payload: "payload",
    }
}

pub(super) struct StoredRow {
    seq: i64,
    subject: String,
    msg_id: String,
    payload: Vec<u8>,
}

pub(super) fn outbox_row<R: Record>(row: &R) -> Result<OutboxRow, Fault> {
    let StoredRow { seq, subject, msg_id, payload } = stored_row(row)?;
    Ok(OutboxRow::read(seq, subject, msg_id, payload))
}

columns! {
    /// Of `outbox_parked`.
    parked_columns, parked("message", row, c) -> Parked {
        seq: "seq",
        created_at: "created_at",
        parked_at: "parked_at",
        subject: "subject",
        msg_id: "msg_id",
        bytes: "CAST(length(payload) AS bigint)",
        code: "code",
        reason: "reason",
    }
}

columns! {
    /// Of `schedules`.
    schedule_columns, schedule("schedule", row, c) -> Schedule {
        id: "id",
        name: "name",
        cron: "cron",
        time_zone: "time_zone",
        template: "template",
        paused: "paused",
        created_at: "created_at",
        last_run_at: "last_run_at",
        last_job_id: "last_job_id",
        next_run_at: "next_run_at",
        overlap: "overlap",
        catch_up: "catch_up",
        deadline: "turn_deadline_us",
        updated_at: "updated_at",
        last_scheduled_at: "last_scheduled_at",
        waiting_turn: "waiting_turn",
        paused_turn: "paused_turn",
        turns_skipped: "turns_skipped",
        rewinds: "rewinds",
        created_by: "created_by",
        updated_by: "updated_by",
    } need {
        last_skipped_at: "last_skipped_at",
        last_skip_reason: "last_skip_reason",
        last_skip_detail: "last_skip_detail",
    } with {
        last_skipped: skipped(&c)?,
    }
}

columns! {
    /// Of `agents`.
    agent_columns, agent("agent", row, c) -> Agent {
        id: "id",
        mission: "mission",
        site: "site",
        host: "host",
        version: "version",
        tools: "tools",
        queues: "queues",
        capacity: "capacity",
        inflight: "inflight",
        interval: "interval_us",
        left: "has_left",
        first_seen_at: "first_seen_at",
        last_seen_at: "last_seen_at",
        certificate_expires_at: "certificate_expires_at",
        clock_skew_us: "clock_skew_us",
        unconfined: "unconfined",
    }
}

columns! {
    /// Of `audit`.
    audit_columns, audit_row("audit entry", row, c) -> AuditRow {
        seq: "seq",
    } need {
        chain: "chain",
        place: "place",
        id: "id",
        at: "at",
        surface: "surface",
        principal: "principal",
        role: "role",
        address: "address",
        request_id: "request_id",
        operation: "operation",
        object_kind: "object_kind",
        object_id: "object_id",
        outcome: "outcome",
        calls: "calls",
        detail: "detail",
        previous: "previous",
        hash: "hash",
    } with {
        chained: chained(&c)?,
    }
}

/// A hash is read as it is stored: what is wrong with it is the verification's to find.
fn chained(c: &Columns<'_, impl Record>) -> Result<Chained, Fault> {
    let calls: i64 = c.get("calls")?;
    Ok(Chained {
        chain: c.get("chain")?,
        place: c.get("place")?,
        previous: hash(c, "previous")?,
        hash: hash(c, "hash")?,
        entry: Entry {
            id: c.get("id")?,
            at: c.get("at")?,
            surface: c.get("surface")?,
            principal: c.get("principal")?,
            role: c.get("role")?,
            address: c.get("address")?,
            request_id: c.get("request_id")?,
            operation: c.get("operation")?,
            object_kind: c.get("object_kind")?,
            object_id: c.get("object_id")?,
            outcome: c.get("outcome")?,
            // Out of range is a change too: the largest has another hash.
            calls: u32::try_from(calls).unwrap_or(u32::MAX),
            detail: c.get("detail")?,
        },
    })
}

fn hash(c: &Columns<'_, impl Record>, column: &str) -> Result<Hash, Fault> {
    let bytes: Vec<u8> = c.get(column)?;
    // One of another length matches nothing.
    Ok(Hash::try_from(bytes.as_slice()).unwrap_or(Hash([0xff; 32])))
}

/// Reads `chain, place, hash, base_place, base_hash`.
pub(super) fn audit_chain(row: &impl Record) -> Result<Chain, Fault> {
    let c = Columns { what: "audit chain", row };
    Ok(Chain {
        head: Head { chain: c.get("chain")?, place: c.get("place")?, hash: hash(&c, "hash")? },
        base: Base { place: c.get("base_place")?, hash: hash(&c, "base_hash")? },
    })
}

fn error(c: &Columns<'_, impl Record>) -> Result<Option<JobError>, Fault> {
    let Some(class) = c.get::<Option<String>>("error_class")? else { return Ok(None) };
    let message: Option<String> = c.get("error_message")?;
    let log_tail: Option<String> = c.get("error_log")?;
    Ok(Some(JobError {
        class: ErrorClass::from_word(&class),
        message: message.unwrap_or_default(),
        log_tail: log_tail.unwrap_or_default(),
    }))
}

fn retry(c: &Columns<'_, impl Record>) -> Result<RetryPolicy, Fault> {
    Ok(RetryPolicy { base: c.get("retry_base")?, cap: c.get("retry_cap")? })
}

fn skipped(c: &Columns<'_, impl Record>) -> Result<Option<SkippedTurn>, Fault> {
    let Some(at) = c.get("last_skipped_at")? else { return Ok(None) };
    let reason: Option<String> = c.get("last_skip_reason")?;
    let detail: Option<String> = c.get("last_skip_detail")?;
    Ok(Some(SkippedTurn { at, reason: reason.unwrap_or_default(), detail: detail.unwrap_or_default() }))
}

/// Reads `id, state, version`.
pub(super) fn version(row: &impl Record) -> Result<(JobId, State, i64), Fault> {
    let c = Columns { what: "job", row };
    Ok((c.get("id")?, c.get("state")?, c.get("version")?))
}

/// Reads `seq, args, traceparent`.
pub(super) fn payload(row: &impl Record) -> Result<(i64, String, Option<String>), Fault> {
    let c = Columns { what: "job", row };
    Ok((c.get("seq")?, c.get("args")?, c.get("traceparent")?))
}

/// Reads `id`.
pub(super) fn letter_id(row: &impl Record) -> Result<String, Fault> {
    Columns { what: "dead letter", row }.get("id")
}

/// Reads `seq`, the job's, and an attempt.
pub(super) fn attempt_of_job(row: &impl Record) -> Result<(i64, AttemptRecord), Fault> {
    Ok((Columns { what: "attempt", row }.get("seq")?, attempt_record(row)?))
}

/// Reads `mission, queue, pending, oldest`.
pub(super) fn depth(row: &impl Record) -> Result<super::Depth, Fault> {
    let c = Columns { what: "job", row };
    Ok(super::Depth {
        mission: c.get("mission")?,
        queue: c.get("queue")?,
        pending: c.get::<i64>("pending")?.unsigned_abs(),
        oldest: c.get("oldest")?,
    })
}

pub(super) fn job_id(bytes: &[u8]) -> Result<JobId, Fault> {
    Uuid::from_slice(bytes).map(JobId::from_uuid).map_err(|e| Fault::row("job", e))
}

pub(super) fn name<T>(what: &'static str, name: Result<T, NameError>) -> Result<T, Fault> {
    name.map_err(|e| Fault::row(what, e))
}

/// Lines left out, as a JSON array, and the one that is meant; each `None` where there is none.
pub(super) fn outbox_lines(pick: &OutboxPick) -> (Option<String>, Option<&str>) {
    match pick {
        OutboxPick::AllBut(lines) if lines.is_empty() => (None, None),
        OutboxPick::AllBut(lines) => (Some(serde_json::to_string(lines).expect("strings are always JSON")), None),
        OutboxPick::Only(line) => (None, Some(line)),
    }
}
