//! What is true of the database as a whole: whose it is, and that it takes writes.

/// The queries, on one driver.
macro_rules! installation {
    ($database:ty, $connection:ty) => {
        use agentforge_message_id::Mission;
        use sqlx::{Executor, query, query_scalar};
        use $crate::store::fault::Fault;
        use $crate::store::writes::{MISSION, PROBE};

        /// Notes the mission where none is noted. Answers which one is.
        pub(in crate::store) async fn claim(c: &mut $connection, mission: &Mission) -> Result<String, Fault> {
            query("INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(MISSION)
                .bind(mission.as_str())
                .execute(&mut *c)
                .await?;
            Ok(query_scalar("SELECT value FROM installation WHERE name = $1").bind(MISSION).fetch_one(c).await?)
        }

        /// Writes `filler` into a row of its own: a disk without room for it refuses, where a smaller write might pass.
        pub(in crate::store) async fn probe(
            c: impl Executor<'_, Database = $database>,
            filler: &str,
        ) -> Result<(), Fault> {
            query(
                "INSERT INTO installation (name, value) VALUES ($1, $2) \
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(PROBE)
            .bind(filler)
            .execute(c)
            .await?;
            Ok(())
        }
    };
}

pub(in crate::store) use installation;
