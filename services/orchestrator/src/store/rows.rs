//! Rows of either database as values of `model`.
//!
//! Both schemas have the same columns in the same types, so the readers are written once and stamped out for each
//! driver's row by `readers!`. A column list and its reader are next to each other: their order is the contract. What
//! cannot be read is an error, never a default.

use super::OutboxPick;
use super::fault::Fault;
use crate::model::{JobError, SkippedTurn, State};
use crate::turns::{CatchUp, Overlap};
use agentforge_message_id::{AgentId, Attempt, JobId, NameError, ScheduleId};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Columns of `jobs` (as `j`) that `current` reads.
macro_rules! current_columns {
    () => {
        "j.seq, j.id, j.mission, j.queue, j.tool, j.labels, j.state, j.attempt, j.attempt_limit, j.max_attempts, \
         j.deadline, j.created_at, j.available_at, j.queued_at, j.started_at, j.finished_at, j.worker, \
         j.error_class, j.error_message, j.error_log, j.stream_seq, j.republished, j.version, j.lifetime_us, \
         j.retry_base_us, j.retry_cap_us, j.former_key IS NOT NULL"
    };
}

/// Columns of `jobs`, `job_payloads` (as `p`) and `job_results` (as `r`) that `job` reads.
macro_rules! job_columns {
    () => {
        concat!(
            $crate::store::rows::current_columns!(),
            ", coalesce(j.idempotency_key, j.former_key), p.task, p.args, p.timeout_us, p.run_at, p.reuse, p.schedule_id, p.scheduled_at, p.traceparent, \
             r.output, r.output_ref, r.replay_of"
        )
    };
}

/// Columns of `jobs` and `job_payloads` that `outgoing` reads. An attempt that a worker took for expired by
/// mistake goes out without its deadline, which is ours to watch.
macro_rules! outgoing_columns {
    () => {
        "j.seq, j.id, j.attempt, j.republished, j.mission, j.queue, j.tool, p.task, p.args, p.timeout_us, \
         CASE WHEN j.error_class = 'expired' THEN NULL ELSE j.deadline END, p.reuse, j.created_at, p.traceparent, p.request_id, \
         p.scheduled_at"
    };
}

/// Columns of `job_attempts` that `attempt_record` reads.
macro_rules! attempt_columns {
    () => {
        "attempt, outcome, error_class, error_message, error_log, worker, delivery, started_at, finished_at, retry_at"
    };
}

/// Columns of `dead_letters` that `dead_letter` reads.
macro_rules! letter_columns {
    () => {
        "seq, id, job_id, mission, queue, tool, reason, error_class, error_message, error_log, created_at, redriven_at"
    };
}

/// Columns of `schedules` that `schedule` reads.
macro_rules! schedule_columns {
    () => {
        "id, name, cron, time_zone, template, paused, created_at, last_run_at, last_job_id, next_run_at, \
         overlap, catch_up, turn_deadline_us, updated_at, last_scheduled_at, waiting_turn, paused_turn, \
         turns_skipped, last_skipped_at, last_skip_reason, last_skip_detail, rewinds"
    };
}

/// Columns of `agents` that `agent` reads.
macro_rules! agent_columns {
    () => {
        "id, mission, site, host, version, tools, queues, capacity, inflight, interval_us, has_left, first_seen_at, \
         last_seen_at, certificate_expires_at, clock_skew_us"
    };
}

pub(super) fn job_id(bytes: &[u8]) -> Result<JobId, Fault> {
    uuid("job", bytes).map(JobId::from_uuid)
}

pub(super) fn schedule_id(bytes: &[u8]) -> Result<ScheduleId, Fault> {
    uuid("schedule", bytes).map(ScheduleId::from_uuid)
}

fn uuid(what: &'static str, bytes: &[u8]) -> Result<Uuid, Fault> {
    Uuid::from_slice(bytes).map_err(|e| Fault::row(what, e))
}

pub(super) fn state(n: i16) -> Result<State, Fault> {
    State::from_number(n).ok_or_else(|| Fault::row("job", format_args!("{n} is not a state that this version knows")))
}

pub(super) fn overlap(n: i16) -> Result<Overlap, Fault> {
    Overlap::from_number(n).ok_or_else(|| Fault::row("schedule", format_args!("{n} is not an overlap policy")))
}

pub(super) fn catch_up(n: i16) -> Result<CatchUp, Fault> {
    CatchUp::from_number(n).ok_or_else(|| Fault::row("schedule", format_args!("{n} is not a catch-up policy")))
}

pub(super) fn skipped(at: Option<Micros>, reason: Option<String>, detail: Option<String>) -> Option<SkippedTurn> {
    at.map(|at| SkippedTurn { at, reason: reason.unwrap_or_default(), detail: detail.unwrap_or_default() })
}

pub(super) fn attempt(n: i64) -> Result<Attempt, Fault> {
    let attempt = u32::try_from(n).ok().and_then(Attempt::new);
    attempt.ok_or_else(|| Fault::row("job", format_args!("{n} is not an attempt")))
}

pub(super) fn count(what: &'static str, n: i64) -> Result<u32, Fault> {
    u32::try_from(n).map_err(|e| Fault::row(what, e))
}

pub(super) fn name<T>(what: &'static str, name: Result<T, NameError>) -> Result<T, Fault> {
    name.map_err(|e| Fault::row(what, e))
}

pub(super) fn agent_id(id: &str) -> Result<AgentId, Fault> {
    name("agent", AgentId::new(id))
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// What `taken` reads, where `jobs` is `j`.
macro_rules! taken_columns {
    () => {
        "j.id, j.mission, coalesce(j.idempotency_key, j.former_key), j.idempotency_key IS NOT NULL, j.body_hash, \
         j.given_hash, j.state"
    };
}

pub(super) fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn error(class: Option<&str>, message: Option<String>, log: Option<String>) -> Option<JobError> {
    class.map(|class| JobError {
        class: ErrorClass::from_word(class),
        message: message.unwrap_or_default(),
        log_tail: log.unwrap_or_default(),
    })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| Fault::row(what, e))
}

pub(super) fn labels(text: Option<&str>) -> Result<BTreeMap<String, String>, Fault> {
    text.map_or_else(|| Ok(BTreeMap::new()), |t| json("job", t))
}

/// Lines left out, as a JSON array, and the one that is meant; each `None` where there is none.
pub(super) fn outbox_lines(pick: &OutboxPick) -> (Option<String>, Option<&str>) {
    match pick {
        OutboxPick::AllBut(lines) if lines.is_empty() => (None, None),
        OutboxPick::AllBut(lines) => (Some(serde_json::to_string(lines).expect("strings are always JSON")), None),
        OutboxPick::Only(line) => (None, Some(line)),
    }
}

/// Stamps out the readers for one driver.
macro_rules! readers {
    ($database:ty, $row:ty) => {
        use agentforge_message_id::{Mission, Queue, Site, ToolName};
        use agentforge_proto::time::Micros;
        use sqlx::{Decode, Row, Type};
        use $crate::model::{Agent, AttemptRecord, DeadLetter, Job, RetryPolicy, Schedule};
        use $crate::store::fault::Fault;
        use $crate::store::identity::Taken;
        use $crate::store::rows as read;
        use $crate::store::{OutboxRow, Outgoing, Parked, StaleJob};
        use $crate::transition::Current;

        /// The columns of one row, taken from left to right.
        pub(super) struct Columns<'r> {
            row: &'r $row,
            next: usize,
        }

        impl<'r> Columns<'r> {
            pub(super) fn of(row: &'r $row) -> Self {
                Self { row, next: 0 }
            }
            pub(super) fn take<T: Decode<'r, $database> + Type<$database>>(&mut self) -> Result<T, Fault> {
                let index = self.next;
                self.next += 1;
                Ok(self.row.try_get(index)?)
            }
            fn time(&mut self) -> Result<Micros, Fault> {
                self.take().map(Micros)
            }
            fn maybe_time(&mut self) -> Result<Option<Micros>, Fault> {
                Ok(self.take::<Option<i64>>()?.map(Micros))
            }
            fn maybe_duration(&mut self) -> Result<Option<std::time::Duration>, Fault> {
                Ok(self.take::<Option<i64>>()?.map(read::duration))
            }
            fn lane(&mut self) -> Result<(Mission, Queue, ToolName), Fault> {
                let mission = read::name("job", Mission::new(self.take::<&str>()?))?;
                let queue = read::name("job", Queue::new(self.take::<&str>()?))?;
                let tool = read::name("job", ToolName::new(self.take::<&str>()?))?;
                Ok((mission, queue, tool))
            }
            fn error(&mut self) -> Result<Option<$crate::model::JobError>, Fault> {
                Ok(read::error(self.take()?, self.take()?, self.take()?))
            }
        }

        fn current_of(c: &mut Columns<'_>) -> Result<Current, Fault> {
            let seq = c.take()?;
            let id = read::job_id(c.take()?)?;
            let (mission, queue, tool) = c.lane()?;
            Ok(Current {
                seq,
                id,
                mission,
                queue,
                tool,
                labels: c.take()?,
                state: read::state(c.take()?)?,
                attempt: read::attempt(c.take()?)?,
                attempt_limit: read::count("job", c.take()?)?,
                max_attempts: read::count("job", c.take()?)?,
                deadline: c.maybe_time()?,
                created_at: c.time()?,
                available_at: c.time()?,
                queued_at: c.maybe_time()?,
                started_at: c.maybe_time()?,
                finished_at: c.maybe_time()?,
                worker: c.take()?,
                error: c.error()?,
                stream_seq: c.take()?,
                republished: read::count("job", c.take()?)?,
                version: c.take()?,
                lifetime: c.maybe_duration()?,
                retry: RetryPolicy { base: c.maybe_duration()?, cap: c.maybe_duration()? },
                key_released: c.take()?,
            })
        }

        pub(super) fn taken(row: &$row) -> Result<Taken, Fault> {
            let mut c = Columns::of(row);
            Ok(Taken {
                id: read::job_id(c.take()?)?,
                mission: c.take()?,
                key: c.take()?,
                holds_key: c.take()?,
                body_hash: c.take()?,
                given_hash: c.take()?,
                state: read::state(c.take()?)?,
            })
        }

        pub(super) fn current(row: &$row) -> Result<Current, Fault> {
            current_of(&mut Columns::of(row))
        }

        pub(super) fn job(row: &$row) -> Result<Job, Fault> {
            let mut c = Columns::of(row);
            let j = current_of(&mut c)?;
            Ok(Job {
                seq: j.seq,
                id: j.id,
                mission: j.mission,
                queue: j.queue,
                tool: j.tool,
                labels: read::labels(j.labels.as_deref())?,
                state: j.state,
                attempt: j.attempt,
                max_attempts: j.max_attempts,
                retry: j.retry,
                deadline: j.deadline,
                created_at: j.created_at,
                queued_at: j.queued_at,
                started_at: j.started_at,
                finished_at: j.finished_at,
                available_at: j.available_at,
                worker: j.worker,
                error: j.error,
                version: j.version,
                idempotency_key: c.take()?,
                task: c.take()?,
                args: c.take()?,
                timeout: read::duration(c.take()?),
                run_at: c.maybe_time()?,
                reuse: c.take()?,
                schedule_id: c.take::<Option<&[u8]>>()?.map(read::schedule_id).transpose()?,
                scheduled_at: c.maybe_time()?,
                traceparent: c.take()?,
                result: c.take()?,
                output_ref: c.take::<Option<&str>>()?.map(|t| read::json("result", t)).transpose()?,
                replay_of: c.take::<Option<&[u8]>>()?.map(read::job_id).transpose()?,
                warning: None,
            })
        }

        pub(super) fn outgoing(row: &$row) -> Result<Outgoing, Fault> {
            let mut c = Columns::of(row);
            let (seq, id) = (c.take()?, read::job_id(c.take()?)?);
            let attempt = read::attempt(c.take()?)?;
            let republished = read::count("job", c.take()?)?;
            let (mission, queue, tool) = c.lane()?;
            Ok(Outgoing {
                seq,
                id,
                attempt,
                republished,
                mission,
                queue,
                tool,
                task: c.take()?,
                args: c.take()?,
                timeout: read::duration(c.take()?),
                deadline: c.maybe_time()?,
                reuse: c.take()?,
                created_at: c.time()?,
                traceparent: c.take()?,
                request_id: c.take()?,
                scheduled_at: c.maybe_time()?,
            })
        }

        /// Reads `seq, subject, msg_id, payload`.
        pub(super) fn outbox_row(row: &$row) -> Result<OutboxRow, Fault> {
            let mut c = Columns::of(row);
            Ok(OutboxRow { seq: c.take()?, subject: c.take()?, msg_id: c.take()?, payload: c.take()? })
        }

        /// Reads `seq, created_at, parked_at, subject, msg_id, bytes, code, reason`.
        pub(super) fn parked(row: &$row) -> Result<Parked, Fault> {
            let mut c = Columns::of(row);
            Ok(Parked {
                seq: c.take()?,
                created_at: Micros(c.take()?),
                parked_at: Micros(c.take()?),
                subject: c.take()?,
                msg_id: c.take()?,
                bytes: c.take::<i64>()?.unsigned_abs(),
                code: c.take()?,
                reason: c.take()?,
            })
        }

        /// Reads `id, attempt, state, stream_seq, checked_at`.
        pub(super) fn stale_job(row: &$row) -> Result<StaleJob, Fault> {
            let mut c = Columns::of(row);
            Ok(StaleJob {
                id: read::job_id(c.take()?)?,
                attempt: read::attempt(c.take()?)?,
                state: read::state(c.take()?)?,
                stream_seq: c.take()?,
                checked_at: c.time()?,
            })
        }

        fn attempt_of(c: &mut Columns<'_>) -> Result<AttemptRecord, Fault> {
            Ok(AttemptRecord {
                attempt: read::attempt(c.take()?)?,
                outcome: c.take()?,
                error: c.error()?,
                worker: c.take()?,
                delivery: u64::try_from(c.take::<i64>()?).unwrap_or(0),
                started_at: c.maybe_time()?,
                finished_at: c.time()?,
                retry_at: c.maybe_time()?,
            })
        }

        pub(super) fn attempt_record(row: &$row) -> Result<AttemptRecord, Fault> {
            attempt_of(&mut Columns::of(row))
        }

        /// Reads the job's row number, then an attempt.
        pub(super) fn attempt_of_job(row: &$row) -> Result<(i64, AttemptRecord), Fault> {
            let mut c = Columns::of(row);
            Ok((c.take()?, attempt_of(&mut c)?))
        }

        pub(super) fn dead_letter(row: &$row) -> Result<DeadLetter, Fault> {
            let mut c = Columns::of(row);
            Ok(DeadLetter {
                seq: c.take()?,
                id: c.take()?,
                job: c.take::<Option<&[u8]>>()?.map(read::job_id).transpose()?,
                mission: c.take()?,
                queue: c.take()?,
                tool: c.take()?,
                reason: c.take()?,
                error: c.error()?.ok_or_else(|| Fault::row("dead letter", "it has no error"))?,
                created_at: c.time()?,
                redriven_at: c.maybe_time()?,
            })
        }

        pub(super) fn schedule(row: &$row) -> Result<Schedule, Fault> {
            let mut c = Columns::of(row);
            Ok(Schedule {
                id: read::schedule_id(c.take()?)?,
                name: c.take()?,
                cron: c.take()?,
                time_zone: c.take()?,
                template: c.take()?,
                paused: c.take()?,
                created_at: c.time()?,
                last_run_at: c.maybe_time()?,
                last_job_id: c.take::<Option<&[u8]>>()?.map(read::job_id).transpose()?,
                next_run_at: c.maybe_time()?,
                overlap: read::overlap(c.take()?)?,
                catch_up: read::catch_up(c.take()?)?,
                deadline: c.take::<Option<i64>>()?.map(read::duration),
                updated_at: c.maybe_time()?,
                last_scheduled_at: c.maybe_time()?,
                waiting_turn: c.maybe_time()?,
                paused_turn: c.maybe_time()?,
                turns_skipped: u64::try_from(c.take::<i64>()?).unwrap_or(0),
                last_skipped: read::skipped(c.maybe_time()?, c.take()?, c.take()?),
                rewinds: c.take()?,
            })
        }

        pub(super) fn agent(row: &$row) -> Result<Agent, Fault> {
            let mut c = Columns::of(row);
            Ok(Agent {
                id: read::agent_id(c.take()?)?,
                mission: read::name("agent", Mission::new(c.take::<&str>()?))?,
                site: read::name("agent", Site::new(c.take::<&str>()?))?,
                host: c.take()?,
                version: c.take()?,
                tools: read::json("agent", c.take()?)?,
                queues: read::json("agent", c.take()?)?,
                capacity: read::count("agent", c.take()?)?,
                inflight: read::count("agent", c.take()?)?,
                interval: read::duration(c.take()?),
                left: c.take()?,
                first_seen_at: c.time()?,
                last_seen_at: c.time()?,
                certificate_expires_at: c.maybe_time()?,
                clock_skew_us: c.take()?,
            })
        }
    };
}

pub(super) use {
    agent_columns, attempt_columns, current_columns, job_columns, letter_columns, outgoing_columns, readers,
    schedule_columns, taken_columns,
};
