//! Bodies of requests: JSON of a known shape, or a refusal that names the field.

use crate::problem::{Problem, invalid};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::IntoResponse,
};
use serde::de::DeserializeOwned;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body has more than 1 MiB")
            } else {
                invalid("the body did not arrive whole")
            }
        })?;
        // The text of the error may repeat a value, which may be a password: the place is enough.
        serde_json::from_slice(&bytes).map(Self).map_err(|e| {
            invalid(format!(
                "the body is not the JSON object that is expected (line {}, column {})",
                e.line(),
                e.column()
            ))
        })
    }
}
