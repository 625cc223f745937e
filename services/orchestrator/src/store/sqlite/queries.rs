//! The queries of [`crate::store::queries`], on SQLite's driver, and those that only differ in how they take a list.

use super::sql::{Batch, push_id};
use crate::model::State;
use crate::store::fault::Fault;
use crate::store::{queries, rows};
use agentforge_message_id::JobId;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use std::sync::LazyLock;

pub(super) mod agents {
    super::queries::agents!(sqlx::Sqlite);
}
pub(super) mod audit {
    super::queries::audit!(sqlx::Sqlite);
}
pub(super) mod installation {
    super::queries::installation!(sqlx::Sqlite, sqlx::SqliteConnection);
}
pub(super) mod jobs {
    super::queries::jobs!(
        sqlx::Sqlite,
        sqlx::SqlitePool,
        plan_kept: true
    );
}
pub(super) mod listing {
    super::queries::listing!(
        sqlx::Sqlite,
        sqlx::SqlitePool,
        plan_kept: true,
        labelled: "NOT EXISTS (SELECT 1 FROM json_each($5) AS want WHERE NOT EXISTS ( \
            SELECT 1 FROM json_each(j.labels) AS have \
            WHERE have.key = want.value ->> 0 AND have.value = want.value ->> 1))",
        told: "instr(lower(j.error_class || ': ' || coalesce(j.error_message, '')), $11) > 0",
        among: "j.seq IN (SELECT value FROM json_each($12))",
        of_list: "j.seq IN (SELECT value FROM json_each($1))",
        listed: "state = $1 AND (state = 3 OR state >= 5)",
        all_listed: "SELECT state, count(*) FROM jobs WHERE state = 3 OR state >= 5 GROUP BY state"
    );
}
pub(super) mod lookup {
    super::queries::lookup!(sqlx::Sqlite);
}
pub(super) mod operations {
    super::queries::operations!(sqlx::Sqlite, sqlx::SqlitePool, sqlx::SqliteConnection);
}
pub(super) mod parked {
    super::queries::parked!(sqlx::Sqlite);
}
pub(super) mod pauses {
    super::queries::pauses!(sqlx::Sqlite);
}
pub(super) mod schedules {
    super::queries::schedules!(sqlx::Sqlite);
}
pub(super) mod slo {
    super::queries::slo!(sqlx::Sqlite);
}

static VERSIONS: LazyLock<Batch> = LazyLock::new(|| Batch::list("SELECT id, state, version FROM jobs WHERE id IN", ""));

pub(super) async fn versions(pool: &SqlitePool, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Fault> {
    let mut connection = pool.acquire().await?;
    VERSIONS.fetch(&mut connection, ids, push_id).await?.iter().map(rows::version).collect()
}

static DISCARD_LETTERS: LazyLock<Batch> =
    LazyLock::new(|| Batch::list("DELETE FROM dead_letters WHERE seq IN", "RETURNING id"));

/// Says the ids of those that there were.
pub(super) async fn discard_letters(c: &mut SqliteConnection, seqs: &[i64]) -> Result<Vec<String>, Fault> {
    let gone = DISCARD_LETTERS.fetch(c, seqs, |a, seq| _ = a.push(*seq)).await?;
    gone.iter().map(rows::letter_id).collect()
}
