//! `http`: one call to an outside address, under the egress rules.
//!
//! Arguments: `method` (GET), `url`, `headers`, `body` (text as it is, other JSON as JSON) and
//! `timeout_ms`. Result: `status`, some headers, the body up to a cap. Redirects are not followed.
//! Relies on `agentforge-egress` for what may be called; never logs a URL, which may hold a secret.

use super::{Tool, ToolContext, ToolError, ToolOutput, parse_args};
use agentforge_egress::{Client, refusal, retry_after};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use reqwest::{
    Method, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, time::Duration};

/// The tool `http`.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    body_max_bytes: usize,
}

impl Http {
    /// `body_max_bytes` limits what is read of a response; the rest is left and `truncated` is set.
    pub fn new(client: Client, body_max_bytes: usize) -> Self {
        Self { client, body_max_bytes }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Box<RawValue>>,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct Answer {
    status: u16,
    headers: BTreeMap<&'static str, String>,
    body: String,
    encoding: &'static str,
    truncated: bool,
}

/// The scheduled time of a schedule's job, RFC 3339.
const SCHEDULED_AT: &str = "agentforge-scheduled-at";

/// The headers that a result keeps: what a caller acts on, nothing that sets a session.
const KEPT_HEADERS: [&str; 8] =
    ["content-type", "content-length", "date", "etag", "last-modified", "location", "retry-after", "x-request-id"];
/// The client's business; a caller that sets them could smuggle a second request.
const REFUSED_HEADERS: [&str; 8] =
    ["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive"];

#[async_trait]
impl Tool for Http {
    async fn run(&self, ctx: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let args: Args = parse_args(args)?;
        let timeout = args.timeout_ms.map_or(ctx.timeout, Duration::from_millis).min(ctx.timeout);
        let request = self.request(args, ctx.scheduled_at)?.timeout(timeout);
        tokio::select! {
            answer = self.call(request) => answer,
            () = ctx.cancel.cancelled() => Err(ToolError::runtime("stopped during the call")),
        }
    }
}

impl Http {
    fn request(&self, args: Args, scheduled_at: Option<Micros>) -> Result<reqwest::RequestBuilder, ToolError> {
        let method = args.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|m| *m != Method::CONNECT && *m != Method::TRACE)
            .ok_or_else(|| ToolError::validation("`method` is not a method that can be called"))?;
        let url = Url::parse(&args.url).map_err(|e| ToolError::validation(format!("`url` is not a URL: {e}")))?;
        let request = self
            .client
            .request(method, url)
            .map_err(|refusal| ToolError::new(ErrorClass::Permission, refusal.to_string()))?;
        let mut headers = headers(&args.headers)?;
        // What the job's own arguments say stays.
        if let Some(turn) = scheduled_at.map(|turn| turn.timestamp().to_string())
            && let Ok(turn) = HeaderValue::try_from(turn)
        {
            headers.entry(SCHEDULED_AT).or_insert(turn);
        }
        let Some(body) = args.body else { return Ok(request.headers(headers)) };
        let text = match serde_json::from_str::<String>(body.get()) {
            Ok(text) => text,
            Err(_) => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                body.get().to_owned()
            }
        };
        Ok(request.headers(headers).body(text))
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<ToolOutput, ToolError> {
        let response = send(request).await.map_err(of_transport)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = agentforge_egress::read_body_capped(response, self.body_max_bytes).await.map_err(of_transport)?;
        if let Some(error) = of_status(status, &headers) {
            return Err(error.log_tail(excerpt(&body.bytes)));
        }
        let (text, encoding) = match String::from_utf8(body.bytes) {
            Ok(text) => (text, "utf-8"),
            // The limit may cut a character in two; that does not make text binary.
            Err(e) if body.truncated && e.utf8_error().error_len().is_none() => {
                let end = e.utf8_error().valid_up_to();
                let mut bytes = e.into_bytes();
                bytes.truncate(end);
                (String::from_utf8_lossy(&bytes).into_owned(), "utf-8")
            }
            Err(e) => (hex::encode(e.into_bytes()), "hex"),
        };
        ToolOutput::json(&Answer {
            status: status.as_u16(),
            headers: kept(&headers),
            body: text,
            encoding,
            truncated: body.truncated,
        })
    }
}

/// Sends it. A kept connection may be closed by the server just as the request is sent, which is not the call's fault:
/// requests that may be repeated without harm (RFC 9110, 9.2.2) are sent again. A POST is not, as the server may have
/// acted on it; one with an `Idempotency-Key` declares that it may be repeated.
async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, reqwest::Error> {
    let (client, request) = request.build_split();
    let request = request?;
    let again = Some(&request).filter(|r| may_be_repeated(r)).and_then(reqwest::Request::try_clone);
    match (client.execute(request).await, again) {
        (Err(error), Some(again)) if is_cut(&error) => client.execute(again).await,
        (ended, _) => ended,
    }
}

fn may_be_repeated(request: &reqwest::Request) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) || request.headers().contains_key("idempotency-key")
}

/// Whether a connection was there and broke before an answer.
fn is_cut(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout() && refusal(error).is_none()
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, ToolError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| ToolError::validation("`headers` has a name that is none"))?;
        if REFUSED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(ToolError::validation(format!("the header {name} cannot be set")));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| ToolError::validation(format!("the header {name} has a value that cannot be sent")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn kept(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let text = |name: &&'static str| {
        headers.get(*name).map(|value| (*name, String::from_utf8_lossy(value.as_bytes()).into_owned()))
    };
    KEPT_HEADERS.iter().filter_map(text).collect()
}

/// What an unsuccessful status means for the job.
fn of_status(status: StatusCode, headers: &HeaderMap) -> Option<ToolError> {
    let class = match status.as_u16() {
        200..=299 => return None,
        401 | 403 | 407 => ErrorClass::Permission,
        408 | 425 => ErrorClass::Transient,
        429 => ErrorClass::RateLimited,
        500..=599 => ErrorClass::Transient,
        _ => ErrorClass::Validation,
    };
    let mut message = format!("the server answered {status}");
    if status.is_redirection() && headers.contains_key(LOCATION) {
        message.push_str("; redirects are not followed");
    }
    let wish = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    let may_come_again = matches!(class, ErrorClass::Transient | ErrorClass::RateLimited);
    let wish = wish.filter(|_| may_come_again).and_then(|v| retry_after(v, jiff::Timestamp::now()));
    Some(ToolError::new(class, message).retry_after(wish))
}

/// What went wrong before there was an answer. The URL is left out: it may hold a secret.
fn of_transport(error: reqwest::Error) -> ToolError {
    if let Some(refusal) = refusal(&error) {
        return ToolError::new(ErrorClass::Permission, refusal.to_string());
    }
    if error.is_builder() {
        return ToolError::validation(format!("the request cannot be made: {}", chain(&error.without_url())));
    }
    let class = if error.is_timeout() { ErrorClass::Timeout } else { ErrorClass::Network };
    ToolError::new(class, format!("the call failed: {}", chain(&error.without_url())))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(2 * 1024)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{args, context};
    use agentforge_egress::{Policy, Timeouts};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn http(allow: &[&str]) -> Http {
        let policy = Policy::from_entries(allow.iter().copied()).0;
        Http::new(agentforge_egress::client(&policy, Timeouts::default()).unwrap(), 16)
    }

    async fn server(status: &str, headers: &str, body: &str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn an_answer_keeps_status_some_headers_and_the_body_to_its_cap() {
        let port =
            server("201 Created", "content-type: text/plain\r\nset-cookie: s=1\r\n", "0123456789abcdefXYZ").await;
        let output = http(&["127.0.0.1"])
            .run(&context(), &args(&format!(r#"{{"url":"http://127.0.0.1:{port}/"}}"#)))
            .await
            .unwrap();
        let value: serde_json::Value = serde_json::from_str(output.get()).unwrap();
        assert_eq!(value["status"], 201);
        assert_eq!(value["body"], "0123456789abcdef");
        assert_eq!(value["truncated"], true);
        assert_eq!(value["headers"]["content-type"], "text/plain");
        assert!(value["headers"].get("set-cookie").is_none());
    }

    #[tokio::test]
    async fn the_receiver_is_told_the_time_that_a_scheduled_job_stands_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let ask = async |turn: Option<i64>, headers: &str| {
            let ctx = ToolContext { scheduled_at: turn.map(Micros), ..context() };
            let (tool, args) = (http(&["127.0.0.1"]), args(&format!(r#"{{"url":"{url}","headers":{headers}}}"#)));
            let receive = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let read = socket.read(&mut buffer).await.unwrap();
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
                String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase()
            };
            let (answer, request) = tokio::join!(tool.run(&ctx, &args), receive);
            answer.unwrap();
            request
        };
        let turn = Some(1_790_000_000_000_000);
        assert!(ask(turn, "{}").await.contains("\r\nagentforge-scheduled-at: 2026-09-21t14:13:20z\r\n"));
        assert!(!ask(None, "{}").await.contains(SCHEDULED_AT));
        let own = ask(turn, r#"{"AgentForge-Scheduled-At":"mine"}"#).await;
        assert!(own.contains("agentforge-scheduled-at: mine\r\n") && !own.contains("2026-09"), "{own}");
    }

    #[tokio::test]
    async fn statuses_become_classes_with_the_servers_wish() {
        let cases = [
            ("429 Too Many", "retry-after: 7\r\n", ErrorClass::RateLimited, Some(7)),
            ("503 Busy", "retry-after: 3\r\n", ErrorClass::Transient, Some(3)),
            ("500 Oops", "retry-after: 3\r\n", ErrorClass::Transient, Some(3)),
            ("404 Gone", "retry-after: 3\r\n", ErrorClass::Validation, None),
            ("404 Gone", "", ErrorClass::Validation, None),
            ("403 No", "", ErrorClass::Permission, None),
            ("302 Found", "location: http://127.0.0.1:1/\r\n", ErrorClass::Validation, None),
        ];
        for (status, headers, class, after) in cases {
            let port = server(status, headers, "why").await;
            let error = http(&["127.0.0.1"])
                .run(&context(), &args(&format!(r#"{{"url":"http://127.0.0.1:{port}/"}}"#)))
                .await
                .unwrap_err();
            assert_eq!((error.class, error.retry_after), (class, after.map(Duration::from_secs)), "{status}");
            assert_eq!(error.log_tail, "why");
        }
    }

    /// Answers each connection's first request, and closes as the second one comes.
    async fn closing_server() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let count = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    for is_first in [true, false] {
                        if socket.read(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if is_first {
                            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                        }
                    }
                });
            }
        });
        (port, seen)
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_server_closes_costs_nothing_where_repeating_is_harmless() {
        for (more, survives) in [
            (r#""method":"GET""#, true),
            (r#""method":"PUT","body":"x""#, true),
            (r#""method":"POST","body":"x","headers":{"Idempotency-Key":"k"}"#, true),
            (r#""method":"POST","body":"x""#, false),
        ] {
            let ((port, seen), tool) = (closing_server().await, http(&["127.0.0.1"]));
            let call = format!(r#"{{"url":"http://127.0.0.1:{port}/",{more}}}"#);
            tool.run(&context(), &args(&call)).await.unwrap();
            let second = tool.run(&context(), &args(&call)).await;
            assert_eq!(second.is_ok(), survives, "{more}: {:?}", second.err());
            assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), if survives { 3 } else { 2 }, "{more}");
        }
    }

    #[tokio::test]
    async fn what_egress_forbids_is_a_matter_of_permission() {
        for url in ["http://example.org/", "https://127.0.0.1/", "https://localhost:9/", "ftp://example.org/"] {
            let error = http(&[]).run(&context(), &args(&format!(r#"{{"url":"{url}"}}"#))).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Permission, "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_the_networks_fault_and_the_url_stays_unsaid() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let call = args(&format!(r#"{{"url":"http://127.0.0.1:{port}/?token=s3cret"}}"#));
        let error = http(&["127.0.0.1"]).run(&context(), &call).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Network);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn arguments_that_cannot_be_sent_are_refused() {
        for bad in [
            r#"{"url":"no url"}"#,
            r#"{"url":"https://example.org/","method":"CONNECT"}"#,
            r#"{"url":"https://example.org/","headers":{"Host":"x"}}"#,
            r#"{"url":"https://example.org/","headers":{"a":"b\r\nc: d"}}"#,
            r#"{"url":"https://example.org/","headers":{"Transfer-Encoding":"chunked"}}"#,
            r#"{"url":"https://example.org/","follow":true}"#,
        ] {
            let error = http(&["example.org"]).run(&context(), &args(bad)).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Validation, "{bad}: {error}");
        }
    }
}
