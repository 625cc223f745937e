//! Workers over REST.

use super::extract::Query;
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{AgentList, AgentView};
use crate::model::Presence;
use agentforge_proto::time::Micros;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;

/// List workers
///
/// By id.
#[utoipa::path(
    get, path = "/v1/agents", tag = "Agents", operation_id = "ListAgents",
    params(
        ("mission" = Option<String>, Query, description = "Of this mission."),
        ("status" = Option<String>, Query, description = "online, offline or left. Pages may then have fewer workers than asked for."),
        ("limit" = Option<u32>, Query, description = "1 to 1000; the default is 100."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page of workers", body = AgentList))
)]
pub(crate) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["mission", "status", "limit", "cursor"])?;
    let status = query.one("status")?.map(|w| presence(&w)).transpose()?;
    let (mission, cursor) = (query.one("mission")?, query.one("cursor")?);
    let page = api.app.agents(mission.as_deref(), query.limit()?, cursor.as_deref()).await?;
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
#[utoipa::path(
    get, path = "/v1/agents/{id}", tag = "Agents", operation_id = "GetAgent",
    params(("id" = String, Path, description = "The worker's id")),
    responses((status = 200, description = "The worker", body = AgentView))
)]
pub(crate) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    json(StatusCode::OK, &AgentView::new(api.app.agent(&id).await?, Micros::now()))
}
