//! Logins, sessions, and those who would like one that is not theirs.

use crate::support::{Browser, Running, SOON, add_user};
use agentforge_harness::{NatsOptions, NatsServer, Postgres, eventually, require};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse battery";
/// Where a test has to fail often, limits would hide what it looks at.
const UNLIMITED: [(&str, &str); 2] = [("CONSOLE_LOCKOUT_AFTER", "0"), ("CONSOLE_RATE", "0")];

async fn with_users(envs: &[(&str, &str)]) -> Running {
    let console = Running::start(envs).await;
    let url = envs.iter().find(|(key, _)| *key == "DATABASE_URL").map_or("sqlite://console.db", |(_, url)| url);
    for (name, role) in [("alice", "admin"), ("oscar", "operator"), ("victor", "viewer")] {
        add_user(url, console.data(), name, role, PASSWORD).await;
    }
    console
}

fn login(user: &str, password: &str) -> Value {
    json!({"user": user, "password": password})
}

async fn logged_in(console: &Running, user: &str) -> Browser {
    let mut browser = console.browser();
    let answer = browser.post("/auth/login", &login(user, PASSWORD)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    browser.csrf = Some(answer.json()["csrf"].as_str().unwrap().to_owned());
    browser
}

async fn a_day_of(console: &Running) {
    let mut browser = logged_in(console, "oscar").await;
    let session = browser.get("/auth/session").await.json();
    assert_eq!((&session["user"], &session["role"]), (&json!("oscar"), &json!("operator")));
    assert_eq!(session["can"], json!({"submit": true, "operate": true, "admin": false}));
    let first = browser.cookies.clone();
    let renewed = browser.call("POST", "/auth/refresh", &[], None).await;
    assert_eq!(renewed.status, 200, "{}", renewed.body);
    assert_ne!(browser.cookies["af_refresh"], first["af_refresh"]);
    assert_eq!(renewed.json()["csrf"], session["csrf"], "pages keep their value");
    let list = browser.get("/auth/sessions").await.json();
    assert_eq!((list["sessions"].as_array().unwrap().len(), &list["sessions"][0]["current"]), (1, &json!(true)));
    let before = browser.clone();
    assert_eq!(browser.call("POST", "/auth/logout", &[], None).await.status, 204);
    assert!(browser.cookies.is_empty());
    assert_eq!(before.get("/auth/session").await.status, 401, "a copy of the cookies is worth nothing");
    assert_eq!(before.clone().call("POST", "/auth/refresh", &[], None).await.status, 401);
    assert_eq!(console.metric(r#"auth_login_total{result="ok",reason="ok"}"#).await, 1.0);
    assert_eq!(console.metric(r#"auth_refresh_total{result="ok"}"#).await, 1.0);
}

#[tokio::test]
async fn a_session_begins_is_renewed_and_ends_on_sqlite() {
    a_day_of(&with_users(&[]).await).await;
}

#[tokio::test]
async fn a_session_begins_is_renewed_and_ends_on_postgres() {
    let Some(()) = require("postgres") else { return };
    let url = Postgres::start().await.database("console_day").await;
    a_day_of(&with_users(&[("DATABASE_URL", &url)]).await).await;
}

#[tokio::test]
async fn cookies_are_out_of_reach_of_scripts_and_other_sites() {
    let console = with_users(&[("CONSOLE_PUBLIC_URL", "https://console.example")]).await;
    let answer = console.browser().post("/auth/login", &login("alice", PASSWORD)).await;
    let cookies = answer.headers("set-cookie");
    assert_eq!(cookies.len(), 2, "{}", answer.head);
    for cookie in &cookies {
        for part in ["HttpOnly", "Secure", "SameSite=Strict"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
    assert!(cookies.iter().any(|cookie| cookie.starts_with("af_refresh=") && cookie.contains("Path=/auth;")));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_are_the_same_in_text_and_time() {
    let console = with_users(&UNLIMITED).await;
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    let mut said = [const { Vec::new() }; 3];
    for round in 0..15 {
        for (n, user) in ["alice", "nobody", "not a name at all"].into_iter().enumerate() {
            let began = Instant::now();
            let answer = console.browser().post("/auth/login", &login(user, &format!("wrong-{round}"))).await;
            took[n].push(began.elapsed());
            let mut body = answer.json();
            body.as_object_mut().unwrap().remove("request_id");
            said[n].push((answer.status, body));
        }
    }
    assert!(said[0].iter().chain(&said[1]).chain(&said[2]).all(|one| *one == said[0][0]), "{said:?}");
    assert_eq!(said[0][0].1["code"], "invalid_credentials");
    let median = |list: &mut Vec<Duration>| {
        list.sort();
        list[list.len() / 2].as_secs_f64()
    };
    let [known, unknown, odd] = took.each_mut().map(median);
    // A check takes tens of milliseconds; without one an answer takes about one.
    for other in [unknown, odd] {
        assert!(
            known / other < 2.0 && other / known < 2.0,
            "known {known:.4} s, unknown {unknown:.4} s, odd {odd:.4} s"
        );
    }
}

#[tokio::test]
async fn guessing_is_locked_out_with_growing_pauses_and_a_right_guess_too() {
    let console = with_users(&[("CONSOLE_LOCKOUT_AFTER", "3"), ("CONSOLE_RATE", "0")]).await;
    let mut guesser = console.browser();
    for n in 0..3 {
        assert_eq!(guesser.post("/auth/login", &login("alice", &format!("guess-{n}"))).await.status, 401);
    }
    let locked = guesser.post("/auth/login", &login("alice", PASSWORD)).await;
    assert_eq!((locked.status, locked.code()), (429, "locked_out".to_owned()));
    assert!(locked.header("retry-after").parse::<u64>().unwrap() >= 1, "{}", locked.head);
    assert!(console.metric("auth_lockouts_total").await >= 1.0);
    assert_eq!(console.metric(r#"auth_login_total{result="refused",reason="locked_out"}"#).await, 1.0);
    // After the pause the next failure locks for longer, and the right password is good again.
    eventually(SOON, "the pause is over", async || {
        console.browser().post("/auth/login", &login("alice", PASSWORD)).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn rates_bound_logins_and_say_when_to_come_back() {
    let console = with_users(&[("CONSOLE_RATE", "1"), ("CONSOLE_LOCKOUT_AFTER", "0")]).await;
    let mut refused = None;
    for _ in 0..10 {
        let answer = console.browser().call("POST", "/auth/refresh", &[], None).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("ten at once are more than two");
    assert!(refused.body.contains("CONSOLE_RATE") && !refused.header("retry-after").is_empty(), "{}", refused.body);
    assert!(console.metric(r#"auth_rate_limit_block_total{endpoint="refresh"}"#).await >= 1.0);
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_the_session_for_both() {
    let console = with_users(&[]).await;
    let mut owner = logged_in(&console, "alice").await;
    let mut thief = owner.clone();
    for _ in 0..2 {
        assert_eq!(owner.call("POST", "/auth/refresh", &[], None).await.status, 200);
    }
    assert_eq!(owner.get("/auth/session").await.status, 200);
    assert_eq!(thief.call("POST", "/auth/refresh", &[], None).await.status, 401);
    assert_eq!(owner.get("/auth/session").await.status, 401, "whoever is the thief: the password is asked for again");
    assert_eq!(owner.clone().call("POST", "/auth/refresh", &[], None).await.status, 401);
    assert_eq!(console.metric(r#"auth_refresh_total{result="reused"}"#).await, 1.0);
    assert_eq!(logged_in(&console, "alice").await.get("/auth/session").await.status, 200);
}

#[tokio::test]
async fn two_tabs_that_renew_at_once_stay_logged_in() {
    let console = with_users(&[("CONSOLE_RATE", "0")]).await;
    let mut tab = logged_in(&console, "alice").await;
    let mut answers = Vec::new();
    let renewing: Vec<_> = (0..8)
        .map(|_| {
            let mut browser = tab.clone();
            tokio::spawn(async move { (browser.call("POST", "/auth/refresh", &[], None).await.status, browser) })
        })
        .collect();
    for one in renewing {
        let (status, browser) = one.await.unwrap();
        answers.push(status);
        if status == 200 {
            tab = browser;
        }
    }
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 200 | 204)), "{answers:?}");
    assert_eq!(tab.get("/auth/session").await.status, 200);
    assert_eq!(tab.call("POST", "/auth/refresh", &[], None).await.status, 200);
}

#[tokio::test]
async fn a_session_that_was_put_into_a_browser_is_not_the_one_after_the_login() {
    let console = with_users(&[]).await;
    let attacker = logged_in(&console, "victor").await;
    let mut victim = console.browser();
    victim.cookies = attacker.cookies.clone();
    let answer = victim.post("/auth/login", &login("alice", PASSWORD)).await;
    assert_eq!(answer.status, 200);
    assert_ne!(victim.cookies["af_access"], attacker.cookies["af_access"]);
    assert_eq!(attacker.get("/auth/session").await.json()["user"], "victor", "the attacker stays who it was");
    // An id of one's own choice is not sealed.
    let mut invented = console.browser();
    invented.cookies.insert("af_access".into(), "my-session.99999999999.AAAA".into());
    assert_eq!(invented.get("/auth/session").await.status, 401);
}

#[tokio::test]
async fn what_changes_something_needs_the_value_of_its_own_session() {
    let console = with_users(&[]).await;
    let (mut alice, victor) = (logged_in(&console, "alice").await, logged_in(&console, "victor").await);
    let body = json!({"current": PASSWORD, "new": "another horse battery"});
    let csrf = alice.csrf.take().unwrap();
    for value in ["", "guess", victor.csrf.as_deref().unwrap()] {
        let answer = alice.call("POST", "/auth/password", &[("x-af-csrf", value)], Some(&body)).await;
        assert_eq!((answer.status, answer.code()), (403, "csrf".to_owned()), "{value}");
    }
    let headers = [("x-af-csrf", csrf.as_str()), ("content-type", "text/plain")];
    assert_eq!(
        alice.call("POST", "/auth/password", &headers, Some(&body)).await.status,
        415,
        "as a form would send it"
    );
    assert_eq!(alice.call("POST", "/auth/password", &[("x-af-csrf", &csrf)], Some(&body)).await.status, 204);
}

#[tokio::test]
async fn another_sites_page_logs_no_one_in() {
    let console = with_users(&[]).await;
    for headers in [[("origin", "http://evil.example")], [("origin", "null")], [("sec-fetch-site", "cross-site")]] {
        let answer = console.browser().call("POST", "/auth/login", &headers, Some(&login("alice", PASSWORD))).await;
        assert_eq!(answer.status, 403, "{headers:?}: {}", answer.body);
        assert!(answer.headers("set-cookie").is_empty());
    }
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let console = with_users(&[]).await;
    let (mut here, there) = (logged_in(&console, "alice").await, logged_in(&console, "alice").await);
    let wrong = json!({"current": "not that one", "new": "another horse battery"});
    assert_eq!(here.post("/auth/password", &wrong).await.status, 403);
    let weak = json!({"current": PASSWORD, "new": "short"});
    assert_eq!(here.post("/auth/password", &weak).await.status, 400);
    assert_eq!(
        here.post("/auth/password", &json!({"current": PASSWORD, "new": "another horse battery"})).await.status,
        204
    );
    assert_eq!((here.get("/auth/session").await.status, there.get("/auth/session").await.status), (200, 401));
    assert_eq!(console.browser().post("/auth/login", &login("alice", PASSWORD)).await.status, 401);
    assert_eq!(console.browser().post("/auth/login", &login("alice", "another horse battery")).await.status, 200);
}

#[tokio::test]
async fn the_link_of_a_developers_machine_logs_in_once() {
    let token = "a-token-of-a-link-0123456789abcdef";
    let console = Running::start(&[("CONSOLE_DEV_LINK", token), ("CONSOLE_RATE", "0")]).await;
    let mut browser = console.browser();
    let path = format!("/auth/once/{token}");
    eventually(SOON, "the link is good", async || {
        let mut first = console.browser();
        let answer = first.call("POST", &path, &[], None).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["user"], "admin");
        }
        answer.status == 200
    })
    .await;
    assert_eq!(browser.call("POST", &path, &[], None).await.status, 401, "it is used up");
}

#[tokio::test]
async fn users_are_for_admins_and_each_change_is_in_the_audit_log_first() {
    let nats = NatsServer::start(NatsOptions::default()).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let js = async_nats::jetstream::new(client.clone());
    let stream = async_nats::jetstream::stream::Config {
        name: "events".into(),
        subjects: vec!["agentforge.events.>".into()],
        ..Default::default()
    };
    js.create_stream(stream).await.unwrap();
    let mut events = client.subscribe("agentforge.events.audit.>").await.unwrap();
    let console = with_users(&[("NATS_URL", &nats.url())]).await;
    let (mut alice, mut oscar) = (logged_in(&console, "alice").await, logged_in(&console, "oscar").await);
    let new = json!({"name": "nora", "role": "viewer", "password": "nine lives of cats"});
    assert_eq!(oscar.post("/api/users", &new).await.status, 403);
    assert_eq!(alice.post("/api/users", &new).await.status, 201);
    let event = tokio::time::timeout(SOON, futures_util::StreamExt::next(&mut events)).await.unwrap().unwrap();
    let event = String::from_utf8(event.payload.to_vec()).unwrap();
    assert!(event.contains("AddUser") && event.contains("alice") && !event.contains("nine lives"), "{event}");
    assert_eq!(alice.post("/api/users", &new).await.status, 409);
    let names: Vec<Value> = alice.get("/api/users?limit=2").await.json()["users"].as_array().unwrap().clone();
    assert_eq!(names.len(), 2);
    let (mut nora, path) = (console.browser(), "/api/users/nora");
    assert_eq!(nora.post("/auth/login", &login("nora", "nine lives of cats")).await.status, 200);
    assert_eq!(alice.call("PATCH", path, &[], Some(&json!({"role": "operator"}))).await.status, 200);
    assert_eq!(nora.get("/auth/session").await.json()["role"], "operator", "a new role counts at once");
    assert_eq!(alice.call("PATCH", path, &[], Some(&json!({"disabled": true}))).await.status, 200);
    assert_eq!(nora.get("/auth/session").await.status, 401);
    assert_eq!(console.browser().post("/auth/login", &login("nora", "nine lives of cats")).await.status, 401);
    assert_eq!(alice.call("PATCH", "/api/users/alice", &[], Some(&json!({"disabled": true}))).await.status, 409);
    assert_eq!(alice.call("PATCH", path, &[], Some(&json!({"disabled": false}))).await.status, 200);
    let link = alice.call("POST", "/api/users/nora/link", &[], None).await.json()["url"].as_str().unwrap().to_owned();
    let token = link.rsplit('/').next().unwrap();
    assert_eq!(console.browser().call("POST", &format!("/auth/once/{token}"), &[], None).await.status, 200);
    assert_eq!(console.browser().call("POST", &format!("/auth/once/{token}"), &[], None).await.status, 401);
    assert_eq!(alice.call("DELETE", path, &[], None).await.status, 204);
}

#[tokio::test]
async fn what_cannot_be_audited_is_not_done_and_logins_need_no_nats() {
    let console = with_users(&[]).await;
    let mut alice = logged_in(&console, "alice").await;
    let new = json!({"name": "nora", "role": "viewer"});
    let answer = alice.post("/api/users", &new).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let users = alice.get("/api/users").await.json()["users"].as_array().unwrap().clone();
    assert!(users.iter().all(|user| user["name"] != "nora"), "{users:?}");
}
