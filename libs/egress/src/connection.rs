//! One HTTP/1.1 connection and the requests on it, one after the other.
//!
//! The connection is driven by the task that awaits an answer: no task of its own, so a request costs no switch between
//! tasks, and a dropped [`Connection`] is closed. What an answer claims about its size is not trusted; a connection
//! that carried one over the limit is not used again.

use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The head of an answer, at most; hyper's own least is 8 KiB.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Header lines of an answer, at most.
const HEADERS_MAX: usize = 64;

/// An open connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    is_over: bool,
    is_spoilt: bool,
    /// Whether an answer was read on it before.
    is_used: bool,
    /// Whether the peer said anything since the last request was begun.
    heard: Arc<AtomicBool>,
    opened: Instant,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// The answer's headers, as they were sent.
    pub headers: HeaderMap,
    /// Bytes of the body that were read, and thrown away.
    pub body_bytes: usize,
    /// Whether the body was larger than the limit.
    pub is_truncated: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request was not sent: the connection was closed before. Sending it on another one is safe.
    #[error("the connection was closed before the request")]
    NotSent(#[source] hyper::Error),
    /// The connection had carried an answer before, and broke without a byte of this one: most likely the peer
    /// closed it as idle while the request was on its way. A request that may be repeated can be sent once more,
    /// on a fresh connection.
    #[error("the idle connection was closed as the request was sent")]
    Stale(#[source] hyper::Error),
    /// The connection broke or spoke nonsense before the answer was whole.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] hyper::Error),
}

impl Connection {
    pub(crate) async fn open<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_MAX_BYTES).max_headers(HEADERS_MAX);
        let heard = Arc::new(AtomicBool::new(false));
        let stream = Listening { stream, heard: heard.clone() };
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        let driver = Box::pin(driver);
        Ok(Self { sender, driver, is_over: false, is_spoilt: false, is_used: false, heard, opened: Instant::now() })
    }

    /// Since when it is open.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether another request may be sent: the peer did not close it, and the last answer was read whole.
    pub async fn is_reusable(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            Poll::Ready(())
        })
        .await;
        !self.is_over && !self.is_spoilt && self.sender.is_ready()
    }

    /// Sends a request and reads the whole answer, of its body at most `body_max` bytes. The caller bounds the
    /// time; when this is dropped before its end, the connection cannot be used again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(&mut self, request: Request<Full<Bytes>>, body_max: usize) -> Result<Answer, CallError> {
        self.heard.store(false, Ordering::Relaxed);
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        let (driver, is_over, is_spoilt) = (&mut self.driver, &mut self.is_over, &mut self.is_spoilt);
        // Until the answer was read whole.
        *is_spoilt = true;
        let answer = poll_fn(|context| {
            drive(driver, is_over, context);
            answer.as_mut().poll(context)
        });
        let (is_used, heard) = (self.is_used, &self.heard);
        let answer = answer.await.map_err(|e| match e.is_canceled() {
            true => CallError::NotSent(e),
            false if is_used && !heard.load(Ordering::Relaxed) => CallError::Stale(e),
            false => CallError::Broken(e),
        })?;
        self.is_used = true;
        let (head, mut body) = answer.into_parts();
        let mut body_bytes = 0;
        let mut is_truncated = false;
        while let Some(chunk) = self.chunk(&mut body).await {
            body_bytes += chunk.map_err(CallError::Broken)?;
            if body_bytes > body_max {
                is_truncated = true;
                break;
            }
        }
        self.is_spoilt = is_truncated;
        Ok(Answer { status: head.status, headers: head.headers, body_bytes: body_bytes.min(body_max), is_truncated })
    }

    /// The size of the next part of the body.
    async fn chunk(&mut self, body: &mut Incoming) -> Option<Result<usize, hyper::Error>> {
        if body.is_end_stream() {
            return None;
        }
        let frame = poll_fn(|context| {
            self.drive(context);
            Pin::new(&mut *body).poll_frame(context)
        });
        Some(frame.await?.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        drive(&mut self.driver, &mut self.is_over, context);
    }
}

/// Reads and writes what can be. Its end is reported through the request that it breaks.
fn drive(
    driver: &mut Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    is_over: &mut bool,
    context: &mut Context<'_>,
) {
    if !*is_over && driver.as_mut().poll(context).is_ready() {
        *is_over = true;
    }
}

/// A stream that remembers whether the peer said anything.
struct Listening<S> {
    stream: S,
    heard: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, to);
        if to.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn request() -> Request<Full<Bytes>> {
        Request::post("/hook").header("host", "a").body(Full::new(Bytes::from_static(b"{}"))).unwrap()
    }

    async fn open() -> (Connection, DuplexStream) {
        let (near, far) = duplex(64 << 10);
        (Connection::open(near).await.unwrap(), far)
    }

    /// Reads one request, then says each answer.
    async fn answer(mut far: DuplexStream, answers: Vec<&'static str>, then_close: bool) {
        for answer in answers {
            let mut seen = vec![0; 4096];
            let n = far.read(&mut seen).await.unwrap();
            assert!(seen[..n].starts_with(b"POST /hook HTTP/1.1\r\n"));
            far.write_all(answer.as_bytes()).await.unwrap();
        }
        if !then_close {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test]
    async fn answers_of_every_form_are_read_whole_and_the_connection_is_kept() {
        let answers = vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Later\r\ncontent-length: 0\r\n\r\n",
        ];
        let (mut connection, far) = open().await;
        tokio::spawn(answer(far, answers, false));
        for (status, bytes) in [(200, 2), (204, 0), (500, 5), (202, 0)] {
            assert!(connection.is_reusable().await);
            let answer = connection.send(request(), 100).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.body_bytes), (status, bytes));
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_ends_the_connections_use() {
        let (mut connection, far) = open().await;
        tokio::spawn(answer(far, vec!["HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabcdefgh"], false));
        let answer = connection.send(request(), 4).await.unwrap();
        assert!(answer.is_truncated && answer.body_bytes == 4);
        assert!(!connection.is_reusable().await);
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_noticed_before_it_is_used() {
        let (mut connection, far) = open().await;
        let peer = tokio::spawn(answer(far, vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], true));
        connection.send(request(), 4).await.unwrap();
        peer.await.unwrap();
        assert!(!connection.is_reusable().await);
    }

    #[tokio::test]
    async fn a_used_connection_that_breaks_without_a_byte_is_stale_and_with_one_it_is_broken() {
        for (second, is_stale) in [("", true), ("H", false), ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", false)]
        {
            let (mut connection, far) = open().await;
            tokio::spawn(answer(far, vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", second], true));
            connection.send(request(), 4).await.unwrap();
            assert!(connection.is_reusable().await, "it is open until the next request");
            let error = connection.send(request(), 100).await.unwrap_err();
            assert_eq!(matches!(error, CallError::Stale(_)), is_stale, "{second:?}: {error:?}");
            assert_eq!(matches!(error, CallError::Broken(_)), !is_stale, "{second:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_or_nonsense_is_an_error() {
        for cut in
            ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "SSH-2.0-x\r\n"]
        {
            let (mut connection, far) = open().await;
            tokio::spawn(answer(far, vec![cut], true));
            assert!(matches!(connection.send(request(), 100).await, Err(CallError::Broken(_))), "{cut:?}");
            assert!(!connection.is_reusable().await);
        }
    }
}
