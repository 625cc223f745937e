//! Publishing markers and zones, removing them, and what was refused lately.

use super::{
    problem::{problem, unavailable},
    shapes::{MarkerRequest, ZoneRequest},
    state::Api,
};
use crate::{
    event::{EventId, Mark},
    feature::Kind,
    history,
    live::Refused,
    sanitise::{Change, Rejection, is_name, sanitise},
};
use agentforge_access::Principal;
use agentforge_jetstream::{HeaderMap as NatsHeaders, publish, subjects};
use agentforge_message_id::MsgId;
use agentforge_runtime::http::Problem;
use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How long a publisher waits for the moment of storage.
const LOOKUP_MAX: Duration = Duration::from_secs(1);
/// The longest Idempotency-Key, in characters.
const KEY_MAX: usize = 128;
/// A message that removes.
pub const REMOVED: &[u8] = br#"{"removed":true}"#;

type Published = Result<(StatusCode, Json<Value>), Problem>;
type Caller = Extension<Principal>;
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
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct At {
    /// Its site; the server's own, when it is not said.
    site: Option<String>,
}

/// Publish a marker
///
/// Replaces the state of the marker with this id and site.
#[utoipa::path(
    post, path = "/v1/markers", tag = "Publishing",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 characters: the same key is published once")),
    request_body = MarkerRequest,
    responses((status = 201, description = "Stored, and under which id the stream sends it", body = Answer))
)]
pub async fn marker(
    State(api): State<Arc<Api>>,
    Extension(publisher): Caller,
    headers: HeaderMap,
    body: GivenBody,
) -> Published {
    state(&api, &publisher, Kind::Marker, &headers, body).await
}

/// Publish a zone
///
/// Replaces the state of the zone with this id and site. It is closed, wound and cut at the antimeridian.
#[utoipa::path(
    post, path = "/v1/zones", tag = "Publishing",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 characters: the same key is published once")),
    request_body = ZoneRequest,
    responses((status = 201, description = "Stored, and under which id the stream sends it", body = Answer))
)]
pub async fn zone(
    State(api): State<Arc<Api>>,
    Extension(publisher): Caller,
    headers: HeaderMap,
    body: GivenBody,
) -> Published {
    state(&api, &publisher, Kind::Zone, &headers, body).await
}

/// Remove a marker
///
/// Clients get `remove`; a later state brings it back.
#[utoipa::path(
    delete, path = "/v1/markers/{id}", tag = "Publishing",
    params(("id" = String, Path, description = "Its id"), At),
    responses((status = 200, description = "Stored", body = Answer))
)]
pub async fn remove_marker(
    State(api): State<Arc<Api>>,
    Extension(publisher): Caller,
    id: GivenId,
    at: GivenAt,
    headers: HeaderMap,
) -> Published {
    remove(&api, &publisher, Kind::Marker, id, at, &headers).await
}

/// Remove a zone
///
/// Clients get `remove`; a later state brings it back.
#[utoipa::path(
    delete, path = "/v1/zones/{id}", tag = "Publishing",
    params(("id" = String, Path, description = "Its id"), At),
    responses((status = 200, description = "Stored", body = Answer))
)]
pub async fn remove_zone(
    State(api): State<Arc<Api>>,
    Extension(publisher): Caller,
    id: GivenId,
    at: GivenAt,
    headers: HeaderMap,
) -> Published {
    remove(&api, &publisher, Kind::Zone, id, at, &headers).await
}

/// What was refused lately
///
/// Messages of the stream that changed nothing, and why.
#[utoipa::path(
    get, path = "/v1/rejected", tag = "Publishing",
    responses((status = 200, description = "The last of them", body = Rejected))
)]
pub async fn rejected(State(api): State<Arc<Api>>, Extension(caller): Caller) -> Result<Json<Rejected>, Problem> {
    // What was refused may be of any site.
    if !caller.scopes.is_all() {
        return Err(outside("every site"));
    }
    Ok(Json(Rejected { rejected: api.live.refused() }))
}

async fn state(api: &Api, publisher: &Principal, kind: Kind, headers: &HeaderMap, body: GivenBody) -> Published {
    let body = body.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => problem(status, "too_large", Rejection::TooLarge.to_string()),
        _ => invalid(rejection.body_text()),
    })?;
    // A page of another origin can send text, but not JSON, without asking first.
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|m| m.trim().eq_ignore_ascii_case("application/json")) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(problem(status, "unsupported_media_type", "the body is sent as application/json"));
    }
    let named: Named = serde_json::from_slice(&body)
        .map_err(|e| invalid(format!("the body is not an object with strings as id and site: {e}")))?;
    let id = named.id.unwrap_or_else(|| Uuid::now_v7().to_string());
    let site = named.site.unwrap_or_else(|| api.site.clone());
    if !publisher.scopes.has_site(&site) {
        return Err(outside(&site));
    }
    let subject = subject(kind, &site, &id)?;
    let change = sanitise(&subject, &body, jiff::Timestamp::now()).map_err(|reason| match reason {
        Rejection::TooLarge => problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason.to_string()),
        reason => invalid(reason.to_string()),
    })?;
    if matches!(&change, Change::State(feature) if feature.names_foreign_evidence) {
        return Err(invalid(format!(
            "evidence_id names evidence of another site than {site}, the site of this {}",
            kind.as_str()
        )));
    }
    send(api, kind, &site, &id, subject, headers, body, StatusCode::CREATED).await
}

async fn remove(
    api: &Api,
    publisher: &Principal,
    kind: Kind,
    id: GivenId,
    at: GivenAt,
    headers: &HeaderMap,
) -> Published {
    let Path(id) = id.map_err(|rejection| invalid(rejection.body_text()))?;
    let Query(at) = at.map_err(|rejection| invalid(rejection.body_text()))?;
    let site = at.site.unwrap_or_else(|| api.site.clone());
    if !publisher.scopes.has_site(&site) {
        return Err(outside(&site));
    }
    let subject = subject(kind, &site, &id)?;
    send(api, kind, &site, &id, subject, headers, Bytes::from_static(REMOVED), StatusCode::OK).await
}

/// The refusal of a site that the caller's token is not for.
fn outside(site: &str) -> Problem {
    problem(StatusCode::FORBIDDEN, "permission_denied", format!("the token's scopes do not include {site}"))
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

/// What a publisher gets.
#[derive(Serialize, ToSchema)]
pub struct Answer<'a> {
    /// The id, made where none was given.
    id: &'a str,
    /// The site that the thing belongs to now; part of its name.
    site: &'a str,
    /// marker or zone.
    kind: &'static str,
    /// The id of the event in the streams.
    event_id: String,
    /// The same Idempotency-Key was published before; nothing changed.
    duplicate: bool,
}

/// Messages that were refused.
#[derive(Serialize, ToSchema)]
pub struct Rejected {
    /// The last of them.
    rejected: Vec<Refused>,
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
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "more than a message of this server may have")
        }
        error => {
            tracing::warn!(%error, "a marker or zone was not published");
            unavailable("the stream did not take it; it is safe to try again")
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
    let lookup = history::mark(&api.nats, subjects::STREAM_TACTICAL, subjects::TACTICAL_FILTER, seq);
    let mark = timeout(LOOKUP_MAX, lookup).await.ok().and_then(Result::ok).unwrap_or(Mark::bare(seq));
    EventId { epoch, mark }.to_string()
}

fn invalid(detail: String) -> Problem {
    problem(StatusCode::BAD_REQUEST, "invalid_argument", detail)
}
