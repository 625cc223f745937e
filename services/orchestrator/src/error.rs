//! Errors for callers: one error with a stable code, for gRPC and REST alike.
//!
//! The text names the field, the limit and the knob. Nothing here is specific to a protocol.

use std::time::Duration;

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What callers act on; the text may change, this does not.
    pub code: Code,
    /// For people: what is wrong, the limit, and the setting that changes it.
    pub message: String,
    /// The field at fault, as JSON and proto name it.
    pub field: Option<&'static str>,
    /// Wait so long before trying again.
    pub retry_after: Option<Duration>,
    /// What it came from; logged, never sent.
    #[source]
    pub source: Option<Box<crate::store::Error>>,
}

/// Stable codes: part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A field breaks a rule.
    InvalidArgument,
    /// The body or a field is larger than its limit.
    TooLarge,
    /// No credential, or an unknown one.
    Unauthenticated,
    /// The credential's role does not allow it.
    PermissionDenied,
    /// There is no such thing.
    NotFound,
    /// The id, key or name is taken by something else.
    Conflict,
    /// The state does not allow it.
    FailedPrecondition,
    /// The outbox is full: back-pressure.
    OutboxFull,
    /// Too many requests or streams at once.
    TooManyRequests,
    /// The database or NATS is unavailable.
    Unavailable,
    /// A defect of the orchestrator: the log has the cause, callers only this.
    Internal,
}

impl Code {
    /// Every code, for docs and tests.
    pub const ALL: [Self; 11] = [
        Self::InvalidArgument,
        Self::TooLarge,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::Conflict,
        Self::FailedPrecondition,
        Self::OutboxFull,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::TooLarge => "too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::FailedPrecondition => "failed_precondition",
            Self::OutboxFull => "outbox_full",
            Self::TooManyRequests => "too_many_requests",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The status of a problem over REST. Codes share some: `code` in the body tells them apart.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::TooLarge => 413,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::FailedPrecondition => 409,
            Self::OutboxFull | Self::TooManyRequests => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// The status over gRPC. Codes share some: `reason` of its `ErrorInfo` tells them apart.
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidArgument | Self::TooLarge => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::Conflict => tonic::Code::AlreadyExists,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::OutboxFull | Self::TooManyRequests => tonic::Code::ResourceExhausted,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Internal => tonic::Code::Internal,
        }
    }
}

impl Error {
    /// An error without field or cause.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, retry_after: None, source: None }
    }
    /// A field that breaks a rule.
    pub fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(Code::InvalidArgument, message) }
    }
    /// A field above its limit.
    pub fn too_large(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(Code::TooLarge, message) }
    }
    /// Nothing has that id.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {id}"))
    }
    /// The same for another caller, without its cause.
    pub fn again(&self) -> Self {
        Self {
            code: self.code,
            message: self.message.clone(),
            field: self.field,
            retry_after: self.retry_after,
            source: None,
        }
    }
    /// Try again after a while.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl Error {
    /// What callers learn of a store's error; many of them may get the same one.
    pub fn of_store(e: &crate::store::Error) -> Self {
        if !e.is_retryable() {
            return Self::new(Code::Internal, "the database refused; nothing was stored, see the orchestrator's log");
        }
        let why = e.in_short().map(|why| format!(": {why}")).unwrap_or_default();
        Self::new(Code::Unavailable, format!("the database is unavailable{why}; nothing was stored, try again"))
            .retry_after(Duration::from_secs(1))
    }
}

impl From<crate::store::Error> for Error {
    fn from(e: crate::store::Error) -> Self {
        let error = Self::of_store(&e);
        Self { source: Some(Box::new(e)), ..error }
    }
}
