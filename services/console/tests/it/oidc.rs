//! Login by a real OpenID provider, and those who would like to use another's.

use crate::support::{Answer, Browser, Running};
use agentforge_harness::{OidcProvider, require};
use std::collections::BTreeMap;

const CONSOLE: &str = "https://console.example";

async fn served(provider: &OidcProvider, roles: &str) -> Running {
    Running::start(&[
        ("ACCESS_ISSUERS", provider.issuer()),
        ("ACCESS_AUDIENCE", "urn:agentforge"),
        ("ACCESS_ROLES", roles),
        ("CONSOLE_OIDC_ISSUER", provider.issuer()),
        ("CONSOLE_OIDC_CLIENT", "console"),
        ("CONSOLE_OIDC_SCOPE", "openid use"),
        ("CONSOLE_OIDC_RESOURCE", "urn:agentforge"),
        ("CONSOLE_OIDC_NAME", "Example"),
        ("CONSOLE_PUBLIC_URL", CONSOLE),
        ("CONSOLE_RATE", "0"),
        ("CONSOLE_LOCKOUT_AFTER", "0"),
    ])
    .await
}

/// From the console's page to the provider, until that sends the browser back: the way back.
async fn at_the_provider(provider: &OidcProvider, browser: &mut Browser) -> String {
    let begun = browser.call("GET", "/auth/oidc/start?next=https://evil.example/", &[], None).await;
    assert_eq!(begun.status, 303, "{}", begun.body);
    let host = provider.issuer().trim_start_matches("http://").to_owned();
    let mut person = Browser { address: host, cookies: BTreeMap::new(), csrf: None };
    let mut at = begun.header("location");
    assert!(at.starts_with(provider.issuer()) && at.contains("code_challenge_method=S256"), "{at}");
    for _ in 0..10 {
        if let Some(back) = at.strip_prefix(CONSOLE) {
            return back.to_owned();
        }
        let path = at.strip_prefix(provider.issuer()).unwrap_or(&at).to_owned();
        let answer: Answer = person.call("GET", &path, &[], None).await;
        at = answer.header("location");
        assert!(!at.is_empty(), "{path}: {} {}", answer.head, answer.body);
    }
    panic!("the provider never came back: {at}");
}

#[tokio::test]
async fn a_person_of_a_provider_is_logged_in_with_the_role_of_its_groups() {
    let Some(()) = require("oidc-provider") else { return };
    let provider = OidcProvider::start().await;
    let console = served(&provider, "af-operators=operator").await;
    let mut browser = console.browser();
    assert_eq!(browser.get("/auth/session").await.json()["oidc"], "Example", "the login page has a button for it");
    let back = at_the_provider(&provider, &mut browser).await;

    // A code that is put into another browser logs that one in as no one.
    let stranger = console.browser().call("GET", &back, &[], None).await;
    assert_eq!((stranger.status, stranger.header("location")), (303, "/?login=failed".to_owned()));
    assert!(stranger.headers("set-cookie").iter().all(|cookie| !cookie.starts_with("af_access")), "{}", stranger.head);

    let done = browser.call("GET", &back, &[], None).await;
    assert_eq!((done.status, done.header("location")), (303, "/".to_owned()), "{}", done.body);
    let session = browser.get("/auth/session").await.json();
    assert_eq!(session["role"], "operator");
    assert!(session["user"].as_str().unwrap().starts_with("alice@127.0.0.1"), "{session}");
    assert_eq!(console.metric(r#"auth_login_total{result="ok",reason="oidc"}"#).await, 1.0);
    let again = browser.call("GET", &back, &[], None).await;
    assert_eq!(again.header("location"), "/?login=failed", "a code and a state are good once");
    assert_eq!(browser.get("/auth/session").await.status, 200);
}

#[tokio::test]
async fn who_has_no_role_here_is_not_let_in() {
    let Some(()) = require("oidc-provider") else { return };
    let provider = OidcProvider::start().await;
    let console = served(&provider, "af-others=operator").await;
    let mut browser = console.browser();
    let back = at_the_provider(&provider, &mut browser).await;
    let done = browser.call("GET", &back, &[], None).await;
    assert_eq!((done.status, done.header("location")), (303, "/?login=failed".to_owned()));
    assert_eq!(browser.get("/auth/session").await.status, 401);
}

#[tokio::test]
async fn no_answer_leads_to_another_site() {
    let console = Running::start(&[]).await;
    let browser = console.browser();
    for path in [
        "//evil.example/",
        "/%2f%2fevil.example",
        "/\\\\evil.example",
        "/auth/oidc/start?next=https://evil.example",
        "/auth/oidc/callback?code=a&state=b&next=//evil.example",
        "/once/https://evil.example",
        "/?login=failed&next=https://evil.example",
    ] {
        let answer = browser.get(path).await;
        assert!(answer.headers("location").is_empty(), "{path}: {}", answer.head);
    }
}
