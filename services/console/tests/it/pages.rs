//! The pages, and the headers that every answer has.

use crate::support::Running;

/// Of the specification: on every answer.
const WANTED: &[(&str, &str)] = &[
    ("content-security-policy", "default-src 'self'"),
    ("content-security-policy", "frame-ancestors 'none'"),
    ("content-security-policy", "object-src 'none'"),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "camera=()"),
];

#[tokio::test]
async fn every_answer_has_the_headers_errors_too() {
    let console = Running::start(&[("GRAFANA_URL", "https://grafana.example/x")]).await;
    let browser = console.browser();
    for path in ["/", "/jobs/123", "/healthz", "/readyz", "/no/such.js", "/api/nothing", "/auth/session", "/api/users"]
    {
        let answer = browser.get(path).await;
        for (name, part) in WANTED {
            assert!(answer.header(name).contains(part), "{path} {name}: {}", answer.head);
        }
        assert!(answer.header("content-security-policy").contains("frame-src https://grafana.example"), "{path}");
        assert!(answer.header("server").is_empty() && answer.header("strict-transport-security").is_empty(), "{path}");
    }
    let (home, unknown) = (browser.get("/").await, browser.get("/api/nothing").await);
    assert!(home.status == 200 && home.header("content-type").starts_with("text/html"), "{}", home.head);
    assert!(unknown.status == 404 || unknown.status == 401, "{}", unknown.head);
    assert_eq!(unknown.header("content-type"), "application/problem+json");
    let secure = Running::start(&[("CONSOLE_PUBLIC_URL", "https://console.example")]).await;
    assert!(secure.browser().get("/").await.header("strict-transport-security").starts_with("max-age=31536000"));
}
