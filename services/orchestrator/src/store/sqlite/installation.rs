//! What is true of the file as a whole: whose it is, and that it takes writes.

use crate::store::fault::Fault;
use crate::store::writes::{MISSION, PROBE};
use agentforge_message_id::Mission;
use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

/// Notes the mission where none is noted. Answers which one is.
pub(super) async fn claim(c: &mut SqliteConnection, mission: &Mission) -> Result<String, Fault> {
    query("INSERT INTO installation (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(MISSION)
        .bind(mission.as_str())
        .execute(&mut *c)
        .await?;
    Ok(query_scalar("SELECT value FROM installation WHERE name = ?").bind(MISSION).fetch_one(c).await?)
}

/// Writes something.
pub(super) async fn probe(c: &mut SqliteConnection, filler: &str) -> Result<(), Fault> {
    query(
        "INSERT INTO installation (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(PROBE)
    .bind(filler)
    .execute(c)
    .await?;
    Ok(())
}
