//! An early refusal reaches its caller: what is left of a large request body is read and thrown away.
//!
//! A server that closes a connection with unread input makes the kernel reset it, and a caller that
//! is still sending then sees a broken connection instead of the answer. HTTP/2 has resets of its own.

use super::exchange::Charge;
use axum::Error;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{Version, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes that are read for nothing; a caller that sends more may see a reset.
const LINGER_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Longest time spent on it.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Bodies up to this size are read with the request's head, or one read after it.
const SMALL: u64 = 4096;

/// Runs the request; if its handler left some of the body, reads that before the answer goes out.
pub(super) async fn linger(request: Request, next: Next) -> Response {
    if !is_large(&request) {
        return next.run(request).await;
    }
    // Who asks first is still waiting, unless a handler began to read.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let left = Left::default();
    let charge = request.extensions().get::<Charge>().cloned();
    let (parts, body) = request.into_parts();
    let body =
        Lent { body: Some(body.into_data_stream()), begun: !asks_first, left: left.clone(), charge: charge.clone() };
    let response = next.run(Request::from_parts(parts, Body::from_stream(body))).await;
    let rest = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest {
        // It costs no memory, and its caller may be refused for want of it.
        if let Some(charge) = charge {
            charge.discard();
        }
        let _ = tokio::time::timeout(LINGER_MAX, read_out(rest)).await;
    }
    response
}

fn is_large(request: &Request) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()).and_then(|value| value.parse::<u64>().ok());
    let is_large = length.map_or_else(|| request.headers().contains_key(header::TRANSFER_ENCODING), |n| n > SMALL);
    is_large && request.version() < Version::HTTP_2
}

async fn read_out(mut rest: BodyDataStream) {
    let mut read = 0;
    while let Some(Ok(chunk)) = rest.next().await {
        read += chunk.len();
        if read > LINGER_MAX_BYTES {
            return;
        }
    }
}

/// Where a body that was not read to its end comes back to.
type Left = Arc<Mutex<Option<BodyDataStream>>>;

/// A body lent to a handler.
struct Lent {
    body: Option<BodyDataStream>,
    begun: bool,
    left: Left,
    charge: Option<Charge>,
}

impl Stream for Lent {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
        let this = &mut *self;
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(cx);
        let is_over = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) => !self.charge.as_ref().is_some_and(Charge::is_refused),
            _ => false,
        };
        if is_over {
            self.body = None;
        }
        polled
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.begun {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}
