//! Operations in either database: the statements are the same, so they are written once and stamped out for each
//! driver by `operations!`.

use crate::operation::{Claimed, Kind, Operation, OperationProgress, State};
use crate::store::fault::Fault;
use agentforge_message_id::OperationId;
use agentforge_proto::time::Micros;
use uuid::Uuid;

/// One row: id, kind, state, whether a stop was asked for, creation, progress, who started it.
pub(in crate::store) type Row = (Vec<u8>, i16, i16, i16, i64, String, Option<String>);

/// The same, with what was asked for.
pub(in crate::store) type ClaimedRow = (Vec<u8>, i16, i16, i16, i64, String, Option<String>, String);

pub(in crate::store) fn operation(
    (id, kind, state, cancel_asked, created_at, progress, started_by): Row,
) -> Result<Operation, Fault> {
    let wrong = |problem: &dyn std::fmt::Display| Fault::row("operation", problem);
    Ok(Operation {
        id: Uuid::from_slice(&id).map(OperationId::from_uuid).map_err(|e| wrong(&e))?,
        kind: Kind::from_number(kind).ok_or_else(|| wrong(&format_args!("{kind} is not a kind")))?,
        state: State::from_number(state).ok_or_else(|| wrong(&format_args!("{state} is not a state")))?,
        cancel_asked: cancel_asked != 0,
        created_at: Micros(created_at),
        started_by,
        progress: serde_json::from_str(&progress).map_err(|e| wrong(&e))?,
    })
}

pub(in crate::store) fn claimed(
    (id, kind, state, cancel, created, progress, by, spec): ClaimedRow,
) -> Result<Claimed, Fault> {
    Ok(Claimed { operation: operation((id, kind, state, cancel, created, progress, by))?, spec })
}

pub(in crate::store) fn text(progress: &OperationProgress) -> String {
    serde_json::to_string(progress).expect("numbers and text are JSON")
}

/// The queries, on one driver's connection.
macro_rules! operations {
    ($database:ty, $pool:ty, $connection:ty) => {
        use agentforge_message_id::OperationId;
        use agentforge_proto::time::Micros;
        use sqlx::{query, query_as, query_scalar};
        use $crate::operation::{Claimed, ENDED_MAX, Kind, OPEN_MAX, Operation, OperationProgress};
        use $crate::store::Owner;
        use $crate::store::fault::Fault;
        use $crate::store::queries::operations as read;

        /// `false` when too many are open. Makes room among the ended.
        pub(in crate::store) async fn create(c: &mut $connection, o: &Operation, spec: &str) -> Result<bool, Fault> {
            let open: i64 = query_scalar("SELECT count(*) FROM operations WHERE state <= 2").fetch_one(&mut *c).await?;
            if open >= i64::from(OPEN_MAX) {
                return Ok(false);
            }
            query(
                "DELETE FROM operations WHERE state > 2 AND id NOT IN \
                 (SELECT id FROM operations WHERE state > 2 ORDER BY id DESC LIMIT $1)",
            )
            .bind(i64::from(ENDED_MAX))
            .execute(&mut *c)
            .await?;
            query(
                "INSERT INTO operations (id, kind, state, created_at, spec, progress, started_by) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(o.id.as_bytes().as_slice())
            .bind(o.kind as i16)
            .bind(o.state as i16)
            .bind(o.created_at.0)
            .bind(spec)
            .bind(read::text(&o.progress))
            .bind(o.started_by.as_deref())
            .execute(c)
            .await?;
            Ok(true)
        }

        pub(in crate::store) async fn one(c: &$pool, id: OperationId) -> Result<Option<Operation>, Fault> {
            let sql = "SELECT id, kind, state, cancel_asked, created_at, progress, started_by FROM operations \
                       WHERE id = $1";
            let row = query_as::<$database, read::Row>(sql).bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
            row.map(read::operation).transpose()
        }

        pub(in crate::store) async fn page(
            c: &$pool,
            before: Option<OperationId>,
            limit: u32,
        ) -> Result<Vec<Operation>, Fault> {
            let last = OperationId::from_uuid(uuid::Uuid::max());
            let rows = query_as::<$database, read::Row>(
                "SELECT id, kind, state, cancel_asked, created_at, progress, started_by FROM operations \
                 WHERE id < $1 ORDER BY id DESC LIMIT $2",
            )
            .bind(before.unwrap_or(last).as_bytes().as_slice())
            .bind(i64::from(limit))
            .fetch_all(c)
            .await?;
            rows.into_iter().map(read::operation).collect()
        }

        /// Whether one waits for somebody to carry it out.
        pub(in crate::store) async fn waits(c: &$pool, now: Micros) -> Result<bool, Fault> {
            let sql = "SELECT count(*) FROM operations WHERE state <= 2 AND claim_until < $1 AND kind <= $2";
            Ok(query_scalar::<_, i64>(sql).bind(now.0).bind(Kind::LAST as i16).fetch_one(c).await? > 0)
        }

        pub(in crate::store) async fn claim(
            c: &mut $connection,
            owner: &Owner,
            now: Micros,
            until: Micros,
            limit: u32,
        ) -> Result<Vec<Claimed>, Fault> {
            let rows = query_as::<$database, _>(
                "UPDATE operations SET state = 2, claim_owner = $1, claim_until = $2 WHERE claim_until < $3 AND id IN \
                 (SELECT id FROM operations WHERE state <= 2 AND claim_until < $3 AND kind <= $5 ORDER BY id LIMIT $4) \
                 RETURNING id, kind, state, cancel_asked, created_at, progress, started_by, spec",
            )
            .bind(&owner.0)
            .bind(until.0)
            .bind(now.0)
            .bind(i64::from(limit))
            // What a later version has added is its own.
            .bind(Kind::LAST as i16)
            .fetch_all(c)
            .await?;
            rows.into_iter().map(read::claimed).collect()
        }

        /// Whether a stop was asked for; `None` when the operation is not ours any more.
        pub(in crate::store) async fn save(
            c: &mut $connection,
            o: &Operation,
            owner: &Owner,
            until: Micros,
        ) -> Result<Option<bool>, Fault> {
            let asked: Option<i16> = query_scalar(
                "UPDATE operations SET state = $1, claim_until = $2, progress = $3 \
                 WHERE id = $4 AND claim_owner = $5 AND state = 2 RETURNING cancel_asked",
            )
            .bind(o.state as i16)
            .bind(until.0)
            .bind(read::text(&o.progress))
            .bind(o.id.as_bytes().as_slice())
            .bind(&owner.0)
            .fetch_optional(c)
            .await?;
            Ok(asked.map(|asked| asked != 0))
        }

        /// Ends one that waits; one that runs is asked to stop. 0 when it has ended.
        pub(in crate::store) async fn cancel(c: &mut $connection, id: OperationId) -> Result<u64, Fault> {
            let ended = OperationProgress { ended_at: Some(Micros::now()), ..OperationProgress::default() };
            let waited =
                query("UPDATE operations SET cancel_asked = 1, state = 5, progress = $1 WHERE id = $2 AND state = 1")
                    .bind(read::text(&ended))
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut *c)
                    .await?;
            let sql = "UPDATE operations SET cancel_asked = 1 WHERE id = $1 AND state <= 2";
            let ran = query(sql).bind(id.as_bytes().as_slice()).execute(c).await?;
            Ok(waited.rows_affected() + ran.rows_affected())
        }
    };
}

pub(in crate::store) use operations;
