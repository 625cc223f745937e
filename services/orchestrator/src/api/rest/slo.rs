//! Objectives over REST.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::SloList;
use axum::response::Response;
use http::StatusCode;

/// Read the objectives
///
/// Targets, budgets over the last 30 days, and how fast they burn. The same figures as the metrics
/// `agentforge_slo_status` and `agentforge_error_budget_*`.
#[utoipa::path(
    get, path = "/v1/slo", tag = "Objectives", operation_id = "ListSlos",
    responses((status = 200, description = "All objectives", body = SloList))
)]
pub(crate) async fn list(api: Api, _: Params<NoParams>) -> Result<Response, Problem> {
    let (at, judgements, without_data) = api.app.board().read();
    json(StatusCode::OK, &SloList::new(at, &judgements, &without_data))
}
