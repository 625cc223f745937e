//! One GET or POST to a server of a test. Small on purpose: no client library, no TLS, no redirects.

use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A server on this machine answers in less, however busy it is.
const ANSWER: Duration = Duration::from_secs(30);

/// Status and body of `GET url`; further header lines may be given, such as `Authorization: …`.
///
/// # Errors
/// No connection, no answer within 30 s, or one that is not HTTP.
pub async fn http_get(url: &str, headers: &[&str]) -> io::Result<(u16, Vec<u8>)> {
    timeout(ANSWER, ask("GET", url, headers, b"")).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Status and body of `POST url` with a JSON body.
///
/// # Errors
/// No connection, no answer within 30 s, or one that is not HTTP.
pub async fn http_post(url: &str, json: &str) -> io::Result<(u16, Vec<u8>)> {
    http_post_with(url, &[], json).await
}

/// As [`http_post`], with further header lines.
///
/// # Errors
/// As [`http_post`].
pub async fn http_post_with(url: &str, headers: &[&str], json: &str) -> io::Result<(u16, Vec<u8>)> {
    let length = format!("Content-Length: {}", json.len());
    let headers = [headers, &["Content-Type: application/json", &length]].concat();
    timeout(ANSWER, ask("POST", url, &headers, json.as_bytes()))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(method: &str, url: &str, headers: &[&str], body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let rest = url.strip_prefix("http://").ok_or(io::ErrorKind::InvalidInput)?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).await?;
    // 1.0, so that the body is everything up to the end.
    let mut request = format!("{method} /{path} HTTP/1.0\r\nHost: {address}\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let wrong = || io::Error::other("the answer is not HTTP");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(wrong)?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
    Ok((status, answer.split_off(end + 4)))
}
