//! Sites over REST.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::SiteList;
use agentforge_proto::time::Micros;
use axum::response::Response;
use http::StatusCode;

/// Read the links of sites
///
/// When each was up in the last day: at a site its link to the hub, at a hub when it heard each of its sites. Each replica
/// knows what it saw since its start; what was before `known_since` is unknown.
#[utoipa::path(
    get, path = "/v1/sites", tag = "Sites", operation_id = "ListSites",
    responses((status = 200, description = "All sites", body = SiteList))
)]
pub(crate) async fn list(api: Api, _: Params<NoParams>) -> Result<Response, Problem> {
    let now = Micros::now();
    json(StatusCode::OK, &SiteList::new(now, api.app.links().read(now)))
}
