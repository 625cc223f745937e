//! The console of `agentforge dev`: a user of the command line logs in, works, and is checked from outside.

use super::support::{Dev, SOON, agentforge, agentforge_reads, command, extras_but, feed};
use agentforge_harness::{eventually, http_get, require};
use serde_json::json;

const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_logs_in_and_asks_the_services_by_name() {
    let Some(()) = require("nats-server") else { return };
    let home = tempfile::Builder::new().prefix("agentforge-console-").tempdir().unwrap();
    let dev = Dev::start(&home, &["--without", &extras_but(&["console", "broadcaster"])]).await;
    let console = dev.ready["services"]["console"]["http"].as_str().unwrap();
    let log = dev.process.full_log();
    assert!(log.contains("log in once") && log.contains("/once/"), "{log}");

    let data = home.path().join("data").to_string_lossy().into_owned();
    let of = |args: &[&str]| [args, &["--data-dir", &data]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let added = agentforge_reads(of(&["--json", "user", "add", "alice", "--role", "operator"]), PASSWORD);
    assert_eq!(added.ok(), json!({"name": "alice"}));
    let twice = agentforge_reads(of(&["user", "add", "alice", "--role", "viewer"]), PASSWORD);
    assert!(twice.code == 1 && twice.err.contains("there is a user alice"), "{}", twice.err);
    let weak = agentforge_reads(of(&["user", "add", "bob", "--role", "viewer"]), "short");
    assert!(weak.code == 2 && weak.err.contains("12 characters"), "{}", weak.err);
    let listed = agentforge(of(&["--json", "user", "list"])).ok();
    let alice = listed["users"].as_array().unwrap().iter().find(|user| user["name"] == "alice").unwrap();
    assert_eq!((&alice["role"], &alice["has_password"]), (&json!("operator"), &json!(true)));

    // As a person would: login, page, renewal, metrics, logout.
    let metrics = dev.ready["services"]["console"]["metrics"].as_str().unwrap().trim_end_matches("/metrics");
    let smoke = ["--json", "smoke", "--base", console, "--user", "alice", "--metrics", metrics];
    let walked = feed(command().args(smoke), PASSWORD).ok();
    assert!(walked["ok"] == true && walked["steps"].as_array().unwrap().len() == 6, "{walked}");
    let wrong = feed(command().args(&smoke[..6]), "not the password");
    assert!(wrong.code == 1 && wrong.out.contains("401"), "{}", wrong.out);

    // A user's work is that user's, at the services too: the audit log names who it was.
    let login = json!({"user": "alice", "password": PASSWORD}).to_string();
    let host = console.trim_start_matches("http://");
    let answer = exchange(host, "POST", "/auth/login", "", &login).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let cookies: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("set-cookie: ")?.split(';').next()).collect();
    let csrf = answer.split(r#""csrf":""#).nth(1).unwrap().split('"').next().unwrap();
    let headers = format!("Cookie: {}\r\nx-af-csrf: {csrf}\r\n", cookies.join("; "));
    let job = json!({"tool": "echo", "args": {"from": "the console"}}).to_string();
    let submitted = exchange(host, "POST", "/api/orchestrator/v1/jobs", &headers, &job).await;
    assert!(submitted.starts_with("HTTP/1.1 2"), "{submitted}");
    eventually(SOON, "the audit log names alice", async || {
        let seen = dev.run(["audit", "log"]);
        seen.out.contains("alice@agentforge-console")
    })
    .await;
    let webhooks = exchange(host, "GET", "/api/broadcaster/v1/endpoints", &headers, "").await;
    assert!(webhooks.starts_with("HTTP/1.1 200"), "{webhooks}");

    // Disabled, all is over at once.
    agentforge(of(&["user", "disable", "alice"]));
    eventually(SOON, "the session is over", async || {
        exchange(host, "GET", "/auth/session", &headers, "").await.starts_with("HTTP/1.1 401")
    })
    .await;

    let pages = [
        format!("{console}/"),
        format!("{console}/jobs"),
        format!("{console}/api/nothing"),
        format!("{console}/healthz"),
    ];
    let checked = agentforge(["verify", "--headers"].into_iter().chain(pages.iter().map(String::as_str)));
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    let orchestrator = dev.ready["services"]["orchestrator"]["http"].as_str().unwrap();
    let bare = agentforge(["verify", "--headers", &format!("{orchestrator}/healthz")]);
    assert!(bare.code == 1 && bare.out.contains("x-frame-options is missing"), "{}", bare.out);
    assert_eq!(http_get(&format!("{console}/readyz"), &[]).await.unwrap().0, 200);
}

async fn exchange(host: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{kind}{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
