//! `agentforge agent`: the workers that announced themselves.

use crate::{context::Context, words::ago};
use agentforge_client::{pages, view::AgentView};
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Result, Table, clean};
use clap::builder::PossibleValuesParser;

/// What to do with agents.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List agents
    List(ListArgs),
    /// Show one agent
    Get(GetArgs),
}

/// Which agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge agent list
  agentforge agent list --status offline --json")]
pub struct ListArgs {
    /// Only this mission
    #[arg(long)]
    mission: Option<String>,
    /// Only with this status; `all` includes those that are gone [default: online]
    #[arg(long, value_parser = PossibleValuesParser::new(["online", "offline", "left", "all"]), default_value = "online", hide_default_value = true)]
    status: String,
}

/// Which agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge agent get AGENT_ID --json")]
pub struct GetArgs {
    /// The agent's id
    id: String,
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, context: &Context) -> Result {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Get(args) => get(args, context).await,
    }
}

async fn list(args: ListArgs, context: &Context) -> Result {
    let name = format!("AGENT_STATUS_{}", args.status.to_ascii_uppercase());
    // `all` is not a value of the contract: no filter.
    let status = v1::AgentStatus::from_str_name(&name).unwrap_or_default();
    let fetch = |limit, cursor| {
        let request = v1::ListAgentsRequest {
            mission: args.mission.clone().unwrap_or_default(),
            status: status as i32,
            limit,
            cursor,
        };
        async move {
            let answer = context.client.agents().list_agents(context.client.request(request)).await;
            let answer = answer.map_err(|e| context.client.failure("listing agents", &e))?.into_inner();
            Ok((answer.agents.iter().map(AgentView::new).collect::<Vec<_>>(), answer.next_cursor))
        }
    };
    if context.out.json {
        let mut list = context.out.list("agents");
        let left = pages(None, fetch, |page| list.extend(&page)).await?;
        return list.finish(left.as_deref());
    }
    let mut table =
        Table::new(["ID", "STATUS", "HOST", "SITE", "MISSION", "BUSY", "VERSION", "LAST SEEN", "UNCONFINED", "TOOLS"]);
    let add = |page: Vec<AgentView>| {
        for a in page {
            let (busy, tools) = (format!("{}/{}", a.inflight, a.capacity), a.tools.join(" "));
            let unconfined = a.unconfined.unwrap_or_else(|| "-".to_owned());
            let status = a.status.clone();
            let cells =
                [a.id, a.status, a.host, a.site, a.mission, busy, a.version, ago(a.last_seen_at), unconfined, tools];
            table.row(cells, Some(&status));
        }
        Ok(())
    };
    pages(None, fetch, add).await?;
    let empty = match args.status.as_str() {
        "online" => {
            "No agent is online. A worker announces itself when it reaches NATS; --status all lists those that are gone."
        }
        "all" => "No agents. A worker announces itself when it reaches NATS.",
        _ => "No agent has this status.",
    };
    table.print(context.out, empty)
}

/// Its clock compared with the orchestrator's; a difference that a round trip explains does not count.
fn skew(seconds: f64) -> String {
    match seconds {
        s if s.abs() < 0.5 => "as the orchestrator's".to_owned(),
        s if s > 0.0 => format!("{s:.1} s ahead of the orchestrator's"),
        s => format!("{:.1} s behind the orchestrator's", -s),
    }
}

/// By which means its commands are confined, and by which not.
fn confinement(missing: String) -> String {
    if missing.is_empty() { "nothing: every means of confining commands holds".to_owned() } else { missing }
}

async fn get(args: GetArgs, context: &Context) -> Result {
    let answer = context.client.agents().get_agent(context.client.request(v1::GetAgentRequest { id: args.id })).await;
    let a = AgentView::new(&answer.map_err(|e| context.client.failure("getting the agent", &e))?.into_inner());
    if context.out.json {
        return context.out.document(&a);
    }
    let mut text = String::new();
    for (name, value) in [
        ("id", a.id),
        ("status", a.status),
        ("host", a.host),
        ("site", a.site),
        ("mission", a.mission),
        ("version", a.version),
        ("busy", format!("{} of {}", a.inflight, a.capacity)),
        ("queues", a.queues.join(" ")),
        ("tools", a.tools.join(" ")),
        ("first seen", ago(a.first_seen_at)),
        ("last seen", ago(a.last_seen_at)),
        ("unconfined", a.unconfined.map(confinement).unwrap_or_default()),
        ("clock", a.clock_skew_seconds.map(skew).unwrap_or_default()),
        ("certificate", a.certificate_expires_at.map(|t| format!("ends {}", t.0)).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            text += &format!(
                "{} {}\n",
                agentforge_terminal::styled(agentforge_terminal::BOLD, format!("{name:<12}")),
                clean(&value, 400)
            );
        }
    }
    context.out.text(&text)
}
