//! The OpenAPI 3.1 document of this API, made of what the handlers say of themselves.
//!
//! Streams take their connection over before any route, so they are described here.

use super::{evidence, publish};
use agentforge_runtime::http::{ProblemBody, complete_openapi};
use serde_json::json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "agentforge tactical API",
        description = "Publish markers and zones, follow the live picture as GeoJSON, and open signed links to \
            evidence. Every refusal is a problem (RFC 9457) with a stable code."
    ),
    tags(
        (name = "Publishing", description = "Markers and zones: published as a whole, replaced by the next state, removed."),
        (name = "Streams", description = "The live picture, from a snapshot on or behind an event that was seen."),
        (name = "Evidence", description = "Files that edge sites delivered, behind signed links."),
    ),
    paths(
        publish::marker,
        publish::zone,
        publish::remove_marker,
        publish::remove_zone,
        publish::rejected,
        evidence::get,
        server_sent_events,
        web_socket,
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// The document as JSON text.
pub fn openapi_json() -> String {
    let token =
        "TACTICAL_PUBLISH_TOKEN for publishing; one of TACTICAL_READ_TOKENS for streams, where they ask for one";
    let mut doc = complete_openapi(&Document::openapi(), env!("CARGO_PKG_VERSION"), token);
    for (path, method) in [
        ("/v1/markers", "post"),
        ("/v1/zones", "post"),
        ("/v1/markers/{id}", "delete"),
        ("/v1/zones/{id}", "delete"),
        ("/v1/rejected", "get"),
        ("/events/stream", "get"),
        ("/events/ws", "get"),
    ] {
        doc["paths"][path][method]["security"] = json!([{"token": []}]);
    }
    doc.to_string()
}

/// Follow the picture as server-sent events
///
/// Begins with a snapshot, or behind `Last-Event-ID`. A `gap` says what was skipped.
#[utoipa::path(
    get, path = "/events/stream", tag = "Streams",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
        ("since" = Option<String>, Query, description = "An id, a sequence or an RFC 3339 time to begin behind"),
        ("snapshot" = Option<bool>, Query, description = "Begin with the newest state of everything"),
        ("bbox" = Option<String>, Query, description = "west,south,east,north in degrees"),
        ("severity" = Option<String>, Query, description = "Comma-separated list"),
        ("site" = Option<String>, Query, description = "Comma-separated list"),
        ("kind" = Option<String>, Query, description = "marker, zone or both, comma-separated"),
    ),
    responses((status = 200, description = "Events, for as long as the client stays", content_type = "text/event-stream", body = String))
)]
#[expect(dead_code, reason = "the stream takes its connection over before any route")]
fn server_sent_events() {}

/// Follow the picture over a WebSocket
///
/// The same events as JSON messages; a client may send a filter.
#[utoipa::path(
    get, path = "/events/ws", tag = "Streams",
    responses((status = 101, description = "The subprotocol agentforge.v1"))
)]
#[expect(dead_code, reason = "the stream takes its connection over before any route")]
fn web_socket() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feature::Kind,
        sanitise::sanitise,
        stream::{SSE_PATH, WS_PATH},
    };
    use serde_json::Value;

    fn document() -> Value {
        serde_json::from_str(&openapi_json()).unwrap()
    }

    #[test]
    fn every_route_is_described_and_may_be_refused() {
        let doc = document();
        assert_eq!(doc["openapi"], "3.1.0");
        let paths = doc["paths"].as_object().unwrap();
        for path in ["/v1/markers", "/v1/zones/{id}", "/v1/rejected", "/v1/evidence/{token}", SSE_PATH, WS_PATH] {
            assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys());
        }
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                let refusal = &operation["responses"]["default"]["$ref"];
                assert_eq!(refusal, "#/components/responses/Problem", "{method} {path}");
                assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
            }
        }
        assert!(doc["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
    }

    #[test]
    fn what_the_shapes_name_is_what_is_read() {
        let now = jiff::Timestamp::now();
        let common = r#""title":"t","description":"d","severity":"high","observed_at":"2026-01-31T12:00:00Z","expires_at":"2999-01-31T12:00:00Z","evidence_id":"a""#;
        let marker = format!(r#"{{{common},"coordinates":[13.4,52.5]}}"#);
        let zone = format!(r#"{{{common},"polygon":[[13,52],[14,52],[14,53],[13,52]]}}"#);
        for (kind, body, schema) in [(Kind::Marker, marker, "MarkerRequest"), (Kind::Zone, zone, "ZoneRequest")] {
            let subject = format!("tactical.{}s.a.b", kind.as_str());
            sanitise(&subject, body.as_bytes(), now).unwrap_or_else(|e| panic!("{schema}: {e}"));
            let sent: Value = serde_json::from_str(&body).unwrap();
            let described = document()["components"]["schemas"][schema].to_string()
                + &document()["components"]["schemas"]["Described"].to_string();
            for field in sent.as_object().unwrap().keys() {
                assert!(described.contains(&format!("\"{field}\"")), "{schema} does not name {field}");
            }
        }
    }
}
