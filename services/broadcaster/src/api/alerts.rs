//! The intake of Alertmanager's alerts, which become events.

use super::{
    app::Api,
    problem::{Problem, invalid, unavailable},
};
use crate::{error::chain, metrics::ALERTS, payload::alerts};
use agentforge_jetstream::{HeaderMap, publish};
use agentforge_message_id::MsgId;
use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// How many alerts were published as events.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// One for each alert of the call.
    published: u64,
}

/// Take alerts of Alertmanager
///
/// Each becomes an event.
#[utoipa::path(
    post, path = "/v1/alerts", tag = "Alerts",
    request_body = alerts::Call,
    responses((status = 200, description = "How many", body = Published))
)]
pub(super) async fn take(State(api): State<Api>, body: Bytes) -> Result<Response, Problem> {
    let events = alerts::events(&body, jiff::Timestamp::now()).map_err(invalid)?;
    let nats = &api.registry.context().nats;
    if !nats.is_connected() {
        return Err(unavailable("NATS is unavailable; nothing was published"));
    }
    let mut published = 0;
    for event in events {
        let id = MsgId::outbox(&event.id);
        let sent = publish::publish(nats, event.subject, id, HeaderMap::new(), event.body.into()).await;
        sent.map_err(|e| unavailable(format!("{published} alerts were published, then: {}", chain(&e))))?;
        published += 1;
    }
    ALERTS.add(&[], published);
    Ok(Json(Published { published }).into_response())
}
