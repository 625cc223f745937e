//! Messages that were put aside, as JSON has them.

use super::Moment;
use crate::error::Error;
use crate::store::{PARKED_MAX, Parked};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A message that NATS can never take as it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedMessage)]
pub struct ParkedView {
    /// Its number.
    id: i64,
    /// The subject that it was for.
    subject: String,
    /// Its Nats-Msg-Id.
    msg_id: String,
    /// Size of its payload.
    bytes: u64,
    /// too_large or refused.
    code: String,
    /// Why, in words.
    reason: String,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// When it was put aside.
    #[schema(value_type = String, format = DateTime)]
    parked_at: Moment,
}

impl From<Parked> for ParkedView {
    fn from(p: Parked) -> Self {
        Self {
            id: p.seq,
            subject: p.subject,
            msg_id: p.msg_id,
            bytes: p.bytes,
            code: p.code,
            reason: p.reason,
            created_at: p.created_at.into(),
            parked_at: p.parked_at.into(),
        }
    }
}

/// A page of messages that were put aside.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedMessageList)]
pub struct ParkedList {
    /// The messages.
    pub(crate) messages: Vec<ParkedView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// Which messages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedMessagesRequest, example = json!({"ids": [1, 2]}))]
pub struct ParkedBody {
    /// These; at most 1000.
    #[serde(default)]
    #[schema(max_items = 1000)]
    ids: Vec<i64>,
    /// `true`: all of them.
    #[serde(default)]
    all: bool,
}

impl ParkedBody {
    /// The numbers; `None` stands for all.
    pub(crate) fn which(self) -> Result<Option<Vec<i64>>, Error> {
        match (self.ids.len(), self.all) {
            (0, true) => Ok(None),
            (0, false) => Err(Error::field("ids", "name the messages in ids, or send all: true")),
            (_, true) => Err(Error::field("all", "send either ids or all: true")),
            (n, false) if n > PARKED_MAX.unsigned_abs() as usize => {
                Err(Error::field("ids", format!("{n} ids were given; at most {PARKED_MAX} are allowed")))
            }
            (_, false) => Ok(Some(self.ids)),
        }
    }
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedMessagesAnswer)]
pub struct ParkedAnswer {
    /// How many messages there were.
    pub(crate) messages: u64,
}
