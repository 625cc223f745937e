//! HTTP to a tactical API, with TLS for an `https://` URL: one request, or a stream of events.

use crate::dial::{Stream, dial};
use serde_json::Value;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

/// One answer may take so long.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// More of an answer is not read.
const ANSWER_MAX_BYTES: u64 = 1 << 20;
/// A stream that is silent for longer is dead: heartbeats come more often.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Longest line of a stream: a zone of ten thousand points.
const LINE_MAX_BYTES: u64 = 4 << 20;

/// Why there is no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another kind of URL.
    #[error("{0} is not an http:// or https:// address with a port")]
    Url(String),
    /// Nothing that can be read.
    #[error("no answer from the tactical API at {address}: {reason}")]
    NoAnswer {
        /// Where it was asked.
        address: String,
        /// The cause, as the HTTP client reports it.
        reason: String,
    },
    /// It said no.
    #[error("the tactical API refused ({status} {code}): {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
        /// The problem's sentence.
        detail: String,
    },
}

/// What a request gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a tactical API is, and who asks.
#[derive(Clone)]
pub struct Endpoint {
    /// Scheme, host and port.
    address: String,
    token: Option<String>,
}

impl Endpoint {
    /// From an `http://` or `https://` URL.
    ///
    /// # Errors
    /// It is another kind of URL.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let address = url.trim_end_matches('/');
        let host = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
        host.filter(|host| !host.is_empty() && !host.contains('/')).ok_or_else(|| Error::Url(url.to_owned()))?;
        Ok(Self { address: address.to_owned(), token: token.map(str::to_owned) })
    }

    fn head(&self, host: &str, method: &str, path: &str) -> String {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}")
    }

    fn failed(&self, error: impl std::fmt::Display) -> Error {
        Error::NoAnswer { address: self.address.clone(), reason: error.to_string() }
    }

    /// One request with an answer in JSON.
    ///
    /// # Errors
    /// No answer, or a refusal with its reason.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let exchange = timeout(ANSWER_MAX, self.exchange(method, path, body)).await;
        let (status, answer) =
            exchange.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| self.failed(e))?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match status {
            200..300 => Ok(answer),
            _ => Err(refused(status, &answer)),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<(u16, Vec<u8>)> {
        let (mut stream, host) = dial(&self.address).await?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.head(&host, method, path),
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
        let status = status_of(&String::from_utf8_lossy(&answer[..end]))?;
        Ok((status, answer.split_off(end + 4)))
    }

    /// Opens the stream of events, behind the last id if there is one.
    ///
    /// # Errors
    /// No answer, or a refusal with its reason.
    pub async fn follow(&self, path: &str, last_id: &str) -> Result<Events> {
        let open = async {
            let (mut stream, host) = dial(&self.address).await?;
            let last = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
            let request = format!("{}Accept: text/event-stream\r\n{last}\r\n", self.head(&host, "GET", path));
            stream.write_all(request.as_bytes()).await?;
            let mut events = Events { reader: BufReader::new(stream), last_id: last_id.to_owned() };
            let status = status_of(&events.line().await?)?;
            while !events.line().await?.is_empty() {}
            io::Result::Ok((status, events))
        };
        let opened = timeout(ANSWER_MAX, open).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (status, events) = opened.map_err(|e| self.failed(e))?;
        if status == 200 {
            return Ok(events);
        }
        let mut body = String::new();
        let _ = timeout(ANSWER_MAX, events.reader.take(ANSWER_MAX_BYTES).read_to_string(&mut body)).await;
        Err(refused(status, &serde_json::from_str(&body).unwrap_or_default()))
    }
}

fn status_of(head: &str) -> io::Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn refused(status: u16, problem: &Value) -> Error {
    let text = |key: &str, otherwise: &str| problem[key].as_str().unwrap_or(otherwise).to_owned();
    Error::Refused { status, code: text("code", "refused"), detail: text("detail", "no reason was given") }
}

/// An event of the stream.
pub struct Event {
    /// `marker`, `zone`, `remove`, `gap` and the like.
    pub kind: String,
    /// A Feature, or what a notice says.
    pub data: Value,
}

/// The stream of events.
pub struct Events {
    reader: BufReader<Box<dyn Stream>>,
    /// Where to resume.
    pub last_id: String,
}

impl Events {
    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let mut bounded = (&mut self.reader).take(LINE_MAX_BYTES);
        match timeout(SILENCE_MAX, bounded.read_line(&mut line)).await {
            Ok(Ok(n)) if n > 0 => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            Ok(Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// The stream ended, or broke.
    pub async fn next(&mut self) -> io::Result<Event> {
        let (mut kind, mut data) = (String::new(), None);
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                None if line.is_empty() => {
                    if let Some(data) = data.take() {
                        return Ok(Event { kind, data });
                    }
                    kind.clear();
                }
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("id", value)) => value.clone_into(&mut self.last_id),
                Some(("data", value)) => data = Some(serde_json::from_str(value).map_err(io::Error::other)?),
                _ => {}
            }
        }
    }
}
