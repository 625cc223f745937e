//! `agentforge operation`: retries, redrives and cancels that continue without the command that started them.

use crate::{context::Context, words::ago};
use agentforge_client::{
    pages,
    view::{Moment, at},
};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Failure, Result, Table, clean};
use serde::Serialize;

/// What to do with operations.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List operations, newest first
    List(ListArgs),
    /// Show how far an operation is
    Get(GetArgs),
    /// Stop an operation; what it put back or cancelled stays so
    Cancel(CancelArgs),
}

/// How many.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge operation list
  agentforge operation list --json | jq '.operations[] | select(.state == \"running\")'")]
pub struct ListArgs {
    /// Maximum number
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// Which operation.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge operation get 0198c5a2-7d1e-7c3a-9f00-0123456789ab")]
pub struct GetArgs {
    /// Its id
    id: String,
}

/// Which operation.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge operation cancel 0198c5a2-7d1e-7c3a-9f00-0123456789ab")]
pub struct CancelArgs {
    /// Its id
    id: String,
}

/// An operation as `--json` prints it; field names are those of the REST API.
#[derive(Debug, Serialize)]
struct OperationView {
    id: String,
    kind: String,
    state: &'static str,
    cancel_asked: bool,
    total: Option<u64>,
    matched: u64,
    put_back: u64,
    cancelled: u64,
    skipped: u64,
    created_at: Option<Moment>,
    started_at: Option<Moment>,
    ended_at: Option<Moment>,
    error: Option<String>,
    started_by: Option<String>,
}

impl OperationView {
    fn new(o: v1::Operation) -> Self {
        Self {
            state: match o.state() {
                v1::OperationState::Unspecified => "unknown",
                v1::OperationState::Waiting => "waiting",
                v1::OperationState::Running => "running",
                v1::OperationState::Succeeded => "succeeded",
                v1::OperationState::Failed => "failed",
                v1::OperationState::Cancelled => "cancelled",
            },
            id: o.id,
            kind: o.kind,
            cancel_asked: o.cancel_asked,
            total: o.total,
            matched: o.matched,
            put_back: o.put_back,
            cancelled: o.cancelled,
            skipped: o.skipped,
            created_at: at(o.created_at.as_ref()),
            started_at: at(o.started_at.as_ref()),
            ended_at: at(o.ended_at.as_ref()),
            started_by: o.started_by,
            error: Some(o.error).filter(|e| !e.is_empty()),
        }
    }
}

/// Names the operation that continues without this command.
pub(super) fn tell_detached(id: &str, context: &Context) -> Result {
    if context.out.json {
        return context.out.document(&serde_json::json!({ "operation_id": id }));
    }
    context.out.line(id)?;
    context.out.note(format!("`agentforge operation get {}` shows how far it is.", clean(id, 64)));
    Ok(())
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, context: &Context) -> Result {
    let operations = || context.client.operations();
    match command {
        Command::List(args) => list(args, context).await,
        Command::Get(GetArgs { id }) => {
            let answer = operations().get_operation(context.client.request(v1::GetOperationRequest { id })).await;
            show(answer.map_err(|e| context.client.failure("reading an operation", &e))?.into_inner(), context)
        }
        Command::Cancel(CancelArgs { id }) => {
            let answer = operations().cancel_operation(context.client.request(v1::CancelOperationRequest { id })).await;
            show(answer.map_err(|e| context.client.failure("cancelling an operation", &e))?.into_inner(), context)
        }
    }
}

async fn list(args: ListArgs, context: &Context) -> Result {
    let mut found = Vec::new();
    let fetch = async |limit, cursor| {
        let request = context.client.request(v1::ListOperationsRequest { limit, cursor });
        let answer = context.client.operations().list_operations(request).await;
        let page = answer.map_err(|e| context.client.failure("listing operations", &e))?.into_inner();
        Ok::<_, Failure>((page.operations, page.next_cursor))
    };
    let add = |page: Vec<v1::Operation>| {
        found.extend(page.into_iter().map(OperationView::new));
        Ok(())
    };
    pages(Some(args.limit), fetch, add).await?;
    if context.out.json {
        return context.out.document(&serde_json::json!({ "operations": found }));
    }
    table(found, "No operations.", context)
}

fn show(operation: v1::Operation, context: &Context) -> Result {
    let view = OperationView::new(operation);
    if context.out.json { context.out.document(&view) } else { table(vec![view], "", context) }
}

fn table(operations: Vec<OperationView>, empty: &str, context: &Context) -> Result {
    let mut table = Table::new(["ID", "KIND", "STATE", "DONE", "SKIPPED", "TOTAL", "STARTED", "ENDED", "ERROR"]);
    for column in [3, 4, 5] {
        table = table.right(column);
    }
    for o in operations {
        let total = o.total.map(|n| n.to_string()).unwrap_or_default();
        let (done, skipped) = ((o.put_back + o.cancelled).to_string(), o.skipped.to_string());
        let error = clean(o.error.as_deref().unwrap_or_default(), 300);
        let row = [o.id, o.kind, o.state.into(), done, skipped, total, ago(o.started_at), ago(o.ended_at), error];
        table.row(row, None);
    }
    table.print(context.out, empty)
}
