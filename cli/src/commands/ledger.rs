//! `agentforge ledger`: reads a site's ledger, and holds it against the hub's stream.

use agentforge_config::{Env, Reader};
use agentforge_jetstream::{Nats, NatsConfig};
use agentforge_ledger::{Claim, Entry, Event, Hub, Ledger, LocatedFault, Newest, files, hub};
use agentforge_terminal::{FAILED, Failure, GREEN, Output, RED, Result, Table, YELLOW, bytes, clean, styled};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};

/// What to do with a ledger.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the chain, and every file against the hub's stream
    ///
    /// The exit code is 1 when something is wrong or missing.
    Verify(VerifyArgs),
    /// Print lines
    Show(ShowArgs),
}

/// Which ledger, and which hub.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge ledger verify /agentforge/ledger
  agentforge ledger verify ./ledger --nats-url nats://hub.example:4222 --json
  agentforge ledger verify ./ledger --domain hub --contents   from a site, through its leaf node
  agentforge ledger verify ./ledger --offline                 only the chain
  agentforge ledger verify ./ledger --archived                earlier days are kept elsewhere

NATS_CREDS, NATS_USER and the other settings of the connection are taken from the environment.
The newest message at the hub names what was the ledger's newest line then: so an end that was cut off is found.
A chain that begins late is a fault, unless --archived says that files of earlier days were taken away.")]
pub struct VerifyArgs {
    /// The ledger's directory (SYNC_LEDGER_DIR)
    dir: PathBuf,
    /// The NATS server to ask
    #[arg(long, value_name = "URL", env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// The hub's JetStream domain, when the server is a leaf node of it
    #[arg(long, value_name = "NAME", env = "SYNC_JS_DOMAIN")]
    domain: Option<String>,
    /// Where the site publishes (SYNC_SUBJECT) [default: edge.evidence.SITE]
    #[arg(long, value_name = "SUBJECT", env = "SYNC_SUBJECT")]
    subject: Option<String>,
    /// Read every message back and compare its content
    #[arg(long)]
    contents: bool,
    /// Files of earlier days were archived: the chain may begin with the first line of a later file
    #[arg(long)]
    archived: bool,
    /// Do not ask the hub
    #[arg(long, conflicts_with_all = ["contents", "domain"])]
    offline: bool,
}

/// Which lines.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge ledger show /agentforge/ledger
  agentforge ledger show ./ledger --event quarantined --last 100
  agentforge ledger show ./ledger --file report --json | jq -r .sha256")]
pub struct ShowArgs {
    /// The ledger's directory (SYNC_LEDGER_DIR)
    dir: PathBuf,
    /// Only this event
    #[arg(long, value_enum)]
    event: Option<Kind>,
    /// Only files whose encoded name contains this
    #[arg(long, value_name = "TEXT")]
    file: Option<String>,
    /// Maximum number of lines, the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
}

/// The events, as they are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Startup,
    Connected,
    Disconnected,
    Replayed,
    Duplicate,
    Quarantined,
    Error,
    Recovered,
}

impl Kind {
    fn is(self, event: Event) -> bool {
        self.to_possible_value().is_some_and(|value| value.get_name() == event.as_str())
    }
}

/// For the connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a line may come after its message, before the ledger is read once more.
const LINE_AFTER_MESSAGE: Duration = Duration::from_secs(3);
/// Missing files that are printed; `--json` has all of them.
const SHOWN_MAX: usize = 50;

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    /// Files of the ledger.
    files: u64,
    lines: u64,
    events: BTreeMap<&'static str, u64>,
    /// Different contents that were delivered.
    contents: usize,
    /// The first line names one before it that is not here.
    starts_late: bool,
    faults: Vec<LocatedFault>,
    fault_count: u64,
    /// What is wrong with the ledger's beginning or end.
    cut: Vec<String>,
    /// Whether the stream was asked.
    checked: bool,
    missing: Vec<Claim>,
    /// Contents whose message has other bytes.
    altered: Vec<Claim>,
    /// Messages of the site without a line.
    not_in_ledger: u64,
}

/// Runs it.
///
/// # Errors
/// The ledger or the hub cannot be read; quietly, when the report says what is wrong.
pub async fn run(command: Command, out: Output) -> Result {
    match command {
        Command::Verify(args) => verify(args, out).await,
        Command::Show(args) => show(&args, out),
    }
}

fn unreadable(dir: &Path, e: &std::io::Error) -> Failure {
    Failure::new(format!("the ledger in {} cannot be read: {e}", dir.display()))
        .hint("name the directory that SYNC_LEDGER_DIR names; it holds sync_YYYYMMDD.jsonl files")
}

async fn verify(args: VerifyArgs, out: Output) -> Result {
    // Asked before the ledger is read: a message that comes in between is not held against it.
    let hub = if args.offline { None } else { Some(connect(&args).await?) };
    let mut ledger = read(&args, None).await?;
    let mut newest = None;
    if let Some(hub) = &hub {
        newest = hub.newest(&ledger.account).await.map_err(unasked)?;
        ledger = read(&args, newest.clone()).await?;
        // A daemon that runs writes the line of its newest message a moment after it.
        if newest.as_ref().is_some_and(|newest| !ledger.reaches(newest)) {
            tokio::time::sleep(LINE_AFTER_MESSAGE).await;
            ledger = read(&args, newest.clone()).await?;
        }
    }
    let Ledger { account, chain, .. } = &ledger;
    let mut report = Report {
        files: account.files,
        lines: account.lines,
        events: account.events.iter().map(|(event, n)| (event.as_str(), *n)).collect(),
        contents: account.contents(),
        starts_late: chain.starts_late,
        faults: account.faults.clone(),
        fault_count: account.fault_count,
        cut: ledger.cut(args.archived, newest.as_ref()),
        ..Report::default()
    };
    if let Some(hub) = hub {
        report.checked = true;
        let present = hub.subjects(account).await.map_err(unasked)?;
        (report.missing, report.not_in_ledger) = account.against(&present);
        if args.contents {
            report.altered = hub.altered(account, &present).await.map_err(unasked)?;
        }
        hub.close().await;
    }
    report.ok =
        report.fault_count == 0 && report.cut.is_empty() && report.missing.is_empty() && report.altered.is_empty();
    report.print(out)?;
    if report.ok { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

async fn read(args: &VerifyArgs, newest: Option<Newest>) -> Result<Ledger> {
    let (dir, subject) = (args.dir.clone(), args.subject.clone());
    let read = tokio::task::spawn_blocking(move || Ledger::read(&dir, subject.as_deref(), newest.as_ref()));
    let ledger = read.await.map_err(anyhow::Error::from)?.map_err(|e| unreadable(&args.dir, &e))?;
    match ledger.account.lines {
        0 => Err(Failure::new(format!("there is no ledger in {}", args.dir.display()))),
        _ => Ok(ledger),
    }
}

fn unasked(e: hub::Error) -> Failure {
    let failure = Failure::new(e.to_string());
    match e {
        hub::Error::NoStream(_) => failure.hint("is this the hub? a site asks it with --domain"),
        hub::Error::Unanswered(_) | hub::Error::NotReadBack { .. } => failure,
    }
}

async fn connect(args: &VerifyArgs) -> Result<Hub> {
    let source = (BTreeMap::from([("NATS_URL".to_owned(), args.nats_url.clone())]), Env);
    let mut reader = Reader::new(&source);
    let config = NatsConfig::read(&mut reader);
    reader.finish().map_err(|faults| Failure::usage(faults.to_string()))?;
    let nats = Nats::connect(&config, "agentforge ledger").await.map_err(anyhow::Error::from)?;
    if !nats.wait_connected(CONNECT_MAX).await {
        return Err(
            Failure::new("NATS cannot be reached").hint("--nats-url names the server; --offline checks only the chain")
        );
    }
    Ok(Hub::new(nats, args.domain.as_deref()))
}

impl Report {
    fn print(&self, out: Output) -> Result {
        if out.json {
            return out.document(self);
        }
        let events: Vec<_> = self.events.iter().map(|(event, n)| format!("{event} {n}")).collect();
        out.line(format!("{} lines in {} files: {}", self.lines, self.files, events.join(", ")))?;
        match self.fault_count + self.cut.len() as u64 {
            0 => out.line(format!("chain    {}", styled(GREEN, "whole")))?,
            n => out.line(format!("chain    {}", styled(RED, format!("{n} faults"))))?,
        }
        for problem in &self.cut {
            out.line(format!("         {}", styled(RED, format!("the ledger {problem}"))))?;
        }
        if self.starts_late && self.cut.is_empty() {
            out.line(styled(YELLOW, "         files of earlier days are not here"))?;
        }
        for LocatedFault { file, line, problem } in &self.faults {
            out.line(format!("         {file}:{line}: {}", clean(problem, 200)))?;
        }
        if !self.checked {
            return out.line("stream   not asked (--offline)");
        }
        let (missing, altered) = (self.missing.len(), self.altered.len());
        match missing + altered {
            0 => out.line(format!("stream   {}: {} contents", styled(GREEN, "nothing is missing"), self.contents))?,
            _ => {
                let text = format!("{missing} of {} contents are missing, {altered} are altered", self.contents);
                out.line(format!("stream   {}", styled(RED, text)))?;
            }
        }
        for (word, claims) in [("missing", &self.missing), ("altered", &self.altered)] {
            for claim in claims.iter().take(SHOWN_MAX) {
                let (file, size) = (clean(&claim.file, 120), bytes(claim.bytes));
                out.line(format!("         {word}: {file} ({size}), was at {}, {}", claim.seq, claim.sha256))?;
            }
            if claims.len() > SHOWN_MAX {
                out.line(format!("         and {} more; --json has all", claims.len() - SHOWN_MAX))?;
            }
        }
        if self.not_in_ledger > 0 {
            let text = format!("{} messages of the site are in the stream and not in the ledger", self.not_in_ledger);
            out.line(format!("         {}", styled(YELLOW, text)))?;
        }
        Ok(())
    }
}

fn show(args: &ShowArgs, out: Output) -> Result {
    let mut last: VecDeque<Entry> = VecDeque::new();
    let mut faults = 0u64;
    let wanted = |entry: &Entry| {
        args.event.is_none_or(|event| event.is(entry.event))
            && args.file.as_deref().is_none_or(|text| entry.file.as_deref().is_some_and(|file| file.contains(text)))
    };
    files::read::<std::io::Error>(&args.dir, |_, _, line| {
        match line {
            Ok(entry) if wanted(&entry) => {
                if last.len() == args.last.max(1) {
                    last.pop_front();
                }
                last.push_back(entry);
            }
            Ok(_) => {}
            Err(_) => faults += 1,
        }
        Ok(())
    })
    .map_err(|e| unreadable(&args.dir, &e))?;
    if faults > 0 {
        agentforge_terminal::warn(format!(
            "{faults} lines are broken or out of the chain: `agentforge ledger verify` says which"
        ));
    }
    if out.json {
        return last.iter().try_for_each(|entry| out.document(entry));
    }
    let mut table = Table::new(["TIME", "EVENT", "FILE", "BYTES", "SEQ", "SHA-256", "DETAIL"]).right(3).right(4);
    for e in last {
        let short = |hash: String| hash.get(..12).map(str::to_owned).unwrap_or_default();
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let cells = [
            format!("{:.3}", e.ts),
            e.event.as_str().to_owned(),
            e.file.unwrap_or_default(),
            number(e.bytes),
            number(e.seq),
            e.sha256.map(short).unwrap_or_default(),
            e.detail.unwrap_or_default(),
        ];
        table.row(cells, None);
    }
    table.print(out, "No such lines.")
}
