//! What goes out on `todos.events`. Pure: an item and what happened in, bytes out.

use super::item::Item;
use agentforge_message_id::MsgId;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// Where events go.
pub const SUBJECT: &str = "todos.events";

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It was changed.
    Updated,
    /// It is gone.
    Deleted,
}

/// The message. The first six fields are those of the todo application; the others identify copies and show the order.
#[derive(Serialize)]
struct Message<'a> {
    id: Uuid,
    text: &'a str,
    status: &'static str,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    action: Action,
    event_id: Uuid,
    sequence: i64,
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place: in the order of the commits, without gaps.
    pub sequence: i64,
    /// The same in every copy of it.
    pub id: Uuid,
    /// The message.
    pub body: String,
}

impl Event {
    /// What is said of `item`, as it is after the change, or was before it was deleted.
    pub fn new(item: &Item, action: Action, sequence: i64) -> Self {
        let id = Uuid::now_v7();
        let message = Message {
            id: item.id,
            text: &item.text,
            status: item.status.todo(),
            created_at: item.created_at,
            updated_at: item.updated_at,
            action,
            event_id: id,
            sequence,
        };
        let body = serde_json::to_string(&message).expect("strings, numbers and times are JSON");
        Self { sequence, id, body }
    }

    /// The id by which the stream knows a copy.
    pub fn message_id(&self) -> MsgId {
        MsgId::outbox(&format!("todo:{}", self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::NewItem;
    use super::*;

    #[test]
    fn the_message_is_the_flat_object_that_receivers_know() {
        let item = NewItem { text: "tea".into(), ..NewItem::default() };
        let item = item.into_item("ada", "2026-12-01T10:00:00Z".parse().unwrap()).unwrap();
        let event = Event::new(&item, Action::Created, 7);
        let expected = serde_json::json!({
            "id": item.id, "text": "tea", "status": "not-done", "created_at": "2026-12-01T10:00:00Z",
            "updated_at": null, "action": "created", "event_id": event.id, "sequence": 7,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&event.body).unwrap(), expected);
        assert_eq!(event.message_id().as_str(), format!("todo:{}", event.id));
    }
}
