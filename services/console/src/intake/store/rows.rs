//! Rows of either database and what they stand for.

use super::super::item::{Item, Status};
use super::values::Error;
use jiff::Timestamp;
use uuid::Uuid;

/// The columns of an item, in the order of [`Row`].
macro_rules! item_columns {
    () => {
        "id, text, problem, hypothesis, tags, owner, impact, status, job_id, created_by, created_at, updated_at, version"
    };
}
pub(super) use item_columns;

/// A row of items as both drivers read it.
pub(super) type Row = (
    String,
    String,
    Option<String>,
    Option<String>,
    String,
    String,
    Option<i64>,
    i64,
    Option<String>,
    String,
    i64,
    Option<i64>,
    i64,
);

/// The item of a row.
pub(super) fn item(row: Row) -> Result<Item, Error> {
    let (
        id,
        text,
        problem,
        hypothesis,
        tags,
        owner,
        impact,
        status,
        job_id,
        created_by,
        created_at,
        updated_at,
        version,
    ) = row;
    let corrupt = |what: &str| Error::Corrupt(format!("{what} of {id}"));
    let moment = |us: i64| Timestamp::from_microsecond(us).map_err(|_| corrupt("a time"));
    Ok(Item {
        id: id.parse().map_err(|_| corrupt("the id"))?,
        text,
        problem,
        hypothesis,
        tags: serde_json::from_str(&tags).map_err(|_| corrupt("the tags"))?,
        owner: (!owner.is_empty()).then_some(owner),
        impact,
        status: Status::from_number(status).ok_or_else(|| corrupt("the status"))?,
        job_id: job_id.map(|id| id.parse::<Uuid>()).transpose().map_err(|_| corrupt("the job"))?,
        created_by,
        created_at: moment(created_at)?,
        updated_at: updated_at.map(moment).transpose()?,
        version,
    })
}

/// Tags as they are stored.
pub(super) fn tags(item: &Item) -> String {
    serde_json::to_string(&item.tags).expect("strings are JSON")
}
