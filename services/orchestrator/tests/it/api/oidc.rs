//! JSON Web Tokens of a real OpenID provider: whose are accepted, with which role and scopes, and until when.

use super::server::{Server, problem};
use agentforge_harness::{OidcProvider, eventually, require};
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
const ROLES: &str = "af-operators=operator,af-viewers=viewer";

async fn served(provider: &OidcProvider, more: &[(&str, &str)]) -> Server {
    let settings = [
        ("ACCESS_ISSUERS", provider.issuer()),
        ("ACCESS_AUDIENCE", "urn:agentforge"),
        ("ACCESS_ROLES", ROLES),
        ("ACCESS_LOCKOUT_AFTER", "0"),
        ("ACCESS_CLOCK_SKEW", "0s"),
    ];
    Server::start(&[&settings[..], more].concat()).await
}

/// Status and detail of an answer.
async fn ask(server: &Server, method: Method, path: &str, token: &str, body: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = server.send(method, path, &headers, body).await;
    match answer.status().as_u16() {
        status @ 200..=299 => (status, String::new()),
        status => (status, problem(answer).await["detail"].as_str().unwrap().to_owned()),
    }
}

async fn read(server: &Server, token: &str) -> (u16, String) {
    ask(server, Method::GET, "/v1/jobs", token, "").await
}

#[tokio::test]
async fn programs_and_people_come_in_with_the_roles_of_their_groups() {
    let Some(()) = require("oidc-provider") else { return };
    let provider = OidcProvider::start().await;
    let server = served(&provider, &[("ACCESS_SCOPE_CLAIM", "agentforge.scopes")]).await;
    let (operator, viewer) = (provider.program_token("operators"), provider.program_token("viewers"));
    // The first request waits for the keys, if they are not there yet.
    assert_eq!(read(&server, &viewer).await, (200, String::new()));
    assert_eq!(read(&server, &provider.person_token()).await.0, 200, "by the code flow");
    let path = "/v1/schedules/01890a5d-ac96-774b-bcce-b302099a8057/pause";
    let pause = async |token: &str| ask(&server, Method::POST, path, token, "").await;
    assert_eq!(pause(&operator).await.0, 404, "an operator may, but there is none");
    let (status, detail) = pause(&viewer).await;
    assert!(status == 403 && detail.contains("the role operator") && detail.contains("viewers@127.0.0.1"), "{detail}");
    let (status, detail) = read(&server, &provider.program_token("strangers")).await;
    assert!(status == 403 && detail.contains("ACCESS_ROLES"), "{status} {detail}");
    let (status, detail) = read(&server, &provider.program_token("elsewhere")).await;
    assert!(status == 401 && detail.contains("audience"), "{status} {detail}");
    // Scopes come from the token.
    let scoped = provider.program_token("scoped");
    assert_eq!(ask(&server, Method::GET, "/v1/jobs?queue=a", &scoped, "").await.0, 200);
    assert_eq!(ask(&server, Method::GET, "/v1/jobs?queue=b", &scoped, "").await.0, 403);
    // Another provider with the same clients is a stranger.
    let other = OidcProvider::start().await;
    let (status, detail) = read(&server, &other.program_token("operators")).await;
    assert!(status == 401 && detail.contains("ACCESS_ISSUERS"), "{status} {detail}");
}

#[tokio::test]
async fn a_token_ends_at_its_time_by_a_denial_and_with_its_key() {
    let Some(()) = require("oidc-provider") else { return };
    let mut provider = OidcProvider::start().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "# none\n").unwrap();
    let settings = [("ACCESS_TOKENS_FILE", file.to_str().unwrap()), ("ACCESS_RELOAD_INTERVAL", "100ms")];
    let server = served(&provider, &settings).await;
    // Two seconds are enough for one request and not for a test; what it shows is the end.
    let brief = provider.program_token("brief");
    eventually(SOON, "it ends", || async { read(&server, &brief).await.1.contains("has expired") }).await;

    let (one, two) = (provider.program_token("operators"), provider.program_token("operators"));
    assert_eq!((read(&server, &one).await.0, read(&server, &two).await.0), (200, 200));
    let deny = |line: String| std::fs::write(&file, line + "\n").unwrap();
    deny(format!("deny jti={}", claim(&one, "jti")));
    eventually(SOON, "it is revoked", || async { read(&server, &one).await.1.contains("revoked") }).await;
    assert_eq!(read(&server, &two).await.0, 200, "the other one is not");
    deny("deny sub=operators".to_owned());
    eventually(SOON, "its subject is revoked", || async { read(&server, &two).await.1.contains("revoked") }).await;
    assert_eq!(read(&server, &provider.program_token("viewers")).await.0, 200);
    deny("# none".to_owned());
    eventually(SOON, "it is let in again", || async { read(&server, &two).await.0 == 200 }).await;

    // A key that is not known is asked for; the one that the issuer has no more is forgotten.
    provider.rotate().await;
    let next = provider.program_token("operators");
    eventually(SOON, "the new key is fetched", || async { read(&server, &next).await.0 == 200 }).await;
    let (status, detail) = read(&server, &two).await;
    assert!(status == 401 && detail.contains("key"), "{status} {detail}");
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(!metrics.contains(&next) && !metrics.contains("operators@"), "no token and no caller is a label");
}

fn claim(token: &str, name: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims[name].as_str().unwrap().to_owned()
}
