//! Columns of either database, read by their names.
//!
//! Both schemas have the same columns in the same types, so a reader is written once, for any driver's row. `columns!`
//! makes the SELECT list and its reader from one description: neither can name what the other does not.

use super::fault::Fault;
use crate::model::State;
use crate::turns::{CatchUp, Overlap};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, NameError, Queue, ScheduleId, Site, ToolName};
use agentforge_proto::bus::OutputRef;
use agentforge_proto::time::Micros;
use rusqlite::types::ValueRef;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row, Sqlite, Type};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// What both drivers decode by themselves, and the writer's own connection.
pub(super) trait Plain<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres> + FromLite<'r>
{
}

impl<'r, T> Plain<'r> for T where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres> + FromLite<'r>
{
}

/// A value of a row of the writer's own connection; `None` when it is of another kind.
pub(super) trait FromLite<'r>: Sized {
    fn from_lite(value: ValueRef<'r>) -> Option<Self>;
}

/// A row of either driver.
pub(super) trait Record {
    fn plain<'r, T: Plain<'r>>(&'r self, column: &str) -> Result<T, Fault>;
}

impl Record for SqliteRow {
    fn plain<'r, T: Plain<'r>>(&'r self, column: &str) -> Result<T, Fault> {
        Ok(self.try_get(column)?)
    }
}

impl Record for PgRow {
    fn plain<'r, T: Plain<'r>>(&'r self, column: &str) -> Result<T, Fault> {
        Ok(self.try_get(column)?)
    }
}

/// A row, and what it is of: an error names it.
pub(super) struct Columns<'r, R> {
    pub(super) what: &'static str,
    pub(super) row: &'r R,
}

impl<'r, R: Record> Columns<'r, R> {
    /// The value in `column`. What cannot be read is an error, never a default.
    pub(super) fn get<T: Stored>(&self, column: &str) -> Result<T, Fault> {
        T::read(self, column)
    }

    fn plain<T: Plain<'r>>(&self, column: &str) -> Result<T, Fault> {
        self.row.plain(column)
    }

    fn fault(&self, problem: impl std::fmt::Display) -> Fault {
        Fault::row(self.what, problem)
    }

    fn named<T>(&self, name: Result<T, NameError>) -> Result<T, Fault> {
        name.map_err(|e| self.fault(e))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, Fault> {
        serde_json::from_str(text).map_err(|e| self.fault(e))
    }

    fn uuid<T>(&self, bytes: &[u8], of: impl Fn(Uuid) -> T) -> Result<T, Fault> {
        Uuid::from_slice(bytes).map(of).map_err(|e| self.fault(e))
    }
}

/// A value of the model, as a column has it.
pub(super) trait Stored: Sized {
    fn read<R: Record>(c: &Columns<'_, R>, column: &str) -> Result<Self, Fault>;
}

/// How each type is read: `c` is the row, `column` the name.
macro_rules! stored {
    ($($Type:ty: |$c:ident, $column:ident| $read:expr;)*) => {
        $(impl Stored for $Type {
            fn read<R: Record>($c: &Columns<'_, R>, $column: &str) -> Result<Self, Fault> {
                $read
            }
        })*
    };
}

stored! {
    bool: |c, column| c.plain(column);
    i64: |c, column| c.plain(column);
    Option<i64>: |c, column| c.plain(column);
    String: |c, column| c.plain(column);
    Option<String>: |c, column| c.plain(column);
    Vec<u8>: |c, column| c.plain(column);
    Option<Vec<u8>>: |c, column| c.plain(column);
    u32: |c, column| u32::try_from(c.plain::<i64>(column)?).map_err(|e| c.fault(e));
    u64: |c, column| Ok(u64::try_from(c.plain::<i64>(column)?).unwrap_or(0));
    Micros: |c, column| c.plain(column).map(Micros);
    Option<Micros>: |c, column| Ok(c.plain::<Option<i64>>(column)?.map(Micros));
    Duration: |c, column| c.plain(column).map(duration);
    Option<Duration>: |c, column| Ok(c.plain::<Option<i64>>(column)?.map(duration));
    JobId: |c, column| c.uuid(c.plain(column)?, JobId::from_uuid);
    Option<JobId>: |c, column| c.plain::<Option<&[u8]>>(column)?.map(|id| c.uuid(id, JobId::from_uuid)).transpose();
    ScheduleId: |c, column| c.uuid(c.plain(column)?, ScheduleId::from_uuid);
    Option<ScheduleId>: |c, column| {
        c.plain::<Option<&[u8]>>(column)?.map(|id| c.uuid(id, ScheduleId::from_uuid)).transpose()
    };
    Mission: |c, column| c.named(Mission::new(c.plain::<&str>(column)?));
    Queue: |c, column| c.named(Queue::new(c.plain::<&str>(column)?));
    ToolName: |c, column| c.named(ToolName::new(c.plain::<&str>(column)?));
    Site: |c, column| c.named(Site::new(c.plain::<&str>(column)?));
    AgentId: |c, column| c.named(AgentId::new(c.plain::<&str>(column)?));
    State: |c, column| {
        let n: i16 = c.plain(column)?;
        State::from_number(n).ok_or_else(|| c.fault(format_args!("{n} is not a state that this version knows")))
    };
    Attempt: |c, column| {
        let n: i64 = c.plain(column)?;
        let attempt = u32::try_from(n).ok().and_then(Attempt::new);
        attempt.ok_or_else(|| c.fault(format_args!("{n} is not an attempt")))
    };
    Overlap: |c, column| {
        let n: i16 = c.plain(column)?;
        Overlap::from_number(n).ok_or_else(|| c.fault(format_args!("{n} is not an overlap policy")))
    };
    CatchUp: |c, column| {
        let n: i16 = c.plain(column)?;
        CatchUp::from_number(n).ok_or_else(|| c.fault(format_args!("{n} is not a catch-up policy")))
    };
    Vec<String>: |c, column| c.json(c.plain(column)?);
    BTreeMap<String, String>: |c, column| {
        c.plain::<Option<&str>>(column)?.map_or_else(|| Ok(Self::new()), |t| c.json(t))
    };
    Option<OutputRef>: |c, column| c.plain::<Option<&str>>(column)?.map(|t| c.json(t)).transpose();
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(super) fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// Makes a SELECT list and its reader. Each field is read from the column that is selected under its name; fields
/// that are made `with` several columns follow, after the columns that they `need`.
macro_rules! columns {
    (
        $(#[$doc:meta])*
        $list:ident, $read:ident($what:literal, $row:ident, $c:ident) -> $Record:ident {
            $first:ident: $first_sql:literal
            $(, $field:ident: $sql:literal)* $(,)?
        }
        $(need { $($alias:ident: $needed:literal),* $(,)? } with { $($made:ident: $value:expr),* $(,)? })?
    ) => {
        $(#[$doc])*
        macro_rules! $list {
            () => {
                concat!(
                    $first_sql, " AS ", stringify!($first)
                    $(, ", ", $sql, " AS ", stringify!($field))*
                    $($(, ", ", $needed, " AS ", stringify!($alias))*)?
                )
            };
        }
        pub(super) use $list;

        pub(super) fn $read($row: &impl $crate::store::columns::Record) -> Result<$Record, $crate::store::fault::Fault> {
            let $c = $crate::store::columns::Columns { what: $what, row: $row };
            Ok($Record {
                $first: $c.get(stringify!($first))?,
                $($field: $c.get(stringify!($field))?,)*
                $($($made: $value,)*)?
            })
        }
    };
}
pub(super) use columns;
