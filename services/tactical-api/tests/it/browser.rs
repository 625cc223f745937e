//! A real browser as the client: its own EventSource, which reconnects by itself, and its own WebSocket.
//!
//! The page comes from a small server of the test that passes everything else on to the API, because a
//! page may only read streams of its own origin. It also cuts connections, and takes the page's report.

use crate::support::{Api, SOON, World};
use agentforge_harness::{Proc, require};
use serde_json::Value;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};

/// More than a page sends before a test reads.
const REPORTS_MAX: usize = 64;

/// Serves `page` at `/`, takes reports at `/report`, passes all else to `api`; cuts streams on request.
struct Origin {
    address: String,
    reports: mpsc::Receiver<Value>,
    cut: Arc<Notify>,
}

impl Origin {
    async fn start(page: &'static str, api: &Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, page.to_owned(), api)
    }

    fn serve(listener: TcpListener, page: String, api: &Api) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let (cut, api, page) = (Arc::new(Notify::new()), api.address().to_owned(), Arc::<str>::from(page));
        let cutting = cut.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, page.clone(), api.clone(), report.clone(), cutting.clone()));
            }
        });
        Self { address, reports, cut }
    }

    async fn report(&mut self) -> Value {
        timeout(SOON, self.reports.recv()).await.expect("the page reports soon").unwrap()
    }
}

async fn serve(mut stream: TcpStream, page: Arc<str>, api: String, report: mpsc::Sender<Value>, cut: Arc<Notify>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    if text.starts_with("POST /report") {
        let (top, body) = text.split_once("\r\n\r\n").unwrap();
        let length = top.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = body.to_owned();
        while body.len() < length.unwrap_or(0) {
            let mut more = vec![0; 4096];
            let n = stream.read(&mut more).await.unwrap();
            body += std::str::from_utf8(&more[..n]).unwrap();
        }
        let _ = report.send(serde_json::from_str(&body).unwrap()).await;
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    } else if text.starts_with("GET / ") {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
            page.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    } else if !text.contains(" /events/") {
        // The API would keep the connection, and the browser would send its next report there.
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    } else if let Ok(mut upstream) = TcpStream::connect(api).await {
        let _ = upstream.write_all(&head).await;
        tokio::select! {
            _ = copy_bidirectional(&mut stream, &mut upstream) => {}
            () = cut.notified() => {}
        }
    }
}

/// A browser without a window that shows an address.
fn browser(address: &str, profile: &std::path::Path) -> Proc {
    Proc::builder("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg("--remote-debugging-port=0")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{address}/"))
        .start()
}

const FOLLOWING: &str = r#"<!doctype html><script>
const seen = [], report = (what) => fetch('/report', {method: 'POST', body: JSON.stringify(what)});
const source = new EventSource('/events/stream?snapshot=true');
let opened = 0;
source.onopen = () => report({opened: ++opened});
for (const kind of ['marker', 'zone', 'remove', 'gap'])
  source.addEventListener(kind, (e) => {
    const f = JSON.parse(e.data);
    seen.push([kind, f.properties ? f.properties.title : f.reason, e.lastEventId]);
    if (f.properties && ['half', 'end'].includes(f.properties.title)) report({seen});
  });
</script>"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_eventsource_misses_nothing_when_its_connection_is_cut() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let world = World::start(&[("TACTICAL_SSE_HEARTBEAT_SECS", "0.2")]).await;
    let bus = world.bus().await;
    bus.marker("a", "before").await;
    world.api.until_metric("tactical_features{kind=\"marker\"}", 1.0).await;
    let mut origin = Origin::start(FOLLOWING, &world.api).await;
    let profile = tempfile::tempdir().unwrap();
    let _browser = browser(&origin.address, profile.path());
    assert_eq!(origin.report().await["opened"], 1);
    bus.marker("a", "half").await;
    assert_eq!(origin.report().await["seen"].as_array().unwrap().len(), 2);
    origin.cut.notify_waiters();
    world.api.until_clients(0.0, 0.0).await;
    for n in 0..5 {
        bus.marker("a", &format!("while away {n}")).await;
    }
    assert_eq!(origin.report().await["opened"], 2);
    bus.marker("b", "end").await;
    let report = origin.report().await;
    let seen: Vec<(&str, &str)> = report["seen"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one[0].as_str().unwrap(), one[1].as_str().unwrap()))
        .collect();
    let away: Vec<String> = (0..5).map(|n| format!("while away {n}")).collect();
    let mut expected = vec![("marker", "before"), ("marker", "half")];
    expected.extend(away.iter().map(|title| ("marker", title.as_str())));
    expected.push(("marker", "end"));
    assert_eq!(seen, expected);
}

const REFUSED: &str = r#"<!doctype html><script>
const report = (what) => fetch('/report', {method: 'POST', body: JSON.stringify(what)});
const sse = () => new Promise((done) => {
  const source = new EventSource('/events/stream');
  source.onopen = () => { source.close(); done('open'); };
  source.onerror = () => done(source.readyState === EventSource.CLOSED ? 'closed' : 'again');
});
const ws = (protocols) => new Promise((done) => {
  const socket = new WebSocket(`ws://${location.host}/events/ws`, protocols);
  socket.onmessage = () => socket.close();
  socket.onclose = (e) => done([e.code, e.reason.split(':')[0], socket.protocol]);
});
(async () => {
  await report({sse: await sse(), ws: await ws([]), wrong: await ws(['agentforge.v1', 'bearer.wrong']),
    right: await ws(['agentforge.v1', 'bearer.read-token-of-a-test'])});
})();
</script>"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_refusals_and_may_send_its_token_as_a_subprotocol() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let world = World::start(&[
        ("TACTICAL_REQUIRE_BEARER", "on"),
        ("TACTICAL_READ_TOKENS", "read-token-of-a-test"),
        ("TACTICAL_WS_HEARTBEAT_SECS", "0.2"),
    ])
    .await;
    let mut origin = Origin::start(REFUSED, &world.api).await;
    let profile = tempfile::tempdir().unwrap();
    let _browser = browser(&origin.address, profile.path());
    let report = origin.report().await;
    // A status of 401 ends an EventSource for good.
    assert_eq!(report["sse"], "closed");
    assert_eq!(report["ws"], serde_json::json!([4401, "unauthorized", ""]));
    assert_eq!(report["wrong"], serde_json::json!([4401, "unauthorized", "agentforge.v1"]));
    // One that is let in hears a heartbeat and closes by itself.
    assert_eq!(report["right"], serde_json::json!([1000, "", "agentforge.v1"]));
}

const FOREIGN: &str = r#"<!doctype html><script>
const report = (what) => fetch('/report', {method: 'POST', body: JSON.stringify(what)});
const sse = (api) => new Promise((done) => {
  const source = new EventSource(`http://${api}/events/stream?snapshot=true`);
  source.addEventListener('marker', (e) => { source.close(); done(JSON.parse(e.data).properties.title); });
  source.onerror = () => { done('refused'); source.close(); };
});
const ws = (api) => new Promise((done) => {
  const socket = new WebSocket(`ws://${api}/events/ws?snapshot=true`);
  socket.onmessage = (e) => { done(JSON.parse(e.data).data.properties.title); socket.close(); };
  socket.onclose = (e) => done([e.code, e.reason.split(':')[0]]);
});
const get = (api, headers) => fetch(`http://${api}/v1/rejected`, {headers}).then((r) => r.status, () => 'blocked');
const post = (api) => fetch(`http://${api}/v1/markers`, {method: 'POST',
  headers: {'content-type': 'application/json', 'idempotency-key': 'x'},
  body: JSON.stringify({id: 'b', title: 'from a page', coordinates: [1, 2]})}).then((r) => r.status, () => 'blocked');
(async () => {
  for (const api of ['CLOSED', 'OPEN'])
    await report({sse: await sse(api), ws: await ws(api), get: await get(api, {}), asked: await get(api, {'x-request-id': '1'}),
      post: await post(api)});
})();
</script>"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_sees_nothing_unless_it_is_named() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let world = World::start(&[]).await;
    world.bus().await.marker("a", "secret").await;
    world.api.until_metric("tactical_features{kind=\"marker\"}", 1.0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let named = format!("https://maps.example,http://{}", listener.local_addr().unwrap());
    let open = Api::start(&world.nats.url(), &[("TACTICAL_ALLOWED_ORIGINS", &named)]).await;
    let page = FOREIGN.replace("CLOSED", world.api.address()).replace("OPEN", open.address());
    let mut origin = Origin::serve(listener, page, &world.api);
    let profile = tempfile::tempdir().unwrap();
    let _browser = browser(&origin.address, profile.path());
    let kept_out = serde_json::json!({"sse": "refused", "ws": [4403, "origin_not_allowed"], "get": "blocked",
        "asked": "blocked", "post": "blocked"});
    assert_eq!(origin.report().await, kept_out);
    let let_in = serde_json::json!({"sse": "secret", "ws": "secret", "get": 200, "asked": 200, "post": 201});
    assert_eq!(origin.report().await, let_in);
}

const PATIENT: &str = r#"<!doctype html><script>
const report = (what) => fetch('/report', {method: 'POST', body: JSON.stringify(what)});
const source = new EventSource('/events/stream?snapshot=true');
const told = new Set();
for (const name of ['too_many_clients', 'unavailable', 'stale', 'fresh'])
  source.addEventListener(name, (e) => {
    if (!told.has(name)) report({told: name, reason: JSON.parse(e.data).reason});
    told.add(name);
  });
source.addEventListener('marker', (e) => report({title: JSON.parse(e.data).properties.title}));
</script>"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_eventsource_outlives_a_full_service_and_one_without_its_stream() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let mut nats = agentforge_harness::NatsServer::start(Default::default()).await;
    let url = nats.url();
    let seeded = Api::start(&url, &[]).await;
    crate::support::Bus::connect(&url).await.marker("a", "there").await;
    drop(seeded);
    nats.kill9();
    // The service starts while its stream is unavailable, and has room for one.
    let api = Api::start_unready(&url, &[("TACTICAL_STREAM_MAX_CLIENTS", "1")]).await;
    let mut origin = Origin::start(PATIENT, &api).await;
    let profile = tempfile::tempdir().unwrap();
    let browser = browser(&origin.address, profile.path());
    let told = |name: &str| serde_json::json!({"told": name, "reason": name});
    assert_eq!(origin.report().await, told("unavailable"));
    nats.restart().await;
    // It comes back by itself.
    assert_eq!(origin.report().await["title"], "there");
    nats.kill9();
    assert_eq!(origin.report().await, serde_json::json!({"told": "stale", "reason": "source_away"}));
    nats.restart().await;
    assert_eq!(origin.report().await, serde_json::json!({"told": "fresh", "reason": "source_back"}));
    drop(browser);
    api.until_clients(0.0, 0.0).await;

    let held = crate::support::Sse::open(api.address(), "/events/stream", &[]).await;
    api.until_clients(1.0, 0.0).await;
    let profile = tempfile::tempdir().unwrap();
    let _browser = self::browser(&origin.address, profile.path());
    assert_eq!(origin.report().await, told("too_many_clients"));
    drop(held);
    assert_eq!(origin.report().await["title"], "there");
}
