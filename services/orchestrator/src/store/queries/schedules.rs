//! Schedules. Taking a turn is each store's own, since only the transaction differs.

use crate::store::rows::schedule_columns;

/// The row of a schedule, by id.
pub(in crate::store) const SCHEDULE_BY_ID: &str =
    concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE id = $1");

/// Whether a job is open. States 1 to 3 are the open ones.
pub(in crate::store) const OPEN_JOB: &str = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND state <= 3)";

/// What a turn leaves of the schedule.
pub(in crate::store) const KEEP_SCHEDULE: &str = "UPDATE schedules SET next_run_at = $1, waiting_turn = $2, last_run_at = $3, last_job_id = $4, \
     last_scheduled_at = $5, turns_skipped = $6, last_skipped_at = $7, last_skip_reason = $8, \
     last_skip_detail = $9 WHERE id = $10";

/// The queries, on one driver.
macro_rules! schedules {
    ($database:ty) => {
        use agentforge_message_id::ScheduleId;
        use agentforge_proto::time::Micros;
        use sqlx::{Executor, query};
        use $crate::model::Schedule;
        use $crate::store::columns::micros;
        use $crate::store::fault::Fault;
        use $crate::store::rows::{self, schedule_columns};

        pub(in crate::store) async fn create(
            c: impl Executor<'_, Database = $database>,
            s: &Schedule,
        ) -> Result<bool, Fault> {
            let done = query(
                "INSERT INTO schedules (id, name, cron, time_zone, template, paused, created_at, next_run_at, overlap, \
                 catch_up, turn_deadline_us, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(s.id.as_bytes().as_slice())
            .bind(&s.name)
            .bind(&s.cron)
            .bind(&s.time_zone)
            .bind(&s.template)
            .bind(s.paused)
            .bind(s.created_at.0)
            .bind(s.next_run_at.map(|m| m.0))
            .bind(s.overlap as i16)
            .bind(s.catch_up as i16)
            .bind(s.deadline.map(micros))
            .bind(s.created_by.as_deref())
            .execute(c)
            .await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn update(
            c: impl Executor<'_, Database = $database>,
            s: &Schedule,
            read_at: Option<Micros>,
            retime: bool,
        ) -> Result<bool, Fault> {
            let done = query(
                "UPDATE schedules SET name = $1, cron = $2, time_zone = $3, template = $4, overlap = $5, \
                 catch_up = $6, turn_deadline_us = $7, updated_at = $8, updated_by = $13, \
                 next_run_at = CASE WHEN $9 AND NOT paused THEN $10 ELSE next_run_at END, \
                 paused_turn = CASE WHEN $9 THEN NULL ELSE paused_turn END \
                 WHERE id = $11 AND updated_at IS NOT DISTINCT FROM $12 \
                 AND NOT EXISTS (SELECT 1 FROM schedules other WHERE other.name = $1 AND other.id <> $11)",
            )
            .bind(&s.name)
            .bind(&s.cron)
            .bind(&s.time_zone)
            .bind(&s.template)
            .bind(s.overlap as i16)
            .bind(s.catch_up as i16)
            .bind(s.deadline.map(micros))
            .bind(s.updated_at.map(|m| m.0))
            .bind(retime)
            .bind(s.next_run_at.map(|m| m.0))
            .bind(s.id.as_bytes().as_slice())
            .bind(read_at.map(|m| m.0))
            .bind(s.updated_by.as_deref())
            .execute(c)
            .await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn one(
            c: impl Executor<'_, Database = $database>,
            id: ScheduleId,
        ) -> Result<Option<Schedule>, Fault> {
            let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE id = $1");
            let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
            row.as_ref().map(rows::schedule).transpose()
        }

        pub(in crate::store) async fn page(
            c: impl Executor<'_, Database = $database>,
            after: Option<&str>,
            limit: u32,
        ) -> Result<Vec<Schedule>, Fault> {
            let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE name > $1 ORDER BY name LIMIT $2");
            let rows = query(sql).bind(after.unwrap_or_default()).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(rows::schedule).collect()
        }

        pub(in crate::store) async fn due(
            c: impl Executor<'_, Database = $database>,
            now: Micros,
            limit: u32,
        ) -> Result<Vec<Schedule>, Fault> {
            let sql = concat!(
                "SELECT ",
                schedule_columns!(),
                " FROM schedules WHERE next_run_at <= $1 AND NOT paused ORDER BY next_run_at LIMIT $2"
            );
            let rows = query(sql).bind(now.0).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(rows::schedule).collect()
        }

        /// States 1 to 3 are the open ones.
        pub(in crate::store) async fn waiting(
            c: impl Executor<'_, Database = $database>,
            limit: u32,
        ) -> Result<Vec<Schedule>, Fault> {
            let sql = concat!(
                "SELECT ",
                schedule_columns!(),
                " FROM schedules WHERE waiting_turn IS NOT NULL AND NOT paused AND NOT EXISTS \
                 (SELECT 1 FROM jobs j WHERE j.id = schedules.last_job_id AND j.state <= 3) \
                 ORDER BY waiting_turn LIMIT $1"
            );
            let rows = query(sql).bind(i64::from(limit)).fetch_all(c).await?;
            rows.iter().map(rows::schedule).collect()
        }

        pub(in crate::store) async fn set_paused(
            c: impl Executor<'_, Database = $database>,
            id: ScheduleId,
            paused: bool,
            next: Option<Micros>,
        ) -> Result<bool, Fault> {
            let done = query(
                "UPDATE schedules SET paused = $1, next_run_at = $2, \
                 paused_turn = CASE WHEN $1 THEN coalesce(next_run_at, paused_turn) END WHERE id = $3",
            )
            .bind(paused)
            .bind(next.map(|m| m.0))
            .bind(id.as_bytes().as_slice())
            .execute(c)
            .await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn rewind(
            c: impl Executor<'_, Database = $database>,
            id: ScheduleId,
            planned: Micros,
            next: Option<Micros>,
        ) -> Result<bool, Fault> {
            let done = query(
                "UPDATE schedules SET next_run_at = $1, rewinds = rewinds + 1 \
                 WHERE id = $2 AND next_run_at = $3 AND NOT paused",
            )
            .bind(next.map(|m| m.0))
            .bind(id.as_bytes().as_slice())
            .bind(planned.0)
            .execute(c)
            .await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn delete(
            c: impl Executor<'_, Database = $database>,
            id: ScheduleId,
        ) -> Result<bool, Fault> {
            let done = query("DELETE FROM schedules WHERE id = $1").bind(id.as_bytes().as_slice()).execute(c).await?;
            Ok(done.rows_affected() == 1)
        }
    };
}

pub(in crate::store) use schedules;
