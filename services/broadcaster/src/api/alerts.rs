//! The intake of Alertmanager's alerts, which become events.

use super::{app::Api, problem::Problem};
use crate::{error::chain, metrics::ALERTS, payload::alerts};
use agentforge_jetstream::{HeaderMap, publish};
use agentforge_message_id::MsgId;
use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Publishes each alert of the body.
pub(super) async fn take(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let events = alerts::events(&body, jiff::Timestamp::now()).map_err(Problem::invalid)?;
    let nats = &api.registry.context().nats;
    if !nats.is_connected() {
        return Err(Problem::away("NATS is away; nothing was published"));
    }
    let mut published = 0;
    for event in events {
        let id = MsgId::outbox(&event.id);
        let sent = publish::publish(nats, event.subject, id, HeaderMap::new(), event.body.into()).await;
        sent.map_err(|e| Problem::away(format!("{published} alerts were published, then: {}", chain(&e))))?;
        published += 1;
    }
    ALERTS.add(&[], published);
    Ok(Json(json!({ "published": published })).into_response())
}
