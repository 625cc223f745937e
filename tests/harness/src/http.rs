//! One GET to a server of a test. Small on purpose: no client library, no TLS, no redirects.

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
    timeout(ANSWER, get(url, headers)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn get(url: &str, headers: &[&str]) -> io::Result<(u16, Vec<u8>)> {
    let rest = url.strip_prefix("http://").ok_or(io::ErrorKind::InvalidInput)?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).await?;
    // 1.0, so that the body is everything up to the end.
    let mut request = format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let wrong = || io::Error::other("the answer is not HTTP");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(wrong)?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
    Ok((status, answer.split_off(end + 4)))
}
