//! The connection to the orchestrator: one lazy gRPC channel, the bearer token, and what errors mean.
//!
//! Owns the translation of a gRPC status into one line and a hint. The token goes into request
//! metadata and nowhere else.

use crate::{
    args::Global,
    error::{Failure, Result},
};
use agentforge_proto::v1::{
    agents_client::AgentsClient, jobs_client::JobsClient, operations_client::OperationsClient,
    schedules_client::SchedulesClient,
};
use std::time::Duration;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

/// A page of jobs with arguments of 1 MiB each still fits.
const MESSAGE_MAX_BYTES: usize = 256 << 20;
/// A server that does not answer a connect in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that sends the token.
pub type Authorized = InterceptedService<Channel, Headers>;

/// Adds the bearer token to each request, and the trace that it belongs to.
#[derive(Clone)]
pub struct Headers {
    bearer: Option<MetadataValue<Ascii>>,
    traceparent: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in [("authorization", &self.bearer), ("traceparent", &self.traceparent)] {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }
}

/// How to reach the orchestrator. Cheap to clone; connects at the first request and again after a break.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
    server: String,
    request_timeout: Duration,
}

impl Client {
    /// A client for the server of the command line. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A URL that tonic refuses.
    pub fn new(global: &Global) -> Result<Self> {
        let unusable = |e: tonic::transport::Error| {
            Failure::usage(format!("the server {} cannot be used: {}", global.server, chain(&e)))
        };
        let mut endpoint = Endpoint::from_shared(global.server.clone())
            .map_err(unusable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .user_agent(concat!("agentforge-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(unusable)?;
        if global.server.starts_with("https:") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).map_err(unusable)?;
        }
        let bearer = global.token.as_ref().map(|token| {
            let mut value: MetadataValue<Ascii> =
                format!("Bearer {}", token.0).parse().expect("the token was checked to be printable ASCII");
            value.set_sensitive(true);
            value
        });
        Ok(Self {
            channel: endpoint.connect_lazy(),
            headers: Headers { bearer, traceparent: None },
            server: global.server.clone(),
            request_timeout: global.request_timeout,
        })
    }

    /// The same, for calls that belong to a trace.
    pub fn traced(mut self, traceparent: &str) -> Self {
        // One that is no header is none that anybody could carry on.
        self.headers.traceparent = traceparent.parse().ok();
        self
    }

    /// Jobs and dead letters.
    pub fn jobs(&self) -> JobsClient<Authorized> {
        JobsClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// Schedules.
    pub fn schedules(&self) -> SchedulesClient<Authorized> {
        SchedulesClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// Operations.
    pub fn operations(&self) -> OperationsClient<Authorized> {
        OperationsClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// Agents.
    pub fn agents(&self) -> AgentsClient<Authorized> {
        AgentsClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// A request that must be answered within the request timeout.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, Duration::ZERO)
    }
    /// A request that the server may hold for `wait` before it answers.
    pub fn request_within<T>(&self, message: T, wait: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.request_timeout + wait);
        request
    }

    /// What a status means, in one line with a hint. `doing` completes "… failed".
    pub fn failure(&self, doing: &str, status: &Status) -> Failure {
        explain(doing, status, &self.server)
    }
}

/// Whether the same request may succeed a moment later because the server was away.
pub fn is_away(status: &Status) -> bool {
    if is_rest(status) {
        return false;
    }
    match status.code() {
        Code::Unavailable => true,
        // A connection that breaks under a request shows as Unknown or Cancelled with a transport cause.
        Code::Unknown | Code::Internal | Code::Cancelled => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// Whether the server was never reached: nobody listens at its address, or its name leads nowhere.
pub fn was_refused(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
        {
            return true;
        }
        // What the resolver says has no kind of its own.
        if e.to_string().contains("dns error") {
            return true;
        }
        next = e.source();
    }
    false
}

/// Whether who answered is an HTTP server that knows no gRPC: its answer has another content type or no frames of
/// gRPC, or it speaks HTTP/1 alone.
fn is_rest(status: &Status) -> bool {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(e) = next {
        text = format!("{text} {e}");
        next = e.source();
    }
    let text = text.to_ascii_lowercase();
    [
        "invalid compression flag",
        "invalid content-type",
        "invalid content type",
        "grpc-status header missing",
        "frame with invalid size",
        "http/1.1",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// How long the server asked to wait, where it pushed back.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info()?.retry_delay
}

fn explain(doing: &str, status: &Status, server: &str) -> Failure {
    let code = stable_code(status);
    let text = one_line(status.message());
    let failure = match status.code() {
        _ if is_rest(status) => {
            return Failure::new(format!("{doing} failed: {server} answers, but not with gRPC"))
                .code("not_grpc")
                .hint("this looks like the REST port (8080) or another HTTP server; gRPC is on port 50051 unless GRPC_PORT says otherwise");
        }
        _ if is_away(status) && std::error::Error::source(status).is_some() => {
            return Failure::new(format!("{doing} failed: the orchestrator at {server} cannot be reached ({})", cause(status)))
                .code("unreachable")
                .hint("start everything here with `agentforge dev`, or name another server with --server or AGENTFORGE_SERVER");
        }
        Code::Unauthenticated => "give a token with AGENTFORGE_TOKEN or --token".to_owned(),
        Code::PermissionDenied => "use a token whose role allows it: read, submit or admin".to_owned(),
        Code::NotFound => {
            "check the id; `agentforge job list`, `schedule list` and `agent list` show what there is".to_owned()
        }
        Code::ResourceExhausted => match retry_after(status) {
            Some(wait) => format!("the server pushes back; try again in {}", crate::output::short_duration(wait)),
            None => "the server pushes back; try again in a moment".to_owned(),
        },
        Code::AlreadyExists => "use another id, key or name, or send the same body again".to_owned(),
        Code::InvalidArgument | Code::OutOfRange => "correct what is named above; --help shows the form".to_owned(),
        Code::FailedPrecondition => {
            "its state does not allow it; `agentforge job get ID` shows it, `job retry ID` runs again what ended without success"
                .to_owned()
        }
        Code::DeadlineExceeded => {
            "allow more time with --request-timeout, or look at the orchestrator's /readyz".to_owned()
        }
        Code::Unimplemented => "client and server differ in version; `agentforge --version` shows this one".to_owned(),
        _ => "look at the orchestrator's log and its /readyz".to_owned(),
    };
    Failure::new(format!("{doing} failed: {text}")).code(code).hint(failure)
}

/// The stable code that the service sent, else the gRPC code as a word.
fn stable_code(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map_or_else(|| snake(&format!("{:?}", status.code())), |info| one_line(&info.reason))
}

fn snake(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn one_line(text: &str) -> String {
    crate::output::clean(text, 1_000)
}

/// The innermost cause: "Connection refused", rather than the layers around it.
fn cause(status: &Status) -> String {
    let mut last: &dyn std::error::Error = status;
    while let Some(next) = last.source() {
        last = next;
    }
    one_line(&last.to_string())
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        out = format!("{out}: {e}");
        next = e.source();
    }
    one_line(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_becomes_one_line_with_a_hint() {
        for (status, part, hint) in [
            (Status::invalid_argument("max_attempts is 0\nwhat"), "max_attempts is 0 what", "correct"),
            (Status::unauthenticated("no token"), "no token", "AGENTFORGE_TOKEN"),
            (Status::permission_denied("role read"), "role read", "role"),
            (Status::not_found("there is no job x"), "no job x", "job list"),
            (Status::resource_exhausted("outbox full"), "outbox full", "try again"),
            (Status::deadline_exceeded("late"), "late", "--request-timeout"),
            (Status::failed_precondition("job x is succeeded"), "is succeeded", "job get"),
            (
                Status::internal("protocol error: received message with invalid compression flag: 123"),
                "not with gRPC",
                "50051",
            ),
        ] {
            let failure = explain("submitting", &status, "http://h");
            assert!(failure.message.contains(part) && !failure.message.contains('\n'), "{failure:?}");
            assert!(failure.hint.as_deref().unwrap().contains(hint), "{failure:?}");
            assert_eq!(failure.exit, 1);
        }
    }

    #[test]
    fn the_servers_own_code_is_kept() {
        let status = Status::invalid_argument("x");
        assert_eq!(explain("a", &status, "s").code.as_deref(), Some("invalid_argument"));
        let details =
            tonic_types::ErrorDetails::with_error_info("too_large", "agentforge", [("a".to_owned(), "b".to_owned())]);
        let status = Status::with_error_details(Code::InvalidArgument, "x", details);
        assert_eq!(explain("a", &status, "s").code.as_deref(), Some("too_large"));
    }

    #[test]
    fn retry_after_is_read() {
        assert_eq!(retry_after(&Status::resource_exhausted("full")), None);
        let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(retry_after(&status), Some(Duration::from_secs(3)));
    }
}
