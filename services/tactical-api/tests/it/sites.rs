//! A token with scopes for sites sees and publishes what is of these sites, and nothing else.

use crate::support::{Sse, World, request};
use agentforge_access::{Role, Scopes, TokenFile, digest};
use agentforge_harness::{eventually, require};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn line(name: &str, role: Role, scopes: &[&str]) -> String {
    let scopes = Scopes::parse(scopes.iter().copied()).unwrap();
    TokenFile::line(name, role, &digest(format!("{name}-0123456789abcdef")), None, &scopes)
}

fn bearer(name: &str) -> String {
    format!("Authorization: Bearer {name}-0123456789abcdef")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_site_sees_and_publishes_nothing_of_others() {
    let Some(()) = require("nats-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let [all, north, jobs] = [
        line("all", Role::Submit, &[]),
        line("north", Role::Submit, &["site:north"]),
        line("jobs", Role::Admin, &["queue:a"]),
    ];
    std::fs::write(&file, format!("{all}\n{north}\n{jobs}\n")).unwrap();
    let settings = [
        ("ACCESS_TOKENS_FILE", file.to_str().unwrap()),
        ("ACCESS_RELOAD_INTERVAL", "100ms"),
        ("TACTICAL_REQUIRE_BEARER", "on"),
    ];
    let world = World::start(&settings).await;
    let address = world.api.address();
    let publish = async |name: &str, site: &str, id: &str| {
        let body = json!({"id": id, "site": site, "title": format!("{site} {id}"), "coordinates": [0, 0]});
        let headers = [bearer(name), "Content-Type: application/json".to_owned()];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        request(address, "POST", "/v1/markers", &headers, &body.to_string()).await.0
    };
    assert_eq!(Sse::open(address, "/events/stream", &[]).await.status, 401);
    let mut sees_all = Sse::open(address, "/events/stream", &[&bearer("all")]).await;
    let mut sees_north = Sse::open(address, "/events/stream", &[&bearer("north")]).await;
    let mut asks_more = Sse::open(address, "/events/stream?site=south,north", &[&bearer("north")]).await;
    let _sees_nothing = Sse::open(address, "/events/stream", &[&bearer("jobs")]).await;
    world.api.until_clients(4.0, 0.0).await;

    assert_eq!((publish("all", "south", "1").await, publish("north", "south", "2").await), (201, 403));
    assert_eq!((publish("jobs", "north", "3").await, publish("north", "north", "4").await), (403, 201));
    let delete =
        async |name: &str| request(address, "DELETE", "/v1/markers/1?site=south", &[&bearer(name)], "").await.0;
    assert_eq!((delete("north").await, delete("all").await), (403, 200));
    assert_eq!(publish("all", "north", "5").await, 201);
    let rejected = async |name: &str| request(address, "GET", "/v1/rejected", &[&bearer(name)], "").await.0;
    assert_eq!((rejected("north").await, rejected("all").await), (403, 200));

    assert_eq!(sees_all.next().await.unwrap().title(), "south 1");
    for stream in [&mut sees_north, &mut asks_more] {
        let seen = [stream.next().await.unwrap(), stream.next().await.unwrap()];
        assert_eq!(
            seen.each_ref().map(|got| got.title()),
            ["north 4", "north 5"],
            "neither the state nor the end of others"
        );
    }
    let mut snapshot = Sse::open(address, "/events/stream?snapshot=true", &[&bearer("north")]).await;
    let mut seen = [snapshot.next().await.unwrap(), snapshot.next().await.unwrap()].map(|got| got.title().to_owned());
    seen.sort();
    assert_eq!(seen, ["north 4", "north 5"]);

    // The file changes while it runs.
    std::fs::write(&file, format!("{all}\n{}\n", line("jobs", Role::Submit, &["site:north"]))).unwrap();
    eventually(SOON, "the token is revoked", || async { publish("north", "north", "6").await == 401 }).await;
    assert_eq!(publish("jobs", "north", "7").await, 201);
}
