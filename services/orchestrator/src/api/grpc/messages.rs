//! The messages of a call on their way in: each is counted in the memory for bodies before it is read, and must arrive
//! in time.
//!
//! Reads only the five bytes before each message, which say how long it is. A call with one message is refused when there
//! is no memory for it; a stream of submissions waits, and so does its client.

use super::status;
use crate::api::limits::{BODY_MAX_BYTES, BODY_TIMEOUT};
use crate::error::{Code, Error};
use agentforge_runtime::http::{Bodies, BodyRefusal, Held};
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// When a refused caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What becomes of the memory of a message that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The call has one message; it is held until the answer.
    One,
    /// A stream whose handler takes each message's share from [`Kept`].
    Submissions,
    /// A stream of small messages that are answered one by one; the last one's is held.
    Small,
}

/// The memory of the messages that have arrived, in their order. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<VecDeque<Share>>>);

/// A message's share; those that came in one piece share it. `None` for one that is too large to be read.
pub(super) type Share = Option<Arc<Held>>;

impl Kept {
    /// The share of the next message, for its handler to hold.
    pub(super) fn next(&self) -> Share {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten()
    }

    fn add(&self, kind: Kind, share: &Share, messages: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == Kind::Small {
            kept.clear();
        }
        kept.extend(std::iter::repeat_n(share, messages).cloned());
    }
}

/// Where in a message the reading is.
#[derive(Debug, Default)]
struct Place {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that have arrived.
    known: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

/// What a piece of the body begins.
#[derive(Debug, Default, PartialEq, Eq)]
struct Begun {
    messages: usize,
    bytes: usize,
}

impl Place {
    /// Goes through a piece; gives the messages whose length it says.
    fn pass(&mut self, mut piece: &[u8]) -> Begun {
        let mut begun = Begun::default();
        while !piece.is_empty() {
            let in_message = self.left.min(piece.len());
            self.left -= in_message;
            piece = &piece[in_message..];
            let in_prefix = (PREFIX_BYTES - self.known).min(piece.len());
            if self.left > 0 || in_prefix == 0 {
                continue;
            }
            self.prefix[self.known..self.known + in_prefix].copy_from_slice(&piece[..in_prefix]);
            self.known += in_prefix;
            piece = &piece[in_prefix..];
            if self.known == PREFIX_BYTES {
                self.known = 0;
                self.left =
                    u32::from_be_bytes([self.prefix[1], self.prefix[2], self.prefix[3], self.prefix[4]]) as usize;
                begun.messages += 1;
                // One that is too large is refused unread.
                begun.bytes += if self.left > BODY_MAX_BYTES { 0 } else { self.left + PREFIX_BYTES };
            }
        }
        begun
    }

    fn is_inside(&self) -> bool {
        self.known > 0 || self.left > 0
    }
}

/// A call's body.
pub(super) struct Messages {
    body: Body,
    kind: Kind,
    bodies: &'static Bodies,
    place: Place,
    kept: Kept,
    /// A piece whose messages wait for memory.
    waiting: Option<(Bytes, usize, BoxFuture<'static, Held>)>,
    is_first: bool,
    late: Option<Pin<Box<Sleep>>>,
}

impl Messages {
    pub(super) fn new(body: Body, kind: Kind, bodies: &'static Bodies, kept: Kept) -> Self {
        Self { body, kind, bodies, place: Place::default(), kept, waiting: None, is_first: true, late: None }
    }

    /// The piece may be read if there is memory for the messages that it begins.
    fn admit(&mut self, piece: Bytes) -> Result<Option<Bytes>, Status> {
        let begun = self.place.pass(&piece);
        if begun.messages > 0 {
            self.is_first = false;
        }
        // The message that continues in this piece has its own time.
        if begun.messages > 0 || !self.place.is_inside() {
            self.late = None;
        }
        if begun.bytes == 0 {
            self.kept.add(self.kind, &None, begun.messages);
            return Ok(Some(piece));
        }
        match self.bodies.try_hold(begun.bytes) {
            Some(held) => {
                self.kept.add(self.kind, &Some(Arc::new(held)), begun.messages);
                Ok(Some(piece))
            }
            None if self.kind == Kind::Submissions => {
                let (bodies, place) = (self.bodies, self.bodies.try_queue().ok_or_else(|| self.no_memory())?);
                let hold = async move {
                    let _place = place;
                    bodies.hold(begun.bytes).await
                };
                self.waiting = Some((piece, begun.messages, hold.boxed()));
                Ok(None)
            }
            None => Err(self.no_memory()),
        }
    }

    fn no_memory(&self) -> Status {
        self.bodies.count_refusal(BodyRefusal::Memory);
        let error = Error::new(Code::TooManyRequests, self.bodies.refusal()).retry_after(RETRY_AFTER);
        status::of(&error, None)
    }

    /// Ends the call if the message is late. Between the messages of a stream there is no limit.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let is_owed = self.place.is_inside() || (self.is_first && self.kind != Kind::Submissions);
        if !is_owed {
            return Poll::Pending;
        }
        ready!(self.late.get_or_insert_with(|| Box::pin(sleep(BODY_TIMEOUT))).as_mut().poll(cx));
        self.bodies.count_refusal(BodyRefusal::Late);
        let seconds = BODY_TIMEOUT.as_secs();
        Poll::Ready(Status::deadline_exceeded(format!("a message did not arrive within {seconds} s")))
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some((piece, messages, hold)) = &mut this.waiting {
                let Poll::Ready(held) = hold.as_mut().poll(cx) else {
                    // The time of the message is not prolonged by waiting for memory.
                    let late = this.late.get_or_insert_with(|| Box::pin(sleep(BODY_TIMEOUT)));
                    ready!(late.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(this.no_memory().into())));
                };
                this.kept.add(this.kind, &Some(Arc::new(held)), *messages);
                let piece = std::mem::take(piece);
                this.waiting = None;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(end) => return Poll::Ready(end.map(|end| end.map_err(Into::into))),
                Poll::Pending => {
                    let late = ready!(this.poll_late(cx));
                    return Poll::Ready(Some(Err(late.into())));
                }
            };
            match frame.into_data() {
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                Ok(piece) => match this.admit(piece) {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Ok(None) => {}
                    Err(refused) => return Poll::Ready(Some(Err(refused.into()))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::LazyLock;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, b'x');
        bytes
    }

    #[test]
    fn lengths_are_found_wherever_the_pieces_are_cut() {
        let bytes: Vec<u8> = [0, 3, 700, 0, 1].into_iter().flat_map(message).collect();
        for size in [1, 2, 4, 5, 6, 7, 100, bytes.len()] {
            let mut place = Place::default();
            let begun = bytes.chunks(size).map(|piece| place.pass(piece));
            let sum = begun.fold((0, 0), |(messages, bytes), b| (messages + b.messages, bytes + b.bytes));
            assert_eq!(sum, (5, 704 + 25), "{size}");
            assert!(!place.is_inside());
        }
        let mut place = Place::default();
        assert_eq!(place.pass(&message(BODY_MAX_BYTES + 1)[..9]), Begun { messages: 1, bytes: 0 });
        assert!(place.is_inside());
    }

    type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

    fn messages(kind: Kind, bodies: &'static Bodies) -> (Pieces, Messages, Kept) {
        let (send, pieces) = mpsc::channel(64);
        let kept = Kept::default();
        let body = Body::from_stream(ReceiverStream::new(pieces));
        (send, Messages::new(body, kind, bodies, kept.clone()), kept)
    }

    fn code(frame: Option<Result<Frame<Bytes>, axum::BoxError>>) -> tonic::Code {
        Status::from_error(frame.unwrap().unwrap_err()).code()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unfinished_message_ends_the_call_and_a_silent_stream_does_not() {
        static BODIES: LazyLock<Bodies> = LazyLock::new(|| Bodies::new(1 << 20));
        for kind in [Kind::One, Kind::Submissions] {
            let (send, mut messages, _) = messages(kind, &BODIES);
            send.try_send(Ok(message(100)[..50].to_vec().into())).unwrap();
            assert!(next(&mut messages).await.unwrap().is_ok());
            // A byte now and then does not prolong it.
            let drip = async {
                loop {
                    sleep(Duration::from_secs(8)).await;
                    let _ = send.try_send(Ok(Bytes::from_static(b"x")));
                }
            };
            let end = async {
                loop {
                    let frame = next(&mut messages).await;
                    if frame.as_ref().is_none_or(Result::is_err) {
                        return frame;
                    }
                }
            };
            tokio::select! {
                () = drip => {}
                frame = end => assert_eq!(code(frame), tonic::Code::DeadlineExceeded),
            }
        }
        let (_send, mut none, _) = messages(Kind::One, &BODIES);
        assert_eq!(code(next(&mut none).await), tonic::Code::DeadlineExceeded);
        let (send, mut stream, _) = messages(Kind::Submissions, &BODIES);
        send.try_send(Ok(message(10).into())).unwrap();
        assert!(next(&mut stream).await.unwrap().is_ok());
        let silent = tokio::time::timeout(BODY_TIMEOUT * 100, next(&mut stream)).await;
        assert!(silent.is_err(), "between messages there is no limit");
    }

    #[tokio::test]
    async fn without_memory_a_call_is_refused_and_a_stream_waits() {
        static BODIES: LazyLock<Bodies> = LazyLock::new(|| Bodies::new(1000));
        let (send, mut first, kept) = messages(Kind::Submissions, &BODIES);
        send.try_send(Ok(message(600).into())).unwrap();
        assert!(next(&mut first).await.unwrap().is_ok());
        let (send_one, mut one, _) = messages(Kind::One, &BODIES);
        send_one.try_send(Ok(message(600).into())).unwrap();
        assert_eq!(code(next(&mut one).await), tonic::Code::ResourceExhausted);

        send.try_send(Ok(message(600).into())).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), next(&mut first)).await.is_err());
        // The handler is done with the first.
        drop(kept.next());
        assert!(tokio::time::timeout(Duration::from_secs(30), next(&mut first)).await.unwrap().unwrap().is_ok());
        drop(kept.next());
        assert!(BODIES.try_hold(1000).is_some());
    }

    type Next = Option<Result<Frame<Bytes>, axum::BoxError>>;

    async fn next(messages: &mut Messages) -> Next {
        poll_fn(|cx| Pin::new(&mut *messages).poll_frame(cx)).await
    }
}
