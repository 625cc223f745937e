//! The console behind Debian's nginx, as a site would have it: its headers once, its cookies, its limits, its streams.

use crate::support::{Browser, Running, SOON, add_user};
use agentforge_harness::{Proc, eventually, free_port, program, require};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

const PASSWORD: &str = "correct horse battery";
/// Ed25519, as `agentforge keys new` writes it.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n-----END PRIVATE KEY-----\n";

/// nginx with the few lines that a proxy needs, and none about headers of answers.
fn nginx(dir: &Path, port: u16, upstream: &str) -> Proc {
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{}}\n\
         http {{ access_log off; server_tokens off;\n\
         client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n\
         server {{ listen 127.0.0.1:{port};\n\
         location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Host $http_host;\n\
         proxy_set_header X-Forwarded-For $http_x_test_address; proxy_set_header X-Forwarded-Proto https; }} }} }}\n",
        dir = dir.display()
    );
    std::fs::write(dir.join("nginx.conf"), config).unwrap();
    let path = program("nginx").unwrap();
    let config = dir.join("nginx.conf").to_string_lossy().into_owned();
    Proc::builder(path).args(["-e", &format!("{}/start.log", dir.display()), "-c", &config]).start()
}

#[tokio::test]
async fn headers_cookies_and_limits_are_the_same_behind_a_proxy() {
    let Some(()) = require("nginx") else { return };
    let console = Running::start(&[
        ("ENV", "production"),
        ("BIND_ADDR", "127.0.0.1"),
        ("CONSOLE_SIGNING_KEY", KEY),
        ("CONSOLE_PUBLIC_URL", "https://console.example"),
        ("ACCESS_TRUSTED_PROXIES", "127.0.0.1"),
        ("CONSOLE_RATE", "2"),
        ("SHUTDOWN_PAUSE", "0s"),
    ])
    .await;
    add_user("sqlite://console.db", console.data(), "alice", "admin", PASSWORD).await;
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let direct = console.browser();
    let _nginx = nginx(dir.path(), port, &direct.address);
    let mut behind = Browser { address: format!("127.0.0.1:{port}"), cookies: BTreeMap::new(), csrf: None };
    eventually(SOON, "nginx serves", async || tokio::net::TcpStream::connect(&behind.address).await.is_ok()).await;
    for path in ["/", "/auth/session", "/api/nothing", "/no/such.js"] {
        let (one, other) = (direct.get(path).await, behind.get(path).await);
        assert_eq!(one.status, other.status, "{path}");
        for name in [
            "content-security-policy",
            "x-frame-options",
            "x-content-type-options",
            "referrer-policy",
            "permissions-policy",
            "strict-transport-security",
            "cache-control",
        ] {
            assert_eq!(one.headers(name), other.headers(name), "{path} {name}");
            assert_eq!(other.headers(name).len(), 1, "{path} {name}: {}", other.head);
        }
        assert!(!other.header("server").contains(|c: char| c.is_ascii_digit()), "{}", other.head);
    }
    // Limits are about the browsers, not about the proxy.
    let login = json!({"user": "alice", "password": PASSWORD});
    let from = |address: &'static str| [("x-test-address", address)];
    let mut refused = 0;
    for _ in 0..12 {
        refused +=
            usize::from(behind.clone().call("POST", "/auth/refresh", &from("203.0.113.7"), None).await.status == 429);
    }
    assert!(refused > 0, "an address that asks too often");
    let answer = behind.call("POST", "/auth/login", &from("203.0.113.8"), Some(&login)).await;
    assert_eq!(answer.status, 200, "another address is not limited: {}", answer.body);
    assert!(answer.headers("set-cookie").iter().all(|cookie| cookie.contains("; Secure")), "{}", answer.head);
    assert_eq!(behind.get("/auth/session").await.json()["user"], "alice");
    let list = behind.get("/auth/sessions").await.json();
    assert_eq!(list["sessions"][0]["address"], "203.0.113.8");
}
