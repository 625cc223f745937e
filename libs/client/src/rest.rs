//! Asks a service on this machine whether it is ready. Small on purpose: one GET, no client library.

use crate::dial::dial;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// One answer may take so long.
const ASK_MAX: Duration = Duration::from_secs(2);
/// More of an answer is not read; a page of metrics of all services has some tens of kilobytes.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// Whether `GET <base>/readyz` answers 200.
///
/// # Errors
/// Why it is not ready: the body, or what went wrong.
pub async fn is_ready(base: &str) -> Result<(), String> {
    page(base, "/readyz").await.map(drop)
}

/// The body of a page that answers 200.
///
/// # Errors
/// No answer, or another one.
pub async fn page(base: &str, path: &str) -> Result<String, String> {
    match timeout(ASK_MAX, get(base, path)).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Err(e)) => Err(e.to_string()),
        Ok(Ok((200, body))) => Ok(body),
        Ok(Ok((status, body))) => Err(format!("{status} {}", body.trim())),
    }
}

/// A request with a JSON body (none when it is empty), and a bearer token where there is one: status and body.
///
/// # Errors
/// No answer within `limit`.
pub async fn call(
    base: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
    limit: Duration,
) -> Result<(u16, String), String> {
    let mut headers = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    if !body.is_empty() || method != "GET" {
        headers += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    match timeout(limit, send(base, method, path, &headers, body)).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(answer) => answer.map_err(|e| e.to_string()),
    }
}

/// An answer with its headers, as [`exchange`] gives it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body as it was sent.
    pub body: String,
}

impl Answer {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A request with these headers and a JSON body (none when it is empty): the whole answer.
///
/// # Errors
/// No answer within `limit`.
pub async fn exchange(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    limit: Duration,
) -> Result<Answer, String> {
    let mut lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    if !body.is_empty() {
        lines += "Content-Type: application/json\r\n";
    }
    if !body.is_empty() || method != "GET" {
        lines += &format!("Content-Length: {}\r\n", body.len());
    }
    match timeout(limit, whole(base, method, path, &lines, body)).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(answer) => answer.map_err(|e| e.to_string()),
    }
}

/// The value of the first series of a metric on a page; `None` while it cannot be read.
pub async fn metric(page: &str, name: &str) -> Option<f64> {
    let (base, path) = page.rsplit_once('/')?;
    let (_, text) = timeout(ASK_MAX, get(base, &format!("/{path}"))).await.ok()?.ok()?;
    let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().find(of_metric)?.rsplit(' ').next()?.parse().ok()
}

async fn get(base: &str, path: &str) -> std::io::Result<(u16, String)> {
    send(base, "GET", path, "", "").await
}

async fn send(base: &str, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<(u16, String)> {
    let answer = whole(base, method, path, headers, body).await?;
    Ok((answer.status, answer.body))
}

async fn whole(base: &str, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<Answer> {
    let (mut stream, address) = dial(base).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = head.lines().skip(1).filter_map(header).collect();
    Ok(Answer { status, headers, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn served(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 1024];
            let n = stream.read(&mut seen).await.unwrap();
            assert!(seen[..n].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let told = is_ready(&base).await;
        server.await.unwrap();
        told
    }

    #[tokio::test]
    async fn a_metric_is_found_by_its_whole_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let text = "# HELP depth x\ndepth_of_all 7\ndepth{site=\"a b\"} 3\n";
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{text}").as_bytes()).await;
            }
        });
        assert_eq!(metric(&page, "depth").await, Some(3.0));
        assert_eq!(metric(&page, "dept").await, None);
        assert_eq!(metric("", "depth").await, None);
    }

    #[tokio::test]
    async fn only_200_is_ready_and_the_reason_is_told() {
        assert_eq!(served("HTTP/1.1 200 OK\r\n\r\n{}").await, Ok(()));
        assert_eq!(
            served("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}").await,
            Err("503 {\"ready\":false}".into())
        );
        assert!(served("hello").await.unwrap_err().contains("not HTTP"));
        assert!(is_ready("http://127.0.0.1:1").await.is_err());
    }
}
