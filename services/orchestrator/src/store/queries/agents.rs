//! Agents as last heard from.

/// The queries, on one driver.
macro_rules! agents {
    ($database:ty) => {
        use agentforge_message_id::{AgentId, Mission};
        use agentforge_proto::time::Micros;
        use sqlx::{Executor, query};
        use $crate::model::Agent;
        use $crate::store::fault::Fault;
        use $crate::store::rows::{self, agent_columns};

        pub(in crate::store) async fn one(
            c: impl Executor<'_, Database = $database>,
            id: &AgentId,
        ) -> Result<Option<Agent>, Fault> {
            let sql = concat!("SELECT ", agent_columns!(), " FROM agents WHERE id = $1");
            query(sql).bind(id.as_str()).fetch_optional(c).await?.as_ref().map(rows::agent).transpose()
        }

        /// By id, from behind `after`.
        pub(in crate::store) async fn page(
            c: impl Executor<'_, Database = $database>,
            mission: Option<&Mission>,
            after: Option<&str>,
            limit: u32,
        ) -> Result<Vec<Agent>, Fault> {
            let sql = concat!(
                "SELECT ",
                agent_columns!(),
                " FROM agents WHERE id > $1 AND (CAST($2 AS text) IS NULL OR mission = $2) ORDER BY id LIMIT $3"
            );
            let rows = query(sql)
                .bind(after.unwrap_or_default())
                .bind(mission.map(Mission::as_str))
                .bind(i64::from(limit))
                .fetch_all(c)
                .await?;
            rows.iter().map(rows::agent).collect()
        }

        pub(in crate::store) async fn forget(
            c: impl Executor<'_, Database = $database>,
            before: Micros,
        ) -> Result<u64, Fault> {
            Ok(query("DELETE FROM agents WHERE last_seen_at < $1").bind(before.0).execute(c).await?.rows_affected())
        }
    };
}

pub(in crate::store) use agents;
