//! `agentforge audit`: who did what, and whether the log of it is what was written.

use crate::{context::Context, words::ago};
use agentforge_audit::{Chain, Chained, EntryView, Finding, Hash, Head, NoTime, Verified, Verifier};
use agentforge_client::{pages, view::Moment};
use agentforge_proto::{time::Micros, v1};
use agentforge_terminal::{Explain, Failure, Result, Table, clean, since};
use jiff::Timestamp;
use serde_json::json;
use std::{collections::HashSet, time::Duration};

/// Between two checks of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Entries read at once to be checked.
const PAGE: u32 = 1_000;
/// Entries that `--follow` remembers to print each once.
const SEEN_MAX: usize = 10_000;

/// What to do with the audit log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show who did what, newest first; with --verify, check that the log was not changed
    Log(LogArgs),
}

/// Which entries.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge audit log
  agentforge audit log --principal ci --operation CancelJob --since 1h
  agentforge audit log --object 0198c5a2-7d1e-7c3a-9f00-0123456789ab --json
  agentforge audit log --verify
  agentforge audit log --verify --head 5881358da51e11e25a94b784d406e77ce0fcd7743ca1ca076ff1a4120467e25c

Exit codes of --verify: 0 the log is whole, 1 it is not.")]
pub struct LogArgs {
    /// Only of the token with this name
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only this operation, such as CancelJob
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Only about the thing with this id
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Only with this outcome: ok, or the code of a refusal
    #[arg(long, value_name = "WORD")]
    outcome: Option<String>,
    /// Only since: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// Only before: 2h (ago), or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since)]
    until: Option<Timestamp>,
    /// Maximum number
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Show new entries as they come, until Ctrl-C
    #[arg(short = 'f', long, conflicts_with_all = ["verify", "until"])]
    follow: bool,
    /// Read the whole log and check every entry's hash and place
    #[arg(long, conflicts_with_all = ["principal", "operation", "object", "outcome", "since", "until"])]
    verify: bool,
    /// With --verify: the hash of an entry that was kept elsewhere; may be given several times
    #[arg(long = "head", value_name = "HASH", requires = "verify", value_parser = hash)]
    heads: Vec<Hash>,
}

fn hash(text: &str) -> std::result::Result<Hash, String> {
    text.parse().map_err(|e: agentforge_audit::NotAHash| e.to_string())
}

/// Runs it.
///
/// # Errors
/// What failed; for a log that is not whole, what is wrong with it.
pub async fn run(command: Command, context: &Context) -> Result {
    let Command::Log(args) = command;
    match () {
        () if args.verify => verify(&args.heads, context).await,
        () if args.follow => follow(&args, context).await,
        () => list(&args, context).await,
    }
}

fn request(args: &LogArgs, limit: u32, cursor: String) -> v1::ListAuditEntriesRequest {
    let stamp = |t: Option<Timestamp>| t.map(|t| Micros::from(t).to_proto());
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    v1::ListAuditEntriesRequest {
        principal: text(&args.principal),
        operation: text(&args.operation),
        object: text(&args.object),
        outcome: text(&args.outcome),
        since: stamp(args.since),
        until: stamp(args.until),
        limit,
        cursor,
    }
}

async fn list(args: &LogArgs, context: &Context) -> Result {
    let fetch = async |limit, cursor| {
        let request = context.client.request(request(args, limit, cursor));
        let answer = context.client.audit().list_audit_entries(request).await;
        let page = answer.map_err(|e| context.client.failure("reading the audit log", &e))?.into_inner();
        let entries: Vec<Chained> = page.entries.into_iter().map(chained).collect::<Result<_>>()?;
        Ok::<_, Failure>((entries, page.next_cursor))
    };
    if context.out.json {
        let mut list = context.out.list("entries");
        let add = |page: Vec<Chained>| list.extend(&page.into_iter().map(EntryView::from).collect::<Vec<_>>());
        let left = pages(Some(args.limit), fetch, add).await?;
        return list.finish(left.as_deref());
    }
    let mut found = Vec::new();
    let add = |page: Vec<Chained>| {
        found.extend(page);
        Ok(())
    };
    let left = pages(Some(args.limit), fetch, add).await?;
    let headings = ["WHEN", "WHO", "ROLE", "FROM", "BY", "OPERATION", "OBJECT", "OUTCOME", "CALLS"];
    let mut table = Table::new(headings).right(8);
    for e in found.into_iter().map(|found| found.entry) {
        let object = [e.object_kind.as_str(), e.object_id.as_deref().unwrap_or_default()].join(" ");
        let from = e.address.unwrap_or_default();
        let calls = e.calls.to_string();
        let [principal, operation, outcome] = [e.principal, e.operation, e.outcome].map(|text| clean(&text, 64));
        let row = [
            ago(Some(Moment(e.at.timestamp()))),
            principal,
            e.role,
            from,
            e.surface,
            operation,
            clean(&object, 80),
            outcome,
            calls,
        ];
        table.row(row, None);
    }
    table.print(context.out, "No entries.")?;
    if left.is_some() {
        context.out.note("There are more: --limit N shows them.");
    }
    Ok(())
}

async fn follow(args: &LogArgs, context: &Context) -> Result {
    let mut seen: HashSet<String> = HashSet::new();
    loop {
        let request = context.client.request(request(args, 200, String::new()));
        let answer = context.client.audit().list_audit_entries(request).await;
        let page = answer.map_err(|e| context.client.failure("reading the audit log", &e))?.into_inner();
        if seen.len() > SEEN_MAX {
            seen = page.entries.iter().map(|e| e.id.clone()).collect();
        }
        for entry in page.entries.into_iter().rev().filter(|e| seen.insert(e.id.clone())).collect::<Vec<_>>() {
            let chained = chained(entry)?;
            let line = if context.out.json {
                serde_json::to_string(&EntryView::from(chained)).map_err(|e| Failure::new(e.to_string()))?
            } else {
                let e = chained.entry;
                let object = e.object_id.unwrap_or_default();
                let words = [&e.principal, &e.operation, &e.object_kind, &object, &e.outcome];
                format!("{:.3} {}", e.at.timestamp(), words.map(|word| clean(word, 80)).join(" "))
            };
            context.out.line(line)?;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// Reads every chain and checks it here: the server's word counts for nothing but the entries themselves.
async fn verify(anchors: &[Hash], context: &Context) -> Result {
    let failed = |e| context.client.failure("reading the audit log", &e);
    let mut verifier = Verifier::default();
    let mut heads = Vec::new();
    let request = context.client.request(v1::ListAuditChainsRequest {});
    let chains = context.client.audit().list_audit_chains(request).await.map_err(failed)?.into_inner().chains;
    for chain in chains {
        let chain = described(chain)?;
        verifier.begin(&chain);
        // What is appended meanwhile is not looked at: the chain ends at the head that was read.
        let (mut after, mut last) = (chain.base.place, None);
        while after < chain.head.place {
            let limit = u32::try_from(chain.head.place - after).unwrap_or(PAGE).min(PAGE);
            let request = v1::ReadAuditChainRequest { chain: chain.head.chain, after, limit };
            let answer = context.client.audit().read_audit_chain(context.client.request(request)).await;
            let page = answer.map_err(failed)?.into_inner().entries;
            for entry in page {
                let entry = chained(entry)?;
                if entry.place > chain.head.place {
                    break;
                }
                verifier.take(&entry);
                (after, last) = (entry.place, Some(entry.place));
            }
            if last.take().is_none() {
                break;
            }
        }
        verifier.end(&chain.head);
        if chain.head.place > 0 {
            heads.push(chain.head);
        }
    }
    let verified = verifier.finish(anchors);
    show(&verified, &heads, anchors, context)?;
    if verified.findings.is_empty() { Ok(()) } else { Err(Failure::quiet(1)) }
}

fn show(verified: &Verified, heads: &[Head], anchors: &[Hash], context: &Context) -> Result {
    let Verified { entries, findings, more } = verified;
    if context.out.json {
        let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
        return context.out.document(&json!({
            "whole": findings.is_empty(), "entries": entries, "findings": findings, "more_findings": more,
            "heads": heads,
        }));
    }
    for finding in findings {
        context.out.line(clean(&finding.to_string(), 300))?;
    }
    if *more > 0 {
        context.out.line(format!("and {more} more"))?;
    }
    if !findings.is_empty() {
        context.out.note("The audit log is not what was written.");
        return Ok(());
    }
    context.out.line(format!("{entries} entries are whole and in their places"))?;
    for head in heads {
        context.out.line(format!("chain {} ends at place {} with {}", head.chain, head.place, head.hash))?;
    }
    if anchors.is_empty() {
        context.out.note(
            "Who can write the whole table can compute it again. Keep a hash elsewhere, and give it with --head.",
        );
    }
    Ok(())
}

fn described(c: v1::AuditChain) -> Result<Chain> {
    if c.chain < 0 || c.place < 0 || c.base_place < 0 {
        return Err(Failure::new("the orchestrator described a chain of the audit log that cannot be"));
    }
    Ok(c.into())
}

fn chained(e: v1::AuditEntry) -> Result<Chained> {
    e.try_into().map_err(|e: NoTime| Failure::new(format!("entry {} has no time", clean(&e.id, 64))))
}
