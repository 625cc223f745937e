//! The queries, written once for both drivers. Parameters are `$1` in both; how a row is locked is passed in.

macro_rules! queries {
    ($database:ty, $connection:ty, for_update: $for_update:literal) => {
        use super::rows::{self, Row, item_columns};
        use super::values::{Counts, Error, Filter, OWNERS_COUNTED};
        use crate::intake::event::{Action, Event};
        use crate::intake::item::{Item, Status};
        use sqlx::{query, query_as, query_scalar};
        use uuid::Uuid;

        /// Stores an item, not its tags.
        pub(super) async fn insert(c: &mut $connection, item: &Item) -> Result<(), Error> {
            query(concat!(
                "INSERT INTO intake_items (",
                item_columns!(),
                ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
            ))
            .bind(item.id.to_string())
            .bind(&item.text)
            .bind(&item.problem)
            .bind(&item.hypothesis)
            .bind(rows::tags(item))
            .bind(item.owner.as_deref().unwrap_or_default())
            .bind(item.impact)
            .bind(item.status.number())
            .bind(item.job_id.map(|id| id.to_string()))
            .bind(&item.created_by)
            .bind(item.created_at.as_microsecond())
            .bind(item.updated_at.map(|at| at.as_microsecond()))
            .bind(item.version)
            .execute(c)
            .await?;
            Ok(())
        }

        /// Stores what can change, but the tags that are looked for.
        pub(super) async fn update(c: &mut $connection, item: &Item) -> Result<(), Error> {
            query(
                "UPDATE intake_items SET text = $1, problem = $2, hypothesis = $3, tags = $4, owner = $5, impact = $6, \
                 status = $7, job_id = $8, updated_at = $9, version = $10 WHERE id = $11",
            )
            .bind(&item.text)
            .bind(&item.problem)
            .bind(&item.hypothesis)
            .bind(rows::tags(item))
            .bind(item.owner.as_deref().unwrap_or_default())
            .bind(item.impact)
            .bind(item.status.number())
            .bind(item.job_id.map(|id| id.to_string()))
            .bind(item.updated_at.map(|at| at.as_microsecond()))
            .bind(item.version)
            .bind(item.id.to_string())
            .execute(c)
            .await?;
            Ok(())
        }

        /// Stores the tags that are looked for.
        pub(super) async fn tag(c: &mut $connection, item: &Item) -> Result<(), Error> {
            for tag in &item.tags {
                query("INSERT INTO intake_tags (tag, item_id) VALUES ($1, $2)")
                    .bind(tag)
                    .bind(item.id.to_string())
                    .execute(&mut *c)
                    .await?;
            }
            Ok(())
        }

        /// Removes them.
        pub(super) async fn untag(c: &mut $connection, id: Uuid) -> Result<(), Error> {
            query("DELETE FROM intake_tags WHERE item_id = $1").bind(id.to_string()).execute(c).await?;
            Ok(())
        }

        /// The item that has this key of the same maker, if there is one; otherwise `item` has it from now on.
        pub(super) async fn keyed(c: &mut $connection, key: &str, item: &Item) -> Result<Option<Item>, Error> {
            let sql = "INSERT INTO intake_keys (maker, key, item_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let insert = query(sql).bind(&item.created_by).bind(key).bind(item.id.to_string());
            if insert.execute(&mut *c).await?.rows_affected() == 1 {
                return Ok(None);
            }
            let sql = concat!(
                "SELECT ",
                item_columns!(),
                " FROM intake_items WHERE id = (SELECT item_id FROM intake_keys WHERE maker = $1 AND key = $2)"
            );
            let row: Option<Row> = query_as(sql).bind(&item.created_by).bind(key).fetch_optional(c).await?;
            row.map(rows::item).transpose()
        }

        /// Removes the key of an item.
        pub(super) async fn unkey(c: &mut $connection, id: Uuid) -> Result<(), Error> {
            query("DELETE FROM intake_keys WHERE item_id = $1").bind(id.to_string()).execute(c).await?;
            Ok(())
        }

        /// Removes an item.
        pub(super) async fn remove(c: &mut $connection, id: Uuid) -> Result<(), Error> {
            query("DELETE FROM intake_items WHERE id = $1").bind(id.to_string()).execute(c).await?;
            Ok(())
        }

        /// An item.
        pub(super) async fn item(c: &mut $connection, id: Uuid) -> Result<Option<Item>, Error> {
            let sql = concat!("SELECT ", item_columns!(), " FROM intake_items WHERE id = $1");
            let row: Option<Row> = query_as(sql).bind(id.to_string()).fetch_optional(c).await?;
            row.map(rows::item).transpose()
        }

        /// An item that no other transaction changes until the end of this one.
        pub(super) async fn locked(c: &mut $connection, id: Uuid) -> Result<Option<Item>, Error> {
            let sql = concat!("SELECT ", item_columns!(), " FROM intake_items WHERE id = $1", $for_update);
            let row: Option<Row> = query_as(sql).bind(id.to_string()).fetch_optional(c).await?;
            row.map(rows::item).transpose()
        }

        /// Items, newest first.
        pub(super) async fn items(c: &mut $connection, filter: &Filter, limit: i64) -> Result<Vec<Item>, Error> {
            let sql = concat!(
                "SELECT ",
                item_columns!(),
                " FROM intake_items WHERE ($1 = '' OR id < $1) AND ($2 = 0 OR owner = $3) AND ($4 < 0 OR status = $4) \
                 AND ($5 = '' OR id IN (SELECT item_id FROM intake_tags WHERE tag = $5)) ORDER BY id DESC LIMIT $6"
            );
            let rows: Vec<Row> = query_as(sql)
                .bind(filter.before.map(|id| id.to_string()).unwrap_or_default())
                .bind(i64::from(filter.owner.is_some()))
                .bind(filter.owner.as_deref().unwrap_or_default())
                .bind(filter.status.map_or(-1, Status::number))
                .bind(filter.tag.as_deref().unwrap_or_default())
                .bind(limit)
                .fetch_all(c)
                .await?;
            rows.into_iter().map(rows::item).collect()
        }

        /// How many there are, by state and by owner.
        pub(super) async fn counts(c: &mut $connection) -> Result<Counts, Error> {
            let by_status = "SELECT status, count(*) FROM intake_items GROUP BY status";
            let rows: Vec<(i64, i64)> = query_as(by_status).fetch_all(&mut *c).await?;
            let mut counts = Counts::default();
            for (status, count) in rows {
                if let Some(status) = Status::from_number(status) {
                    counts.by_status[status as usize] = count;
                }
            }
            let by_owner = "SELECT owner, count(*) AS n FROM intake_items GROUP BY owner ORDER BY n DESC, owner LIMIT $1";
            counts.by_owner = query_as(by_owner).bind(OWNERS_COUNTED).fetch_all(c).await?;
            Ok(counts)
        }

        /// The number of all items.
        pub(super) async fn total(c: &mut $connection) -> Result<i64, Error> {
            Ok(query_scalar("SELECT value FROM intake_counters WHERE name = 'items'").fetch_one(c).await?)
        }

        /// Adds to a counter; says what it shows then. Another change waits until the transaction ends.
        pub(super) async fn shift(c: &mut $connection, name: &str, by: i64) -> Result<i64, Error> {
            let sql = "UPDATE intake_counters SET value = value + $1 WHERE name = $2 RETURNING value";
            Ok(query_scalar(sql).bind(by).bind(name).fetch_one(c).await?)
        }

        /// Stores the event of a change.
        pub(super) async fn announce(
            c: &mut $connection,
            item: &Item,
            action: Action,
            outbox_max: i64,
        ) -> Result<(), Error> {
            let sequence = shift(&mut *c, "sequence", 1).await?;
            let oldest: Option<i64> = query_scalar("SELECT min(sequence) FROM intake_outbox").fetch_one(&mut *c).await?;
            if oldest.is_some_and(|oldest| sequence - oldest >= outbox_max) {
                return Err(Error::OutboxFull(outbox_max));
            }
            let event = Event::new(item, action, sequence);
            query("INSERT INTO intake_outbox (sequence, event_id, body) VALUES ($1, $2, $3)")
                .bind(sequence)
                .bind(event.id.to_string())
                .bind(event.body)
                .execute(c)
                .await?;
            Ok(())
        }

        /// Events in their order.
        pub(super) async fn waiting(c: &mut $connection, limit: i64) -> Result<Vec<Event>, Error> {
            let sql = "SELECT sequence, event_id, body FROM intake_outbox ORDER BY sequence LIMIT $1";
            let rows: Vec<(i64, String, String)> = query_as(sql).bind(limit).fetch_all(c).await?;
            let event = |(sequence, id, body): (i64, String, String)| {
                let id = id.parse().map_err(|_| Error::Corrupt(format!("the id of event {sequence}")))?;
                Ok(Event { sequence, id, body })
            };
            rows.into_iter().map(event).collect()
        }

        /// How many wait.
        pub(super) async fn backlog(c: &mut $connection) -> Result<i64, Error> {
            Ok(query_scalar("SELECT count(*) FROM intake_outbox").fetch_one(c).await?)
        }

        /// Removes events.
        pub(super) async fn sent(c: &mut $connection, up_to: i64) -> Result<(), Error> {
            query("DELETE FROM intake_outbox WHERE sequence <= $1").bind(up_to).execute(c).await?;
            Ok(())
        }
    };
}

pub(super) use queries;
