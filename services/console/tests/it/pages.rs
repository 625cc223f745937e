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

#[tokio::test]
async fn a_document_that_did_not_change_is_not_sent_again() {
    let console = Running::start(&[]).await;
    let browser = console.browser();
    for path in ["/api/service-latencies", "/api/intake/counts", "/todos"] {
        let first = browser.get(path).await;
        let tag = first.header("etag");
        assert!(first.status == 200 && tag.starts_with("W/"), "{path}: {}", first.head);
        // The sampler may have measured in between: then there is another document, with another tag.
        let again = browser.send("GET", path, &[("if-none-match", &tag)], None).await;
        let is_same = again.status == 304;
        assert!(is_same || again.status == 200 && again.header("etag") != tag, "{path}: {}", again.head);
    }
    let counts = browser.get("/api/intake/counts").await;
    let again = browser.send("GET", "/api/intake/counts", &[("if-none-match", &counts.header("etag"))], None).await;
    assert_eq!(again.status, 304, "{}", again.head);
}
