//! Where each part of a job's description is kept. From one line for each come the SELECT list, the reader, and the
//! columns and values of both stores' INSERT statements: what is forgotten here does not compile.

use super::columns::{Columns, Record, micros};
use super::fault::Fault;
use crate::model::{JobSpec, RetryPolicy};
use agentforge_message_id::{JobId, Mission, Queue, ScheduleId, ToolName};
use agentforge_proto::time::Micros;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Makes [`spec_columns`], [`spec`] and [`COLUMNS`] of the list: `field: column = "what a SELECT takes"`.
macro_rules! described {
    (
        $($table:ident { $($field:ident: $column:ident = $sql:literal),* $(,)? })*
        ; $outer:ident: $Outer:ident of $other_table:ident { $($part:ident: $part_column:ident = $part_sql:literal),* $(,)? }
    ) => {
        /// The SELECT list of a description, of `jobs` (as `j`) and `job_payloads` (as `p`); it follows another list.
        macro_rules! spec_columns {
            () => {
                concat!(
                    $($(", ", $sql, " AS ", stringify!($field),)*)*
                    $(", ", $part_sql, " AS ", stringify!($part_column),)*
                )
            };
        }
        pub(super) use spec_columns;

        /// Reads [`spec_columns`].
        pub(super) fn spec(row: &impl Record) -> Result<JobSpec, Fault> {
            let c = Columns { what: "job", row };
            Ok(JobSpec {
                $($($field: c.get(stringify!($field))?,)*)*
                $outer: $Outer { $($part: c.get(stringify!($part_column))?,)* },
            })
        }

        const COLUMNS: &[Column] = &[
            $($(Column {
                table: stringify!($table),
                name: stringify!($column),
                value: |spec| spec.$field.written(),
            },)*)*
            $(Column {
                table: stringify!($other_table),
                name: stringify!($part_column),
                value: |spec| spec.$outer.$part.written(),
            },)*
        ];
    };
}

described! {
    jobs {
        id: id = "j.id",
        mission: mission = "j.mission",
        queue: queue = "j.queue",
        tool: tool = "j.tool",
        labels: labels = "j.labels",
        submitted_by: submitted_by = "j.submitted_by",
        max_attempts: max_attempts = "j.max_attempts",
        created_at: created_at = "j.created_at",
        idempotency_key: idempotency_key = "coalesce(j.idempotency_key, j.former_key)",
    }
    job_payloads {
        task: task = "p.task",
        args: args = "p.args",
        timeout: timeout_us = "p.timeout_us",
        run_at: run_at = "p.run_at",
        reuse: reuse = "p.reuse",
        schedule_id: schedule_id = "p.schedule_id",
        scheduled_at: scheduled_at = "p.scheduled_at",
        traceparent: traceparent = "p.traceparent",
        request_id: request_id = "p.request_id",
    }
    ; retry: RetryPolicy of jobs {
        base: retry_base_us = "j.retry_base_us",
        cap: retry_cap_us = "j.retry_cap_us",
    }
}

/// A value as either database takes it. A kind that may be NULL is the same kind then.
#[derive(Debug)]
pub(super) enum Value<'v> {
    Number(Option<i64>),
    Truth(bool),
    Text(Option<Cow<'v, str>>),
    Bytes(Option<&'v [u8]>),
}

/// A column that a new job fills from its description.
pub(super) struct Column {
    table: &'static str,
    pub(super) name: &'static str,
    pub(super) value: fn(&JobSpec) -> Value<'_>,
}

/// The columns of one table.
pub(super) fn columns_of(table: &'static str) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.table == table)
}

/// How a part of the description is written.
trait Written {
    fn written(&self) -> Value<'_>;
}

macro_rules! written {
    ($($Type:ty: |$value:ident| $written:expr;)*) => {
        $(impl Written for $Type {
            fn written(&self) -> Value<'_> {
                let $value = self;
                $written
            }
        })*
    };
}

written! {
    JobId: |id| Value::Bytes(Some(id.as_bytes().as_slice()));
    Option<ScheduleId>: |id| Value::Bytes(id.as_ref().map(|id| id.as_bytes().as_slice()));
    Mission: |name| Value::Text(Some(name.as_str().into()));
    Queue: |name| Value::Text(Some(name.as_str().into()));
    ToolName: |name| Value::Text(Some(name.as_str().into()));
    String: |text| Value::Text(Some(text.as_str().into()));
    Option<String>: |text| Value::Text(text.as_deref().map(Cow::Borrowed));
    BTreeMap<String, String>: |map| {
        let text = || serde_json::to_string(map).expect("a map of strings is always JSON");
        Value::Text((!map.is_empty()).then(|| text().into()))
    };
    bool: |truth| Value::Truth(*truth);
    u32: |n| Value::Number(Some(i64::from(*n)));
    Micros: |at| Value::Number(Some(at.0));
    Option<Micros>: |at| Value::Number(at.map(|at| at.0));
    Duration: |d| Value::Number(Some(micros(*d)));
    Option<Duration>: |d| Value::Number(d.map(micros));
}
