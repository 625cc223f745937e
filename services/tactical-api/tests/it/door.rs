//! Who comes in, and who has to wait: JSON Web Tokens of a real OpenID provider, rates, and pauses after failed logins, on
//! the streams and on the API.

use crate::support::{Api, SOON, Sse, World, Ws, request};
use agentforge_harness::{OidcProvider, eventually, require};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";
const READER: &str = "reader-0123456789abcdef";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

async fn publish(world: &World, token: &str) -> (u16, String) {
    let body = json!({"id": "a", "title": "t", "coordinates": [0, 0]}).to_string();
    let (status, _, answer) = request(world.api.address(), "POST", "/v1/markers", &[&bearer(token), JSON], &body).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    (status, answer["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_read_and_publish_by_the_roles_of_their_groups() {
    let (Some(()), Some(())) = (require("nats-server"), require("oidc-provider")) else { return };
    let mut provider = OidcProvider::start().await;
    let world = World::start(&[
        ("TACTICAL_REQUIRE_BEARER", "on"),
        ("ACCESS_ISSUERS", provider.issuer()),
        ("ACCESS_AUDIENCE", "urn:agentforge"),
        ("ACCESS_ROLES", "af-operators=operator,af-viewers=viewer"),
        ("ACCESS_LOCKOUT_AFTER", "0"),
    ])
    .await;
    let address = world.api.address();
    let (operator, viewer) = (provider.program_token("operators"), provider.program_token("viewers"));
    // The first of them waits for the keys, if they are not there yet; each way of a token is one for these, too.
    let mut sse = Sse::open(address, "/events/stream", &[&bearer(&viewer)]).await;
    assert_eq!(sse.status, 200);
    assert_eq!(
        Sse::open(address, "/events/stream", &[&format!("Cookie: agentforge_token={viewer}")]).await.status,
        200
    );
    let protocols = format!("agentforge.v1, bearer.{viewer}");
    let mut ws = Ws::open(address, "/events/ws?snapshot=true", &[("sec-websocket-protocol", &protocols)]).await;
    assert_eq!(publish(&world, &operator).await, (201, String::new()));
    assert_eq!(sse.next().await.unwrap().title(), "t");
    assert_eq!(ws.next().await.unwrap().title(), "t");
    let (status, detail) = publish(&world, &viewer).await;
    assert!(
        status == 403 && detail.contains("viewers@127.0.0.1:") && detail.contains("has the role viewer"),
        "{detail}"
    );

    for (client, status, code, close, words) in [
        ("strangers", 403, "permission_denied", 4403, "ACCESS_ROLES"),
        ("elsewhere", 401, "unauthorized", 4401, "audience"),
    ] {
        let token = provider.program_token(client);
        let refused = Sse::open(address, "/events/stream", &[&bearer(&token)]).await;
        assert_eq!((refused.status, refused.headers.contains_key("www-authenticate")), (status, status == 401));
        let problem = refused.body().await;
        assert!(problem["code"] == code && problem["detail"].as_str().unwrap().contains(words), "{problem}");
        let mut ws = Ws::open(address, "/events/ws", &[("authorization", &bearer(&token)[15..])]).await;
        let (found, reason) = ws.close().await;
        assert_eq!((found, reason.starts_with(code)), (close, true), "{client}: {reason}");
        assert_eq!(publish(&world, &token).await.0, status, "{client}");
    }
    // A key that is not known is asked for while a stream waits.
    provider.rotate().await;
    let next = provider.program_token("viewers");
    eventually(SOON, "the new key is fetched", || async {
        Sse::open(address, "/events/stream", &[&bearer(&next)]).await.status == 200
    })
    .await;
    assert_eq!(Sse::open(address, "/events/stream", &[&bearer(&viewer)]).await.status, 401, "the old key is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_failed_logins_an_address_waits_on_every_surface() {
    let Some(()) = require("nats-server") else { return };
    let world = World::start(&[
        ("TACTICAL_REQUIRE_BEARER", "on"),
        ("TACTICAL_READ_TOKENS", READER),
        ("TACTICAL_PUBLISH_TOKEN", "publisher-0123456789abcdef"),
        ("TACTICAL_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("ACCESS_LOCKOUT_AFTER", "3"),
    ])
    .await;
    let address = world.api.address();
    let (right, from) = (bearer(READER), "X-Forwarded-For: 203.0.113.9");
    let wrong = "wrong-0123456789abcdef";
    // One failure by each way; each is answered as what it is.
    assert_eq!(Sse::plain(address, "/events/stream", &[&bearer(wrong), from]).await.status, 401);
    let protocols = format!("agentforge.v1, bearer.{wrong}");
    let guess = [("sec-websocket-protocol", &*protocols), ("x-forwarded-for", "203.0.113.9")];
    assert_eq!(Ws::open(address, "/events/ws", &guess).await.close().await.0, 4401);
    let guess = [&bearer(wrong), from, JSON];
    assert_eq!(request(address, "POST", "/v1/markers", &guess, "{}").await.0, 401);

    // Each further failure doubles the pause. A right token waits for it to be long: once let in, it is known and does not.
    let guess = async || Sse::plain(address, "/events/stream", &[&bearer(wrong), from]).await;
    loop {
        let refused = guess().await;
        if refused.headers.get("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() >= 8) {
            break;
        }
        eventually(SOON, "another failure counts", || async { guess().await.status == 401 }).await;
    }
    let refused = Sse::plain(address, "/events/stream", &[&right, from]).await;
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true), "a right one waits too");
    let problem = refused.body().await;
    assert!(
        problem["code"] == "too_many_requests" && problem["detail"].as_str().unwrap().contains("ACCESS_LOCKOUT_AFTER"),
        "{problem}"
    );
    let given = [("authorization", &right[15..]), ("x-forwarded-for", "203.0.113.9")];
    let (code, reason) = Ws::open(address, "/events/ws", &given).await.close().await;
    assert_eq!((code, reason.starts_with("too_many_requests:")), (4408, true), "{reason}");
    let (status, headers, _) = request(address, "GET", "/v1/rejected", &[&right, from], "").await;
    assert_eq!((status, headers.contains_key("retry-after")), (429, true));
    // An EventSource gets the time to wait, at least until the end of the pause.
    let mut told = Sse::open(address, "/events/stream", &[&right, from]).await;
    let got = told.next().await.unwrap();
    assert_eq!((told.status, got.event.as_str()), (200, "too_many_requests"));
    assert!(told.retries[0] >= 4_000, "{:?}", told.retries);
    // Another address behind the same proxy is not locked.
    let other = Sse::plain(address, "/events/stream", &[&right, "X-Forwarded-For: 203.0.113.10"]).await;
    assert_eq!(other.status, 200);
    assert!(world.api.metric("agentforge_access_refused_total{reason=\"locked_out\"}").await >= 4.0);
    let log = world.api.proc.full_log();
    assert!(log.contains("login failed") && log.contains("203.0.113.9"), "{log}");
    assert!(!log.contains(wrong) && !log.contains(READER), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_and_addresses_have_rates() {
    let Some(()) = require("nats-server") else { return };
    let settings = [("TACTICAL_REQUIRE_BEARER", "on"), ("TACTICAL_READ_TOKENS", READER)];
    let world = World::start(&[&settings[..], &[("ACCESS_CALLER_RATE", "1")]].concat()).await;
    let right = bearer(READER);
    let burst = async |address: &str, given: &[&str]| {
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(Sse::plain(address, "/events/stream", given).await.status);
        }
        statuses
    };
    let statuses = burst(world.api.address(), &[&right]).await;
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    // Where nothing is asked for, the rate of addresses holds.
    let open = [("TACTICAL_READ_TOKENS", READER), ("ACCESS_ADDRESS_RATE", "1")];
    let api = Api::start(&world.nats.url(), &open).await;
    let statuses = burst(api.address(), &[]).await;
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    assert!(api.metric("agentforge_access_refused_total{reason=\"address_rate\"}").await >= 1.0);
}
