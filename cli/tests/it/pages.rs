//! A web page in a real browser against every listener of `agentforge dev`: one of another origin, one whose owner points
//! its name to this machine, and one of the same origin.

use super::support::{Dev, SOON};
use agentforge_harness::{Proc, http_get, require};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Serves `page` at `/page` and takes its reports; what else it is asked goes on to `behind` with its Host, which is
/// what a name that is pointed to this machine does.
struct Site {
    port: u16,
    reports: mpsc::Receiver<Value>,
}

impl Site {
    async fn start(page: String, behind: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, reports) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, page.clone(), behind.clone(), report.clone()));
            }
        });
        Self { port, reports }
    }

    async fn report(&mut self) -> Value {
        timeout(SOON, self.reports.recv()).await.expect("the page reports soon").unwrap()
    }
}

async fn serve(mut stream: TcpStream, page: String, behind: String, report: mpsc::Sender<Value>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let (top, body) = text.split_once("\r\n\r\n").unwrap();
    if top.starts_with("POST /report") {
        let length = top.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = body.as_bytes().to_vec();
        while body.len() < length.unwrap_or(0) {
            assert!(stream.read_buf(&mut body).await.unwrap() > 0);
        }
        let _ = report.send(serde_json::from_slice(&body).unwrap()).await;
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    } else if top.starts_with("GET /page ") {
        let length = page.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n");
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes()).await;
    } else if top.starts_with("GET /favicon.ico") {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    } else if let Ok(mut upstream) = TcpStream::connect(&behind).await {
        // One request for each connection: the browser would send its report on one that is kept, to the listener.
        let _ = upstream.write_all(text.replace("Connection: keep-alive", "Connection: close").as_bytes()).await;
        let _ = copy_bidirectional(&mut stream, &mut upstream).await;
    }
}

/// A browser without a window. Names of `evil.example` are 127.0.0.1, as their owner may say.
fn browser(url: &str, profile: &std::path::Path) -> Proc {
    Proc::builder("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--remote-debugging-port=0", "--host-resolver-rules=MAP evil.example 127.0.0.1"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .start()
}

/// What a page tries at each base URL of `BASES`; what it could see of the answers.
const TRIES: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const bases = BASES, paths = ['/v1/jobs', '/v1/alerts', '/v1/dead-letters', '/v1/endpoints', '/v1/markers', '/status', '/metrics',
  '/healthz', '/readyz', '/openapi.json'];
const within = (promise) => Promise.race([promise, new Promise((done) => setTimeout(() => done('silence'), 5000))]);
const seen = (promise) => within(promise.then((r) => r.type === 'opaque' ? 'opaque' : r.status, () => 'blocked'));
const sse = (url) => within(new Promise((done) => {
  const source = new EventSource(url);
  source.onopen = () => { source.close(); done('open'); };
  source.onerror = () => { source.close(); done('refused'); };
}));
// The live picture accepts and closes with a code of its own, because a page sees no status; open is what delivers.
const ws = (url) => within(new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onmessage = () => { socket.close(); done('open'); };
  socket.onclose = () => done('refused');
}));
const form = (url) => within(new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.name = 'f' + Math.random();
  document.body.append(frame);
  const form = document.createElement('form');
  Object.assign(form, {method: 'post', action: url, target: frame.name, enctype: 'text/plain'});
  form.innerHTML = '<input name=\'{"tool":"echo","args":{"a":"\' value=\'"}}\'>';
  document.body.append(form);
  frame.onload = () => done('loaded');
  form.submit();
}));
(async () => {
  const report = {};
  for (const base of bases) {
    const here = report[base] = {};
    for (const path of paths) {
      here['GET ' + path] = await seen(fetch(base + path));
      here['POST ' + path] = await seen(fetch(base + path, {method: 'POST', headers: {'content-type': 'text/plain'},
        body: '{"tool":"echo"}', mode: base ? 'no-cors' : 'same-origin'}));
    }
    here.form = await form((base || location.origin) + '/v1/jobs');
    here.sse = await sse(base + '/events/stream');
    here.ws = await ws((base || location.origin).replace('http', 'ws') + '/events/ws');
  }
  await fetch('/report', {method: 'POST', body: JSON.stringify(report)});
})();
</script>"#;

/// Every HTTP listener of it, by the service's name: the port of probes too.
fn listeners(dev: &Dev) -> Vec<(String, String)> {
    let services = dev.ready["services"].as_object().unwrap();
    let urls = services.iter().flat_map(|(name, at)| {
        let of = |key: &str| {
            let url = at[key].as_str()?.trim_end_matches("/metrics").trim_end_matches('/').to_owned();
            Some((format!("{name} {key}"), url))
        };
        [of("http"), of("grpc"), of("metrics")].into_iter().flatten()
    });
    urls.collect()
}

fn jobs(dev: &Dev) -> usize {
    dev.run(["job", "list"]).ok()["jobs"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_listener_of_dev_serves_a_page_of_another_origin() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let home = tempfile::tempdir().unwrap();
    let dev = Dev::start(&home, &[]).await;
    let listeners = listeners(&dev);
    assert!(listeners.len() >= 8, "{listeners:?}");
    let bases: Vec<&str> = listeners.iter().map(|(_, url)| url.as_str()).collect();
    let page = TRIES.replace("BASES", &json!(bases).to_string());
    let mut site = Site::start(page, "127.0.0.1:1".to_owned()).await;
    let profile = tempfile::tempdir().unwrap();
    let _browser = browser(&format!("http://evil.example:{}/page", site.port), profile.path());
    let report = site.report().await;
    for (name, url) in &listeners {
        let seen = report[url].as_object().unwrap_or_else(|| panic!("{name}: {report}"));
        for (what, outcome) in seen {
            let refused = match what.as_str() {
                "form" => json!("loaded"),
                "sse" | "ws" => json!("refused"),
                post if post.starts_with("POST") => json!("opaque"),
                _ => json!("blocked"),
            };
            // A port of gRPC does not speak HTTP/1.
            let is_grpc = name.ends_with("grpc");
            // Where the answer says that it is for its own origin only, a page does not even learn that there was one.
            let is_withheld = what.starts_with("POST") && *outcome == json!("blocked");
            let is_fine = *outcome == refused || is_withheld || is_grpc && *outcome != json!("open");
            assert!(is_fine, "{name} {what}: {outcome}");
        }
    }
    // An opaque answer says nothing; what the server did does.
    assert_eq!(jobs(&dev), 0, "a page submitted a job");
    let (_, metrics) = http_get(dev.ready["services"]["orchestrator"]["metrics"].as_str().unwrap(), &[]).await.unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    for line in metrics.lines().filter(|l| l.starts_with("agentforge_http_requests_total") && l.contains("POST")) {
        let is_refused =
            ["400", "401", "403", "404", "405", "415"].iter().any(|s| line.contains(&format!("status=\"{s}\"")));
        assert!(is_refused || line.ends_with(" 0"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_pointed_to_this_machine_opens_no_listener_and_its_own_name_does() {
    let (Some(()), Some(())) = (require("nats-server"), require("chromium")) else { return };
    let home = tempfile::tempdir().unwrap();
    let dev = Dev::start(&home, &[]).await;
    let page = TRIES.replace("BASES", r#"[""]"#);
    for (name, url) in listeners(&dev).into_iter().filter(|(name, _)| !name.ends_with("grpc")) {
        let behind = url.trim_start_matches("http://").to_owned();
        let mut site = Site::start(page.clone(), behind).await;
        let profile = tempfile::tempdir().unwrap();
        let evil = browser(&format!("http://evil.example:{}/page", site.port), profile.path());
        let report = site.report().await;
        for (what, outcome) in report[""].as_object().unwrap() {
            // 404 for what it does not have, and documents that are the same for everyone.
            let is_public = name.starts_with("tactical-api http") || name.starts_with("broadcaster http");
            let is_public = is_public && what.ends_with("/openapi.json");
            let is_fine = match what.as_str() {
                "form" => true,
                "sse" | "ws" => *outcome == json!("refused"),
                _ => [403, 404, 405, 415].iter().any(|status| *outcome == json!(status)) || is_public,
            };
            assert!(is_fine, "{name} as evil.example, {what}: {outcome}");
        }
        drop(evil);
        let profile = tempfile::tempdir().unwrap();
        let _own = browser(&format!("http://127.0.0.1:{}/page", site.port), profile.path());
        let report = site.report().await;
        assert_eq!(report[""]["GET /healthz"], 200, "{name} under its own name");
        if name == "orchestrator http" {
            assert_eq!(report[""]["GET /v1/jobs"], 200);
            assert_eq!(report[""]["POST /v1/jobs"], 415, "text is no submission");
        }
    }
    assert_eq!(jobs(&dev), 0);
}
