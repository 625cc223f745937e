//! Requests to the JetStream API, with the error code kept.

use async_nats::jetstream::{Context, ErrorCode, context::RequestErrorKind, response::Response};
use serde::{Serialize, de::DeserializeOwned};

/// Why an API request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server refused the request.
    #[error("{reason}")]
    Refused {
        /// The server's code.
        code: ErrorCode,
        /// HTTP-like status: 400 for a wrong request, 404 for what is missing, 503 for not now.
        status: usize,
        /// The server's words.
        reason: String,
    },
    /// JetStream did not answer: not connected, no leader, or not enabled.
    #[error("{}", silence(.0))]
    Unavailable(#[source] async_nats::jetstream::context::RequestError),
}

fn silence(e: &async_nats::jetstream::context::RequestError) -> &'static str {
    match e.kind() {
        RequestErrorKind::NoResponders => {
            "JetStream does not answer: it is off at this server (jetstream in nats-server's configuration, or -js) \
             or for this account"
        }
        _ => "JetStream does not answer",
    }
}

impl ApiError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500,
            Self::Unavailable(e) => e.kind() != RequestErrorKind::Other,
        }
    }

    pub(crate) fn is(&self, wanted: ErrorCode) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

pub(crate) async fn call<T: DeserializeOwned>(
    js: &Context,
    subject: String,
    payload: &impl Serialize,
) -> Result<T, ApiError> {
    match js.request(subject, payload).await.map_err(ApiError::Unavailable)? {
        Response::Ok(value) => Ok(value),
        Response::Err { error } => {
            Err(ApiError::Refused { code: error.error_code(), status: error.code(), reason: error.to_string() })
        }
    }
}
