//! Whether a session of ours is one of the server: behind some poolers it is not.

use crate::store::Error;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _, query_scalar};
use std::time::Duration;

/// Connections that are opened to see whether they share a session of the server.
const SESSIONS_TRIED: usize = 4;
/// For all of them.
const TRYING_MAX: Duration = Duration::from_secs(10);

/// Refuses a pooler in transaction or statement mode: prepared statements and settings of a session would be lost
/// or meet another's. Two connections that are open at once and name one process of the server are behind one.
/// Where too few connections can be had nothing is known, and nothing refused.
pub(super) async fn refuse_shared_sessions(options: &PgConnectOptions) -> Result<(), Error> {
    match tokio::time::timeout(TRYING_MAX, shares_sessions(options)).await {
        Ok(Ok(true)) => Err(Error::Pooler("two connections were served by one session of the server".into())),
        Ok(Err(e)) if is_of_a_pooler(&e) => Err(Error::Pooler(e.to_string())),
        _ => Ok(()),
    }
}

/// What a pooler says when it cannot do what a server does.
pub(super) fn is_of_a_pooler(e: &sqlx::Error) -> bool {
    let text = e.to_string();
    text.contains("unsupported startup parameter")
        || text.contains("transaction blocks not allowed in statement pooling")
}

async fn shares_sessions(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut first = PgConnection::connect_with(options).await?;
    let mine = process(&mut first).await?;
    let (mut others, mut shared) = (Vec::new(), false);
    while !shared && others.len() < SESSIONS_TRIED - 1 {
        let Ok(mut other) = PgConnection::connect_with(options).await else { break };
        // It keeps its session of the server for as long as the transaction is open.
        other.execute("BEGIN").await?;
        shared = process(&mut other).await? == mine || process(&mut first).await? != mine;
        others.push(other);
    }
    for c in others.into_iter().chain([first]) {
        let _ = c.close().await;
    }
    Ok(shared)
}

/// The process of the server that answers. Without a prepared statement: the name would meet another's.
async fn process(c: &mut PgConnection) -> Result<i32, sqlx::Error> {
    query_scalar("SELECT pg_backend_pid()").persistent(false).fetch_one(c).await
}
