//! Publishing markers and zones, removing them, and what was refused lately.

use super::{Api, problem::Problem};
use crate::{
    event::{EventId, Mark},
    feature::Kind,
    history,
    sanitise::{Rejection, is_name, sanitise},
};
use agentforge_jetstream::{HeaderMap as NatsHeaders, publish, subjects};
use agentforge_message_id::MsgId;
use axum::{
    Json,
    extract::{
        ConnectInfo, Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// How long a publisher waits for the moment of storage.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Longest Idempotency-Key.
const KEY_MAX: usize = 128;
/// A message that removes.
pub const REMOVED: &[u8] = br#"{"removed":true}"#;

type Published = Result<(StatusCode, Json<Value>), Problem>;
/// In order of importance: a caller that may not publish gets that error first.
type GivenBody = Result<Bytes, BytesRejection>;
type GivenId = Result<Path<String>, PathRejection>;
type GivenAt = Result<Query<At>, QueryRejection>;

/// The parts of a body that say where it goes.
#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    site: Option<String>,
}

/// The site of what is removed.
#[derive(Deserialize)]
pub struct At {
    site: Option<String>,
}

/// `POST /v1/markers`
pub async fn marker(State(api): State<Arc<Api>>, headers: HeaderMap, body: GivenBody) -> Published {
    state(&api, Kind::Marker, &headers, body).await
}

/// `POST /v1/zones`
pub async fn zone(State(api): State<Arc<Api>>, headers: HeaderMap, body: GivenBody) -> Published {
    state(&api, Kind::Zone, &headers, body).await
}

/// `DELETE /v1/markers/{id}?site=`
pub async fn remove_marker(State(api): State<Arc<Api>>, id: GivenId, at: GivenAt, headers: HeaderMap) -> Published {
    remove(&api, Kind::Marker, id, at, &headers).await
}

/// `DELETE /v1/zones/{id}?site=`
pub async fn remove_zone(State(api): State<Arc<Api>>, id: GivenId, at: GivenAt, headers: HeaderMap) -> Published {
    remove(&api, Kind::Zone, id, at, &headers).await
}

/// `GET /v1/rejected`
pub async fn rejected(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let is_foreign = api.access.page(peer, &headers).is_err();
    let may_read = api.access.read_tokens.is_some() && api.access.may_read(&headers, is_foreign);
    if !may_read && !api.access.may_publish(&headers) {
        return Err(Problem::unauthorized());
    }
    Ok(Json(json!({ "rejected": api.live.refused() })))
}

async fn state(api: &Api, kind: Kind, headers: &HeaderMap, body: GivenBody) -> Published {
    if !api.access.may_publish(headers) {
        return Err(Problem::unauthorized());
    }
    let body = body.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "too_large", Rejection::TooLarge.to_string()),
        _ => invalid(rejection.body_text()),
    })?;
    // A page of another origin can send text, but not JSON, without asking first.
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|m| m.trim().eq_ignore_ascii_case("application/json")) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", "the body is sent as application/json"));
    }
    let named: Named = serde_json::from_slice(&body)
        .map_err(|e| invalid(format!("the body is not an object with strings as id and site: {e}")))?;
    let id = named.id.unwrap_or_else(|| Uuid::now_v7().to_string());
    let site = named.site.unwrap_or_else(|| api.site.clone());
    let subject = subject(kind, &site, &id)?;
    sanitise(&subject, &body, jiff::Timestamp::now()).map_err(|reason| match reason {
        Rejection::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason.to_string()),
        reason => invalid(reason.to_string()),
    })?;
    send(api, kind, &site, &id, subject, headers, body, StatusCode::CREATED).await
}

async fn remove(api: &Api, kind: Kind, id: GivenId, at: GivenAt, headers: &HeaderMap) -> Published {
    if !api.access.may_publish(headers) {
        return Err(Problem::unauthorized());
    }
    let Path(id) = id.map_err(|rejection| invalid(rejection.body_text()))?;
    let Query(at) = at.map_err(|rejection| invalid(rejection.body_text()))?;
    let site = at.site.unwrap_or_else(|| api.site.clone());
    let subject = subject(kind, &site, &id)?;
    send(api, kind, &site, &id, subject, headers, Bytes::from_static(REMOVED), StatusCode::OK).await
}

fn subject(kind: Kind, site: &str, id: &str) -> Result<String, Problem> {
    if !is_name(site) || !is_name(id) {
        return Err(invalid("id and site are 1 to 128 printable characters".to_owned()));
    }
    Ok(match kind {
        Kind::Marker => subjects::tactical_marker(site, id),
        Kind::Zone => subjects::tactical_zone(site, id),
    })
}

/// The answer to a publisher.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    site: &'a str,
    kind: &'static str,
    event_id: String,
    duplicate: bool,
}

#[expect(clippy::too_many_arguments, reason = "one step of two callers; a struct would only rename them")]
async fn send(
    api: &Api,
    kind: Kind,
    site: &str,
    id: &str,
    subject: String,
    headers: &HeaderMap,
    body: Bytes,
    status: StatusCode,
) -> Published {
    let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok());
    let msg_id = match key {
        Some(key) if !key.is_empty() && key.len() <= KEY_MAX => MsgId::tactical(&format!("{subject}:{key}")),
        Some(_) => return Err(invalid(format!("Idempotency-Key has 1 to {KEY_MAX} characters"))),
        None => MsgId::tactical(&Uuid::now_v7().to_string()),
    };
    let ack = publish(&api.nats, subject, msg_id, NatsHeaders::new(), body).await.map_err(|error| match error {
        publish::Error::TooLarge { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "more than a message of this server may have")
        }
        error => {
            tracing::warn!(%error, "a marker or zone was not published");
            Problem::unavailable("the stream did not take it; it is safe to try again")
        }
    })?;
    let event_id = event_id(api, ack.seq).await;
    let answer = Answer { id, site, kind: kind.as_str(), event_id, duplicate: ack.duplicate };
    Ok((status, Json(json!(answer))))
}

/// The id under which the stream reports it. The acknowledgement does not contain the time of storage, so that is
/// looked up; without it the id is valid too.
async fn event_id(api: &Api, seq: u64) -> String {
    let Some(epoch) = api.live.epoch() else { return seq.to_string() };
    let look = history::mark(&api.nats, subjects::STREAM_TACTICAL, subjects::TACTICAL_FILTER, seq);
    let mark = timeout(LOOK_MAX, look).await.ok().and_then(Result::ok).unwrap_or(Mark::bare(seq));
    EventId { epoch, mark }.to_string()
}

fn invalid(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", detail)
}
