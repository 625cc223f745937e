//! `agentforge ledger`: reads a site's ledger, and holds it against the hub's stream.

use crate::{
    error::{FAILED, Failure, Result},
    output::{GREEN, Output, RED, Table, YELLOW, bytes, clean, styled},
};
use agentforge_config::{Env, Reader};
use agentforge_jetstream::{Nats, NatsConfig, subjects::STREAM_EVIDENCE};
use agentforge_syncdaemon::{
    jetstream,
    ledger::{
        Account, Chain, Entry, Event,
        account::{Claim, Found},
        files,
    },
    stored,
};
use clap::ValueEnum;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
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
  agentforge ledger verify ./ledger --offline                 the chain alone

NATS_CREDS, NATS_USER and the other settings of the connection are taken from the environment.
A chain cannot show that its last lines were cut off; the stream can: see \"not in the ledger\".")]
pub struct VerifyArgs {
    /// The ledger's directory (SYNC_LEDGER_DIR)
    dir: PathBuf,
    /// The NATS server to ask
    #[arg(long, value_name = "URL", env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// The hub's JetStream domain, when the server is a leaf node of it
    #[arg(long, value_name = "NAME", env = "SYNC_JS_DOMAIN")]
    domain: Option<String>,
    /// Where the site publishes (SYNC_SUBJECT) [default: edge.evidence.<site>]
    #[arg(long, value_name = "SUBJECT", env = "SYNC_SUBJECT")]
    subject: Option<String>,
    /// Read every message back and compare its content
    #[arg(long)]
    contents: bool,
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
    /// Only files whose encoded name has this in it
    #[arg(long, value_name = "TEXT")]
    file: Option<String>,
    /// How many lines, the newest
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
/// Messages that are read back at once.
const READS: usize = 32;
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
    faults: Vec<Found>,
    fault_count: u64,
    /// Whether the stream was asked.
    checked: bool,
    missing: Vec<Claim>,
    /// Contents whose message has other bytes.
    altered: Vec<Claim>,
    /// Messages of the site that no line tells of.
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
    let hub = if args.offline { None } else { Some(Connection::open(&args).await?) };
    let (dir, subject) = (args.dir.clone(), args.subject.clone());
    let read =
        tokio::task::spawn_blocking(move || read(&dir, subject.as_deref())).await.map_err(anyhow::Error::from)?;
    let (account, chain) = read.map_err(|e| unreadable(&args.dir, &e))?;
    if account.lines == 0 {
        return Err(Failure::new(format!("there is no ledger in {}", args.dir.display())));
    }
    let mut report = Report {
        files: account.files,
        lines: account.lines,
        events: account.events.iter().map(|(event, n)| (event.as_str(), *n)).collect(),
        contents: account.contents(),
        starts_late: chain.starts_late,
        faults: account.faults.clone(),
        fault_count: account.fault_count,
        ..Report::default()
    };
    if let Some(hub) = hub {
        report.checked = true;
        let present = hub.subjects(&account).await?;
        (report.missing, report.not_in_ledger) = account.against(&present);
        if args.contents {
            report.altered = hub.altered(&account, &present).await?;
        }
        hub.close().await;
    }
    report.ok = report.fault_count == 0 && report.missing.is_empty() && report.altered.is_empty();
    report.print(out)?;
    if report.ok { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

fn read(dir: &Path, subject: Option<&str>) -> std::io::Result<(Account, Chain)> {
    let mut account = Account::default();
    let chain = files::read::<std::io::Error>(dir, |path, number, line| {
        account.take(path, number, line, subject);
        Ok(())
    })?;
    Ok((account, chain))
}

/// The stream, as it is asked.
struct Connection {
    nats: Nats,
    domain: Option<String>,
    js: async_nats::jetstream::Context,
}

impl Connection {
    async fn open(args: &VerifyArgs) -> Result<Self> {
        let source = (BTreeMap::from([("NATS_URL".to_owned(), args.nats_url.clone())]), Env);
        let mut reader = Reader::new(&source);
        let config = NatsConfig::read(&mut reader);
        reader.finish().map_err(|faults| Failure::usage(faults.to_string()))?;
        let nats = Nats::connect(&config, "agentforge ledger").await.map_err(anyhow::Error::from)?;
        if !nats.wait_connected(CONNECT_MAX).await {
            return Err(Failure::new("NATS cannot be reached")
                .hint("--nats-url names the server; --offline checks the chain alone"));
        }
        let js = jetstream(&nats, args.domain.as_deref());
        Ok(Self { nats, domain: args.domain.clone(), js })
    }

    /// The subjects in the stream that are of the ledger's site.
    async fn subjects(&self, account: &Account) -> Result<HashSet<String>> {
        let asked =
            |e: &dyn std::fmt::Display| Failure::new(format!("the stream {STREAM_EVIDENCE} cannot be read: {e}"));
        let stream = self
            .js
            .get_stream(STREAM_EVIDENCE)
            .await
            .map_err(|e| asked(&e).hint("is this the hub? a site asks it with --domain"))?;
        let mut found = HashSet::new();
        for root in account.subjects() {
            let mut subjects = stream.info_with_subjects(format!("{root}.>")).await.map_err(|e| asked(&e))?;
            while let Some((subject, _)) = subjects.try_next().await.map_err(|e| asked(&e))? {
                found.insert(subject);
            }
        }
        Ok(found)
    }

    /// Claims whose message does not have the content.
    async fn altered(&self, account: &Account, present: &HashSet<String>) -> Result<Vec<Claim>> {
        let there = account.claims().filter(|claim| present.contains(&claim.subject)).cloned();
        let checks = stream::iter(there).map(|claim| async move {
            match stored(&self.nats, self.domain.as_deref(), &claim.subject, &claim.sha256).await {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(claim)),
                Err(why) => Err(Failure::new(format!("{} cannot be read back: {why}", claim.subject))),
            }
        });
        checks.buffer_unordered(READS).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    async fn close(&self) {
        let _ = self.nats.drain().await;
    }
}

impl Report {
    fn print(&self, out: Output) -> Result {
        if out.json {
            return out.document(self);
        }
        let events: Vec<_> = self.events.iter().map(|(event, n)| format!("{event} {n}")).collect();
        out.line(format!("{} lines in {} files: {}", self.lines, self.files, events.join(", ")))?;
        match self.fault_count {
            0 => out.line(format!("chain    {}", styled(GREEN, "whole")))?,
            n => out.line(format!("chain    {}", styled(RED, format!("{n} faults"))))?,
        }
        if self.starts_late {
            out.line(styled(YELLOW, "         begins after a line that is not here: earlier files were taken away"))?;
        }
        for Found { file, line, problem } in &self.faults {
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
        crate::output::warn(format!(
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
