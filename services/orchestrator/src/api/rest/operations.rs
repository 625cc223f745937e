//! Operations over REST: how far retries, redrives and cancels are that continue without their caller.

use super::params::{NoParams, PageParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{OperationList, OperationView};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::operation::Operation;
use axum::extract::Path;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";

/// List operations
///
/// Newest first: those that are open, and the last thousand that ended.
#[utoipa::path(
    get, path = "/v1/operations", tag = "Operations", operation_id = "ListOperations",
    params(PageParams),
    responses((status = 200, description = "A page of operations", body = OperationList))
)]
pub(crate) async fn list(api: Api, Params(page): Params<PageParams>) -> Result<Response, Problem> {
    let page = api.app.operations(page.limit, page.cursor.as_deref()).await?;
    let operations = page.items.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &OperationList { operations, next_cursor: page.next })
}

/// Read an operation
///
/// How far it is. Ask again until its state is succeeded, failed or cancelled.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "Operations", operation_id = "GetOperation",
    params(("id" = String, Path, description = "The operation's id")),
    responses((status = 200, description = "The operation", body = OperationView))
)]
pub(crate) async fn read(api: Api, Path(id): Path<String>, _: Params<NoParams>) -> Result<Response, Problem> {
    json(StatusCode::OK, &OperationView::from(api.app.operation(&id).await?))
}

/// Cancel an operation
///
/// It stops within seconds; what it put back or cancelled stays so. One that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/operations/{id}/cancel", tag = "Operations", operation_id = "CancelOperation",
    params(("id" = String, Path, description = "The operation's id")),
    responses((status = 200, description = "The operation", body = OperationView))
)]
pub(crate) async fn cancel(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &OperationView::from(api.app.cancel_operation(&caller, &id).await?))
}

/// Whether the caller does not want to wait for the end (RFC 7240).
pub(crate) fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all(PREFER).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    preferences.filter_map(|p| p.split(';').next()).any(|p| p.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}

/// The answer that names an operation instead of its end.
pub(crate) fn accepted(operation: Operation) -> Result<Response, Problem> {
    let location = format!("/v1/operations/{}", operation.id);
    let location = HeaderValue::try_from(location)
        .map_err(|e| Problem::from(Error::new(Code::Internal, format!("the answer could not be written: {e}"))))?;
    let mut answer = json(StatusCode::ACCEPTED, &OperationView::from(operation))?;
    answer.headers_mut().insert(header::LOCATION, location);
    answer.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preference_is_read_as_the_rfc_writes_it() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            prefers_async(&headers)
        };
        assert!(of(&["respond-async"]) && of(&["wait=10, Respond-Async"]) && of(&["a=1", "respond-async; b=2"]));
        assert!(!of(&[]) && !of(&["respond-asynchronously"]) && !of(&["return=minimal"]));
    }
}
