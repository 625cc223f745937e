//! One request from its head to the end of its answer: its body in the time and memory that there are for bodies, its
//! connection known to be busy.
//!
//! A body is counted as it arrives, so that announcing one costs the server nothing, and given back when the answer
//! begins. Who is refused for it gets a problem, regardless of what the handler made of the broken body.

use super::activity::{Caller, InRequest};
use super::bodies::{BodyRefusal, Held, bodies};
use super::problem::Problem;
use super::server::Client;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, Version};
use axum::response::Response;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower::ServiceExt;

/// A body must have arrived in this time, counted from when it is asked for.
const BODY_MAX: Duration = Duration::from_secs(30);

/// When a refused caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How bodies are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// The whole body, until the answer.
    Whole,
    /// Not here: the handler counts each message of a stream.
    ByHandler,
}

/// Has `router` answer. Handlers find the peer as `ConnectInfo<SocketAddr>`, its connection as [`Caller`], and its
/// certificate as [`ClientCertificate`](super::ClientCertificate).
pub(super) async fn exchange(
    client: Client,
    counting: Counting,
    request: Request<Incoming>,
    router: Router,
) -> Result<Response, Infallible> {
    let busy = client.activity.request(request.version() == Version::HTTP_2);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(ConnectInfo(client.peer));
    parts.extensions.insert(Caller(client.activity));
    parts.extensions.insert(client.certificate);
    let counted = (counting == Counting::Whole && !body.is_end_stream()).then(Charge::default);
    if let Some(charge) = &counted {
        parts.extensions.insert(charge.clone());
    }
    let body = Arriving { body, charge: counted.clone(), late: None };
    let answered = router.oneshot(Request::from_parts(parts, body)).await;
    let mut response = answered.unwrap_or_else(|never| match never {});
    if let Some(problem) = counted.and_then(|charge| charge.problem())
        && problem.status() != response.status()
    {
        refuse(&mut response, problem);
    }
    Ok(response.map(|body| Body::new(Answer { body, _busy: busy })))
}

fn refuse(response: &mut Response, problem: Problem) {
    let id = response.headers().get(super::REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
    *response.status_mut() = problem.status();
    match id {
        Some(id) => problem.for_request(&id).write_into(response),
        None => problem.write_into(response),
    }
}

/// What a request's body takes of the memory for bodies. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Charge(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    refused: Option<BodyRefusal>,
    is_discarded: bool,
}

impl Charge {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What arrives from now on is thrown away and is not counted.
    pub(super) fn discard(&self) {
        let mut state = self.state();
        state.is_discarded = true;
        state.held = None;
    }

    /// Whether the body broke off because there was no memory for it; what is left of it can still be read.
    pub(super) fn is_refused(&self) -> bool {
        self.state().refused == Some(BodyRefusal::Memory)
    }

    fn add(&self, bytes: usize) -> bool {
        let mut state = self.state();
        if state.is_discarded {
            return true;
        }
        let is_free = match &mut state.held {
            Some(held) => held.grow(bytes),
            held @ None => {
                *held = bodies().try_hold(bytes);
                held.is_some()
            }
        };
        if !is_free {
            state.held = None;
            state.refused = Some(BodyRefusal::Memory);
            bodies().count_refusal(BodyRefusal::Memory);
        }
        is_free
    }

    fn is_late(&self) {
        let mut state = self.state();
        if !state.is_discarded && state.refused.is_none() {
            state.refused = Some(BodyRefusal::Late);
            bodies().count_refusal(BodyRefusal::Late);
        }
    }

    fn problem(&self) -> Option<Problem> {
        match self.state().refused? {
            BodyRefusal::Memory => Some(Problem::unavailable(bodies().refusal(), RETRY_AFTER)),
            BodyRefusal::Late => {
                let detail = format!("the body did not arrive within {} s", BODY_MAX.as_secs());
                Some(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail))
            }
        }
    }
}

/// A request's body on its way in.
struct Arriving {
    body: Incoming,
    charge: Option<Charge>,
    late: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(charge) = &this.charge else { return Pin::new(&mut this.body).poll_frame(cx).map_err(Into::into) };
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending() {
            let late = this.late.get_or_insert_with(|| Box::pin(sleep(BODY_MAX)));
            ready!(late.as_mut().poll(cx));
            charge.is_late();
            return Poll::Ready(Some(Err(
                io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time").into()
            )));
        }
        let frame = ready!(polled);
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining),
            _ => 0,
        };
        if bytes > 0 && !charge.add(bytes) {
            return Poll::Ready(Some(Err(io::Error::other(bodies().refusal()).into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer on its way out; until its end the connection is in a request.
struct Answer {
    body: Body,
    _busy: InRequest,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
