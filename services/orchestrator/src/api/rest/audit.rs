//! The audit log over REST: list, chains, one chain in its order.

use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{AuditChainEntries, AuditChainList, AuditList, parse_moment};
use crate::app::AuditQuery;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParams {
    /// Of the token with this name.
    principal: Option<String>,
    /// Of this operation, such as `CancelJob`.
    operation: Option<String>,
    /// About the thing with this id, or naming it.
    object: Option<String>,
    /// `ok`, or the code of a refusal.
    outcome: Option<String>,
    /// At this moment or later (RFC 3339).
    #[param(format = DateTime)]
    since: Option<String>,
    /// Before it.
    #[param(format = DateTime)]
    until: Option<String>,
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    limit: u32,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List entries of the audit log
///
/// Newest first. All filters must match. A page may be short, or empty, with more to come.
#[utoipa::path(
    get, path = "/v1/audit", tag = "Audit", operation_id = "ListAuditEntries",
    params(AuditParams),
    responses((status = 200, description = "A page of entries", body = AuditList))
)]
pub(crate) async fn list(State(api): State<Api>, Params(which): Params<AuditParams>) -> Result<Response, Problem> {
    let query = AuditQuery {
        principal: which.principal,
        operation: which.operation,
        object: which.object,
        outcome: which.outcome,
        since: parse_moment("since", which.since.as_deref())?,
        until: parse_moment("until", which.until.as_deref())?,
        limit: which.limit,
        cursor: which.cursor,
    };
    let page = api.app.audit(query).await?;
    let entries = page.items.into_iter().map(|row| row.chained.into()).collect();
    json(StatusCode::OK, &AuditList { entries, next_cursor: page.next })
}

/// List the chains of the audit log
///
/// Where each begins and ends. An entry's hash covers its content, its place and the hash of the entry before.
#[utoipa::path(
    get, path = "/v1/audit/chains", tag = "Audit", operation_id = "ListAuditChains",
    responses((status = 200, description = "The chains", body = AuditChainList))
)]
pub(crate) async fn chains(State(api): State<Api>, _: Params<NoParams>) -> Result<Response, Problem> {
    let chains = api.app.audit_chains().await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &AuditChainList { chains })
}

/// From where on.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChainParams {
    /// Entries after this place; the default is 0.
    #[serde(default)]
    #[param(minimum = 0)]
    after: i64,
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    limit: u32,
}

/// Read a chain of the audit log in its order
///
/// To check it: `agentforge audit log --verify` does.
#[utoipa::path(
    get, path = "/v1/audit/chains/{chain}", tag = "Audit", operation_id = "ReadAuditChain",
    params(("chain" = i64, Path, description = "The chain's number"), ChainParams),
    responses((status = 200, description = "Its entries", body = AuditChainEntries))
)]
pub(crate) async fn chain(
    State(api): State<Api>,
    Path(chain): Path<String>,
    Params(from): Params<ChainParams>,
) -> Result<Response, Problem> {
    let number =
        chain.parse().map_err(|_| Problem::field("chain", format!("chain is {chain:?}; expected a number")))?;
    let entries = api.app.audit_chain(number, from.after, from.limit).await?;
    json(StatusCode::OK, &AuditChainEntries { entries: entries.into_iter().map(Into::into).collect() })
}
