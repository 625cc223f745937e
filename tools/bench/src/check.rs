//! Exact delivery, read from the database itself: one committed result for each job, and no more.

use agentforge_terminal::{Failure, Result};
use serde::Serialize;
use sqlx::{Connection, Row};
use std::path::Path;

/// What became of submitted jobs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Delivery {
    /// Jobs acknowledged to the submitter.
    pub accepted: u64,
    /// Jobs with a committed success.
    pub succeeded: u64,
    /// Accepted jobs that are not there or not succeeded.
    pub lost: u64,
    /// Committed results and attempts beyond one a job.
    pub duplicated: u64,
}

impl Delivery {
    /// Adds the counts of another round.
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.succeeded += other.succeeded;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
    }

    /// Whether each job has its one result.
    pub const fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0
    }
}

const COUNTS: &str = "\
    select count(*) as jobs,
           coalesce(sum(case when j.state = 4 then 1 else 0 end), 0) as succeeded,
           coalesce(sum((select count(*) from job_results r where r.seq = j.seq)), 0) as results,
           coalesce(sum((select count(*) from job_attempts a where a.seq = j.seq)), 0) as attempts
    from jobs j where j.queue = 'default' and j.labels like $1";

/// Counts the jobs with the label `bench=<label>`.
pub async fn delivery(store: &str, data_dir: &Path, label: &str, expected: u64) -> Result<Delivery> {
    let failed = |e: sqlx::Error| Failure::new(format!("cannot check delivery in the database: {e}"));
    let pattern = format!("%\"bench\":\"{label}\"%");
    let [jobs, succeeded, results, attempts] = if store.starts_with("sqlite") {
        let file = data_dir.join(store.trim_start_matches("sqlite://"));
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).read_only(true);
        let mut c = sqlx::SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let row = sqlx::query(COUNTS).bind(pattern).fetch_one(&mut c).await.map_err(failed)?;
        [0, 1, 2, 3].map(|i| row.try_get::<i64, _>(i).unwrap_or(-1))
    } else {
        let mut c = sqlx::PgConnection::connect(store).await.map_err(failed)?;
        let sql = COUNTS.replace("coalesce(sum(", "cast(coalesce(sum(").replace(", 0) as", ", 0) as bigint) as");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(pattern).fetch_one(&mut c).await.map_err(failed)?;
        [0, 1, 2, 3].map(|i| row.try_get::<i64, _>(i).unwrap_or(-1))
    };
    if [jobs, succeeded, results, attempts].contains(&-1) {
        return Err(Failure::new("the database answered what this version cannot read"));
    }
    let n = |i: i64| u64::try_from(i).unwrap_or(0);
    let beyond = |i: i64| n(i).saturating_sub(n(succeeded));
    Ok(Delivery {
        accepted: expected,
        succeeded: n(succeeded),
        lost: expected.saturating_sub(n(succeeded)),
        duplicated: n(jobs).saturating_sub(expected) + beyond(results) + beyond(attempts),
    })
}
