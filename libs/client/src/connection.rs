//! The connection to the orchestrator: one lazy gRPC channel and the bearer token.
//!
//! The token goes into request metadata and nowhere else.

use crate::dial::authorities;
use agentforge_proto::v1::{
    agents_client::AgentsClient, audit_client::AuditClient, jobs_client::JobsClient,
    operations_client::OperationsClient, schedules_client::SchedulesClient,
};
use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// A page of jobs with arguments of 1 MiB each still fits.
const MESSAGE_MAX_BYTES: usize = 256 << 20;
/// A server that does not answer a connect in this time is unavailable.
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

/// Which orchestrator, and as whom.
#[derive(Clone)]
pub struct Options {
    /// The URL of its gRPC.
    pub server: String,
    /// The bearer token.
    pub token: Option<String>,
    /// How long one request may take; what the server is asked to wait is added.
    pub request_timeout: Duration,
    /// The program that asks, and its version.
    pub user_agent: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one that a connection can be made to.
    #[error("the server {server} cannot be used")]
    Server {
        /// As it was given.
        server: String,
        /// What tonic says.
        source: tonic::transport::Error,
    },
    /// The token cannot be sent: it has characters that no header carries.
    #[error("the token has characters that no header carries")]
    Token,
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
    /// A client. Must be called inside a tokio runtime; sends nothing yet.
    ///
    /// # Errors
    /// A URL that cannot be used, or a token that no header can carry.
    pub fn new(options: Options) -> Result<Self, Error> {
        let Options { server, token, request_timeout, user_agent } = options;
        let unusable = |source| Error::Server { server: server.clone(), source };
        let mut endpoint = Endpoint::from_shared(server.clone())
            .map_err(unusable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .user_agent(user_agent)
            .map_err(unusable)?;
        if server.starts_with("https:") {
            let tls = ClientTlsConfig::new();
            let tls = match authorities() {
                Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                None => tls.with_enabled_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(unusable)?;
        }
        let bearer = token.map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>()).transpose();
        let mut bearer = bearer.map_err(|_| Error::Token)?;
        if let Some(value) = &mut bearer {
            value.set_sensitive(true);
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            headers: Headers { bearer, traceparent: None },
            server,
            request_timeout,
        })
    }

    /// The same, for calls that belong to a trace.
    pub fn traced(mut self, traceparent: &str) -> Self {
        // A value that is not a header could not be passed on.
        self.headers.traceparent = traceparent.parse().ok();
        self
    }

    /// Jobs and dead letters.
    pub fn jobs(&self) -> JobsClient<Authorized> {
        JobsClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// A client of the schedules' operations, on the same connection and with the same token.
    pub fn schedules(&self) -> SchedulesClient<Authorized> {
        SchedulesClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// A client of the operations on many jobs, on the same connection and with the same token.
    pub fn operations(&self) -> OperationsClient<Authorized> {
        OperationsClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// A client of the audit log's operations, on the same connection and with the same token.
    pub fn audit(&self) -> AuditClient<Authorized> {
        AuditClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
    /// A client of the agents' operations, on the same connection and with the same token.
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

    /// Where it was given to be.
    pub fn server(&self) -> &str {
        &self.server
    }
}
