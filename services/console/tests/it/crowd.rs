//! Very many people look at the same pages: what reaches the service behind them is bounded, however many they are.

use crate::support::{Running, add_user};
use axum::{Json, Router, extract::Request, response::IntoResponse};
use futures_util::{StreamExt, stream};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

const PASSWORD: &str = "correct horse battery";
/// How old what the console shares may be.
const FRESH: Duration = Duration::from_millis(1_600);
/// Every how often a page asks again, if its reader chose nothing else.
const INTERVAL: Duration = Duration::from_secs(15);
/// Requests under way at once.
const LINES: usize = 16;
/// What the overview and the list of jobs ask of the orchestrator.
const OVERVIEW: &[&str] =
    &["/v1/jobs:counts", "/v1/queues", "/v1/dead-letters?limit=500", "/v1/agents?limit=1000", "/v1/slo"];
const JOBS: &[&str] = &["/v1/jobs?limit=50", "/v1/jobs:counts"];

/// What reached the service, by path and query.
type Reached = Arc<Mutex<BTreeMap<String, u64>>>;

/// An orchestrator where nothing is marked sensitive.
async fn orchestrator(reached: Reached) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(async move |request: Request| {
        *reached.lock().unwrap().entry(request.uri().to_string()).or_default() += 1;
        ([("x-agentforge-alike", "role")], Json(json!({"rows": vec!["x".repeat(100); 50]}))).into_response()
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_cost_the_orchestrator_no_more_than_ten() {
    let is_soak = std::env::var_os("AGENTFORGE_SOAK").is_some_and(|v| v == "1");
    let sessions = if is_soak { 1_000 } else { 40 };
    let reached = Reached::default();
    let url = orchestrator(Arc::clone(&reached)).await;
    // Logins of so many at once are bounded otherwise, by address and by user.
    let settings = [("ORCHESTRATOR_URL", url.as_str()), ("CONSOLE_API_RATE", "0"), ("CONSOLE_RATE", "1000")];
    let console = Running::start(&settings).await;
    for n in 0..sessions / 20 {
        add_user("sqlite://console.db", console.data(), &format!("viewer-{n}"), "viewer", PASSWORD).await;
    }
    let mut browsers = Vec::new();
    for n in 0..sessions {
        let mut browser = console.browser();
        let body = json!({"user": format!("viewer-{}", n % (sessions / 20)), "password": PASSWORD});
        let answer = browser.post("/auth/login", &body).await;
        assert_eq!(answer.status, 200, "login {n}: {}", answer.body);
        browsers.push(browser);
    }
    let each: BTreeSet<&String> = browsers.iter().map(|browser| &browser.cookies["af_refresh"]).collect();
    assert_eq!(each.len(), sessions, "each is a session of its own");

    let begun = Instant::now();
    let asking = stream::iter(browsers.iter().enumerate()).map(|(n, browser)| {
        let page = if n % 2 == 0 { OVERVIEW } else { JOBS };
        async move {
            for path in page {
                let answer = browser.get(&format!("/api/orchestrator{path}")).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            }
            page.len() as u64
        }
    });
    // As fast as the console answers, one after another in so many lines: a busy machine only takes longer.
    let asked: u64 = asking.buffer_unordered(LINES).fold(0, async |all, asked| all + asked).await;
    let took = begun.elapsed();
    // The sampler asks too, for its own reasons.
    let mut reached = reached.lock().unwrap().clone();
    reached.retain(|path, _| path.starts_with("/v1/"));
    let all: u64 = reached.values().sum();
    let ten = 10.0 * OVERVIEW.len() as f64 / INTERVAL.as_secs_f64();
    eprintln!(
        "{sessions} sessions asked {asked} times in {:.1} s; {all} reached the service, {:.1} per second; ten sessions on the \
         overview that ask it themselves: {ten:.1} per second; {reached:?}",
        took.as_secs_f64(),
        all as f64 / took.as_secs_f64()
    );
    // Each document once in so long, and once for those who come at the edges: not a question of how many ask.
    let most = (took.as_secs_f64() / FRESH.as_secs_f64()) as u64 + 2;
    assert!(reached.len() == 6 && reached.values().all(|times| *times <= most), "at most {most} each: {reached:?}");
    assert!(asked as f64 >= 3.0 * sessions as f64);
}
