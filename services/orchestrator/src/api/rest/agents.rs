//! Workers over REST.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{AgentList, AgentView};
use crate::model::Presence;
use agentforge_proto::time::Micros;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which workers.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentParams {
    /// Of this mission.
    mission: Option<String>,
    /// online, offline or left. Pages may then have fewer workers than asked for.
    status: Option<String>,
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    limit: u32,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List workers
///
/// By id.
#[utoipa::path(
    get, path = "/v1/agents", tag = "Agents", operation_id = "ListAgents",
    params(AgentParams),
    responses((status = 200, description = "A page of workers", body = AgentList))
)]
pub(crate) async fn list(api: Api, Params(which): Params<AgentParams>) -> Result<Response, Problem> {
    let status = which.status.map(|w| presence(&w)).transpose()?;
    let page = api.app.agents(which.mission.as_deref(), which.limit, which.cursor.as_deref()).await?;
    let now = Micros::now();
    let agents = page.items.into_iter().filter(|a| status.is_none_or(|s| a.presence(now) == s));
    let agents = agents.map(|a| AgentView::new(a, now)).collect();
    json(StatusCode::OK, &AgentList { agents, next_cursor: page.next })
}

fn presence(word: &str) -> Result<Presence, Problem> {
    Presence::ALL.into_iter().find(|p| p.as_str() == word).ok_or_else(|| {
        Problem::field("status", format!("there is no status {word:?}; expected online, offline or left"))
    })
}

/// Read a worker
///
/// As its last heartbeat described it.
#[utoipa::path(
    get, path = "/v1/agents/{id}", tag = "Agents", operation_id = "GetAgent",
    params(("id" = String, Path, description = "The worker's id")),
    responses((status = 200, description = "The worker", body = AgentView))
)]
pub(crate) async fn read(api: Api, Path(id): Path<String>, _: Params<NoParams>) -> Result<Response, Problem> {
    json(StatusCode::OK, &AgentView::new(api.app.agent(&id).await?, Micros::now()))
}
