//! The two streams: who comes in, in which order that is checked, and what the first bytes are.
//!
//! Takes connections out of HTTP and hands them to the fan-out, with a place or with a refusal. A refusal
//! of a WebSocket comes behind the upgrade, because browsers show a close code and no status.

use crate::{
    access::{self, Access, SUBPROTOCOL},
    api::cors,
    event::{Channel, EventId, Sight, sequence},
    fanout::{Fanout, Join, Role},
    filter::Filter,
    live::{Live, StartRequest},
    metrics::REFUSED,
    origin::Foreign,
    slots::{LimitReached, Slots},
    ws::{self, code},
};
use agentforge_access::Scopes;
use agentforge_runtime::http::{ClientCertificate, PROBLEM_MEDIA_TYPE, Problem, Taken, Takeover};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};
use bytes::{Bytes, BytesMut};
use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

/// The path of server-sent events.
pub const SSE_PATH: &str = "/events/stream";
/// The path of the WebSocket.
pub const WS_PATH: &str = "/events/ws";

/// Where a client of SSE says what it has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// When a refused client may try again, seconds.
const RETRY_AFTER: u32 = 5;
/// Before an SSE client connects again, milliseconds; each gets its own, so that they do not arrive at once.
const RETRY_MS: std::ops::Range<u32> = 1000..3000;
/// The same for one that was refused.
const REFUSED_RETRY_MS: std::ops::Range<u32> = 4000..8000;

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No client certificate.
    Certificate,
    /// No valid token, or one that has to wait.
    Door(agentforge_door::Refusal),
    /// A parameter makes no sense.
    Parameter(String),
    /// All places are taken.
    LimitReached(LimitReached),
    /// The picture is not whole: the stream cannot be read.
    Unavailable,
    /// It asked for a WebSocket in a way that is none.
    Handshake(&'static str),
    /// A page, or a name of this port, that is somebody else's.
    Foreign(Foreign),
}

impl Refusal {
    /// A stable short name, also in the body.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Certificate => "client_cert_required",
            Self::Door(refusal) => access::in_words(refusal).1,
            Self::Parameter(_) => "invalid_argument",
            Self::LimitReached(LimitReached::All) => "too_many_clients",
            Self::LimitReached(LimitReached::Address) => "too_many_clients_ip",
            Self::Unavailable => "unavailable",
            Self::Handshake(_) => "upgrade_required",
            Self::Foreign(foreign) => foreign.code(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Certificate | Self::Foreign(_) => StatusCode::FORBIDDEN,
            Self::Door(refusal) => access::in_words(refusal).0,
            Self::Parameter(_) => StatusCode::BAD_REQUEST,
            Self::LimitReached(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Handshake(_) => StatusCode::UPGRADE_REQUIRED,
        }
    }

    fn close_code(&self) -> u16 {
        match self {
            Self::Certificate | Self::Foreign(_) => code::FORBIDDEN,
            Self::Door(_) => match self.status() {
                StatusCode::UNAUTHORIZED => code::UNAUTHORIZED,
                StatusCode::FORBIDDEN => code::FORBIDDEN,
                _ => code::TOO_MANY,
            },
            Self::Parameter(_) => code::BAD_REQUEST,
            Self::LimitReached(_) => code::TOO_MANY,
            Self::Unavailable => code::TRY_LATER,
            Self::Handshake(_) => code::PROTOCOL,
        }
    }

    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Certificate => "a client certificate is needed".into(),
            Self::Door(refusal) => access::in_words(refusal).2,
            Self::Parameter(problem) => problem.clone().into(),
            Self::LimitReached(LimitReached::All) => "all places are taken".into(),
            Self::LimitReached(LimitReached::Address) => "all places of this address are taken".into(),
            Self::Unavailable => "the stream cannot be read now".into(),
            Self::Handshake(problem) => (*problem).into(),
            Self::Foreign(foreign) => foreign.to_string().into(),
        }
    }

    fn headers(&self) -> String {
        match self {
            Self::Door(_) if self.status() == StatusCode::UNAUTHORIZED => "WWW-Authenticate: Bearer\r\n".to_owned(),
            Self::LimitReached(_) | Self::Unavailable => format!("Retry-After: {RETRY_AFTER}\r\n"),
            Self::Door(refusal) => match refusal.retry_after() {
                Some(wait) => format!("Retry-After: {}\r\n", wait.as_secs().max(1)),
                None => String::new(),
            },
            Self::Handshake(_) => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned(),
            Self::Certificate | Self::Parameter(_) | Self::Foreign(_) => String::new(),
        }
    }

    /// Whether it may be over in a while, so that asking again makes sense.
    fn passes(&self) -> bool {
        match self {
            Self::LimitReached(_) | Self::Unavailable => true,
            Self::Door(refusal) => refusal.retry_after().is_some(),
            _ => false,
        }
    }

    /// For a browser's EventSource, which takes every status but 200 as permanent: a stream that reports the reason and
    /// ends, after which it reconnects by itself.
    fn stream(&self, cors: &str) -> Bytes {
        let wait = if let Self::Door(refusal) = self { refusal.retry_after() } else { None };
        let wait = u32::try_from(wait.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u32::MAX);
        let retry = rand::random_range(REFUSED_RETRY_MS).saturating_add(wait);
        let data = serde_json::json!({"reason": self.code(), "detail": self.detail(), "retry_ms": retry});
        let mut answer = BytesMut::from(&*sse_head(cors, retry));
        answer.extend_from_slice(format!("event: {}\ndata: {data}\n\n", self.code()).as_bytes());
        answer.freeze()
    }

    /// As an answer of HTTP, head and body. `cors` are the headers for a page of another origin.
    fn answer(&self, cors: &str) -> Bytes {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = Problem::new(status, self.code(), self.detail()).to_json();
        format!(
            "HTTP/1.1 {} {title}\r\nContent-Type: {PROBLEM_MEDIA_TYPE}\r\nContent-Length: {}\r\n{COMMON_HEADERS}{cors}{}\r\n{body}",
            status.as_u16(),
            body.len(),
            self.headers(),
        )
        .into()
    }
}

/// On every answer. The connection is no longer HTTP's, so nothing follows.
const COMMON_HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n";

/// What both streams need. Clones share it.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

/// The outcome of the first checks, which have to be waited for.
#[derive(Clone)]
struct Known(Result<(Sight, Scopes), Refusal>);

struct Inner {
    access: Access,
    slots: Slots,
    live: Live,
    hub: Fanout,
}

impl Streams {
    /// Over these parts.
    pub fn new(access: Access, slots: Slots, live: Live, hub: Fanout) -> Self {
        Self(Arc::new(Inner { access, slots, live, hub }))
    }

    /// What a caller may see, or which of the first checks refuses it.
    async fn known(&self, head: &Parts, peer: SocketAddr) -> Result<(Sight, Scopes), Refusal> {
        let (access, headers) = (&self.0.access, &head.headers);
        let certificate = head.extensions.get::<ClientCertificate>().cloned().unwrap_or_default();
        if !access.has_certificate(peer, headers, certificate.is_there()) {
            return Err(Refusal::Certificate);
        }
        let is_foreign = access.page(peer, headers).is_err();
        access.sight(peer, headers, certificate.names(), is_foreign).await.map_err(Refusal::Door)
    }

    /// Checks in the order of the contract and takes a place.
    fn admit(&self, taken: &Taken, channel: Channel) -> Result<Role, Refusal> {
        let Inner { access, slots, live, .. } = &*self.0;
        let (headers, peer) = (&taken.head.headers, taken.peer);
        let Known(known) = taken.head.extensions.get().cloned().ok_or(Refusal::Certificate)?;
        let (sight, scopes) = known?;
        let named = access.page(peer, headers).and(access.is_named_for_reading(peer, headers));
        named.map_err(Refusal::Foreign)?;
        let (asked, filter) = asked(&taken.head).map_err(Refusal::Parameter)?;
        let filter = filter.within(scopes);
        let slot = slots.take(access.address(peer, headers), channel).map_err(Refusal::LimitReached)?;
        let (start, notice) = live.start(asked).ok_or(Refusal::Unavailable)?;
        Ok(Role::Client { slot, filter, sight, start, notice, unread: taken.unread.clone() })
    }
}

impl Takeover for Streams {
    fn wants(&self, head: &Parts) -> bool {
        let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
            || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        head.method == Method::GET && !has_body && channel_of(head.uri.path()).is_some()
    }

    async fn prepare(&self, head: &mut Parts, peer: SocketAddr) {
        let known = self.known(head, peer).await;
        head.extensions.insert(Known(known));
    }

    fn take(&self, taken: Taken) {
        let Some(channel) = channel_of(taken.head.uri.path()) else { return };
        let page = self.0.access.page(taken.peer, &taken.head.headers);
        let cors = cors::of_stream(page.ok().flatten(), self.0.access.allowed_origins.is_empty());
        let refuse = |refusal: &Refusal| REFUSED.inc(&[channel.as_str(), refusal.code()]);
        let upgrade = match channel {
            Channel::Ws => match handshake(&taken.head.headers) {
                Ok(answer) => Some(answer),
                Err(problem) => {
                    let refusal = Refusal::Handshake(problem);
                    refuse(&refusal);
                    let join =
                        Join { socket: taken.socket, channel, greeting: refusal.answer(&cors), role: Role::Refused };
                    return self.0.hub.join(join);
                }
            },
            Channel::Sse => None,
        };
        let (greeting, role) = match (self.admit(&taken, channel), upgrade) {
            (Ok(role), None) => (sse_head(&cors, rand::random_range(RETRY_MS)), role),
            (Ok(role), Some(upgrade)) => (upgrade.into(), role),
            (Err(refusal), None) => {
                refuse(&refusal);
                let is_eventsource = refusal.passes() && takes_events(&taken.head.headers);
                (if is_eventsource { refusal.stream(&cors) } else { refusal.answer(&cors) }, Role::Refused)
            }
            (Err(refusal), Some(upgrade)) => {
                refuse(&refusal);
                let mut answer = BytesMut::from(upgrade.as_bytes());
                let reason = format!("{}: {}", refusal.code(), refusal.detail());
                answer.extend_from_slice(&ws::close(refusal.close_code(), &reason));
                (answer.freeze(), Role::Refused)
            }
        };
        self.0.hub.join(Join { socket: taken.socket, channel, greeting, role });
    }
}

fn channel_of(path: &str) -> Option<Channel> {
    match path {
        SSE_PATH => Some(Channel::Sse),
        WS_PATH => Some(Channel::Ws),
        _ => None,
    }
}

/// Whether a caller says that it reads server-sent events, as every EventSource does.
fn takes_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// The body ends with the connection, so that every frame is the same bytes for everybody.
fn sse_head(cors: &str, retry: u32) -> Bytes {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n{COMMON_HEADERS}{cors}\r\nretry: {retry}\n\n"
    );
    head.into()
}

/// The answer to a WebSocket's request.
fn handshake(headers: &HeaderMap) -> Result<String, &'static str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err("this path speaks WebSocket: send Upgrade: websocket");
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err("WebSocket version 13 is spoken here");
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    // 16 bytes in base64.
    if key.len() != 24 {
        return Err("Sec-WebSocket-Key is missing or wrong");
    }
    let protocol = if access::offers_subprotocol(headers) {
        format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n")
    } else {
        String::new()
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        ws::accept_of(key),
    ))
}

/// What a client wants to see, and from where.
fn asked(head: &Parts) -> Result<(StartRequest, Filter), String> {
    let query = head.uri.query().unwrap_or_default();
    let parameters: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let filter = Filter::parse(parameters.iter().map(|(k, v)| (&**k, &**v))).map_err(|fault| fault.to_string())?;
    let find = |name: &str| parameters.iter().find(|(k, _)| k == name).map(|(_, v)| &**v).filter(|v| !v.is_empty());
    let last_id = head.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let asked = match (last_id, find("since")) {
        // An id of somebody else's: this client has nothing of ours, and a browser cannot forget it.
        (Some(id), _) => id.to_str().ok().and_then(EventId::parse).map_or(StartRequest::Unknown, StartRequest::Id),
        (None, Some(since)) => since_of(since).ok_or("since: takes an id, a sequence or an RFC 3339 time")?,
        (None, None) => match find("snapshot").map(agentforge_config::truth) {
            None | Some(Ok(false)) => StartRequest::Live,
            Some(Ok(true)) => StartRequest::Snapshot,
            Some(Err(_)) => return Err("snapshot: takes true or false".to_owned()),
        },
    };
    Ok((asked, filter))
}

fn since_of(since: &str) -> Option<StartRequest> {
    if let Some(seq) = sequence(since) {
        return Some(StartRequest::Seq(seq));
    }
    if let Some(id) = EventId::parse(since) {
        return Some(StartRequest::Id(id));
    }
    since.parse::<jiff::Timestamp>().ok().map(|moment| StartRequest::Since(moment.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Epoch;
    use axum::http::Request;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = headers.iter().fold(Request::get(uri), |b, (k, v)| b.header(*k, *v));
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn where_a_client_begins() {
        let id = |seq| StartRequest::Id(EventId::bare(&Epoch::of(1_000), seq));
        for (uri, last, expected) in [
            ("/events/stream", None, StartRequest::Live),
            ("/events/stream?snapshot=true", None, StartRequest::Snapshot),
            ("/events/stream?snapshot=0", None, StartRequest::Live),
            ("/events/stream?snapshot=true", Some("1-7"), id(7)),
            ("/events/stream?since=1-7", None, id(7)),
            ("/events/stream?since=5", Some("1-7"), id(7)),
            ("/events/stream?snapshot=true", Some("nonsense"), StartRequest::Unknown),
            ("/events/stream", Some("5"), StartRequest::Unknown),
            ("/events/stream", Some("2026-01-01T00:00:00Z"), StartRequest::Unknown),
            ("/events/stream", Some("1-7\u{e9}"), StartRequest::Unknown),
            ("/events/stream", Some("1-99999999999999999999999"), StartRequest::Unknown),
            // There is no sequence behind it.
            ("/events/stream", Some("1-18446744073709551615"), StartRequest::Unknown),
            ("/events/stream?since=42", None, StartRequest::Seq(42)),
            ("/events/stream?since=2026-01-01T00:00:00Z", None, StartRequest::Since(1_767_225_600_000)),
            ("/events/stream?since=2026-01-01T01:00:00%2B01:00", None, StartRequest::Since(1_767_225_600_000)),
        ] {
            let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
            assert_eq!(asked(&head(uri, &headers)).unwrap().0, expected, "{uri} {last:?}");
        }
        for (uri, last) in [
            ("/x?since=yesterday", None),
            ("/x?since=18446744073709551615", None),
            ("/x?snapshot=maybe", None),
            ("/x?bbox=1,2", None),
            ("/x?kind=tree", None),
            ("/x?since=%2B5", None),
            ("/x?since=1-18446744073709551615", None),
        ] {
            let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
            assert!(asked(&head(uri, &headers)).is_err(), "{uri} {last:?}");
        }
    }

    #[test]
    fn only_a_whole_handshake_is_one() {
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = handshake(&head("/", &good).headers).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(!answer.contains("Protocol:"), "{answer}");
        for missing in 0..good.len() {
            let mut headers = good.to_vec();
            headers.remove(missing);
            assert!(handshake(&head("/", &headers).headers).is_err(), "{missing}");
        }
        let offered = [&good[..], &[("sec-websocket-protocol", "agentforge.v1, bearer.secret")]].concat();
        let answer = handshake(&head("/", &offered).headers).unwrap();
        assert!(answer.contains("Sec-WebSocket-Protocol: agentforge.v1\r\n") && !answer.contains("secret"), "{answer}");
    }
}
