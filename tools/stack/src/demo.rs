//! The demo workload: one job per file of this place, through an `exec` tool that hashes and counts.
//!
//! The tool is this very program (`example-tool digest`), declared in a tools file as a user would
//! declare one. A demo that fails says so and leaves everything running.

use crate::{example_tool::Found, files, ready::Ready, roster::ORCHESTRATOR};
use agentforge_client::{
    Client,
    view::{JobView, between},
};
use agentforge_proto::v1;
use agentforge_terminal::{
    BOLD, DIM, Explain, Failure, Global, Output, Progress, RED, Result, Table, bytes, clean, short_duration, styled,
    until_final,
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Jobs submitted and not finished: enough to keep every slot of a worker on a small machine busy, and few enough that
/// the reported latency is not all waiting.
const IN_FLIGHT: usize = 16;
/// A demo that takes longer is given up.
const DEMO_MAX: Duration = Duration::from_secs(120);
/// Kinds of files shown one by one.
const KINDS_SHOWN: usize = 7;

/// Where the demo finds its files.
pub struct Place {
    root: PathBuf,
    program: PathBuf,
    own_tools: bool,
}

impl Place {
    /// The folder that `dev` was started in.
    ///
    /// # Errors
    /// The folder or this program's own path is not known.
    pub fn here() -> Result<Self> {
        let unknown = |what: &'static str| move |e: std::io::Error| Failure::new(format!("{what} is not known: {e}"));
        Ok(Self {
            root: std::env::current_dir().and_then(|d| d.canonicalize()).map_err(unknown("the current directory"))?,
            program: std::env::current_exe().map_err(unknown("this program's own path"))?,
            own_tools: std::env::var_os("WORKER_TOOLS_FILE").is_none_or(|v| v.is_empty()),
        })
    }

    /// Whether the worker has the tool `digest`: not when the environment names a tools file.
    pub fn has_digest(&self) -> bool {
        self.own_tools
    }

    /// Declares `digest` in `tools.toml` of the data directory; rewritten at each start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_tools_file(&self, data: &Path) -> Result<PathBuf> {
        let path = data.join("tools.toml");
        std::fs::write(&path, self.tools_file())
            .map_err(|e| Failure::new(format!("{} cannot be written: {e}", path.display())))?;
        Ok(path)
    }

    fn tools_file(&self) -> String {
        // A JSON string is a valid basic string of TOML.
        let quoted = |p: &Path| serde_json::Value::from(p.to_string_lossy().as_ref());
        format!(
            "# Written by `agentforge dev` at each start. For tools of your own, copy it and set WORKER_TOOLS_FILE.\n\n\
             [[tool]]\nname = \"digest\"\nargv = [{}, \"example-tool\", \"digest\"]\nworking_dir = {}\ntimeout = \"30s\"\n",
            quoted(&self.program),
            quoted(&self.root),
        )
    }
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    failed: u64,
    bytes: u64,
    lines: u64,
    seconds: f64,
    jobs_per_s: f64,
    p50_ms: f64,
    p95_ms: f64,
    slowest_ms: f64,
    slowest: Option<String>,
    first_failure: Option<String>,
    #[serde(skip)]
    kinds: BTreeMap<String, Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    files: u64,
    bytes: u64,
    lines: u64,
}

struct Outcome {
    path: String,
    latency: Duration,
    found: Result<Found, String>,
}

/// Runs it and prints its summary; never fails `dev`.
pub async fn run(place: &Place, data: &Path, ready: &Ready, global: &Global, out: Output) {
    if !place.has_digest() {
        return out.note("no demo: WORKER_TOOLS_FILE names a tools file, so the worker has no tool `digest`\n");
    }
    match tokio::time::timeout(DEMO_MAX, workload(place, data, ready, global, out)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => agentforge_terminal::report(&failure, out),
        Err(_) => out.note(format!("the demo was given up after {}", short_duration(DEMO_MAX))),
    }
}

async fn workload(place: &Place, data: &Path, ready: &Ready, global: &Global, out: Output) -> Result {
    let (root, data) = (place.root.clone(), data.to_owned());
    let names = tokio::task::spawn_blocking(move || files::list(&root, &data)).await.map_err(anyhow::Error::from)?;
    if names.is_empty() {
        out.note("no demo: there are no files here\n");
        return Ok(());
    }
    let grpc = ready.services.get(ORCHESTRATOR).and_then(|s| s.grpc.clone());
    let server = grpc.ok_or_else(|| Failure::new("the orchestrator has no gRPC address"))?;
    let client = Global { server, ..global.clone() }.client()?;
    out.note(format!(
        "{} one job per file of {}, each run by the tool `digest`: a command that gets JSON and answers JSON.\n",
        styled(BOLD, format!("A first workload: {} jobs,", names.len())),
        place.root.display()
    ));
    let progress = Progress::new("files", Some(names.len() as u64));
    let run = Uuid::now_v7().to_string();
    let began = Instant::now();
    let mut jobs = stream::iter(names).map(|path| one(&client, &run, path)).buffer_unordered(IN_FLIGHT);
    let mut outcomes = Vec::new();
    while let Some(outcome) = jobs.next().await {
        outcomes.push(outcome?);
        progress.set(outcomes.len() as u64);
    }
    progress.clear();
    summarise(&outcomes, began.elapsed()).print(out)
}

async fn one(client: &Client, run: &str, path: String) -> Result<Outcome> {
    let request = v1::SubmitJobRequest {
        id: Uuid::now_v7().to_string(),
        tool: "digest".to_owned(),
        args: serde_json::json!({ "path": path }).to_string(),
        labels: HashMap::from([("demo".to_owned(), run.to_owned())]),
        ..Default::default()
    };
    let id = request.id.clone();
    let answer = client.jobs().submit_job(client.request(request)).await;
    answer.map_err(|e| client.failure("submitting the demo", &e))?;
    let job = until_final(client, &id, tokio::time::Instant::now(), None, false).await?;
    let view = JobView::new(&job);
    let found = match (job.state(), &job.result) {
        (v1::JobState::Succeeded, Some(result)) => serde_json::from_str(result).map_err(|e| e.to_string()),
        _ => Err(view
            .error
            .as_ref()
            .map_or_else(|| view.state.to_owned(), |e| clean(&format!("{}: {}", e.class, e.message), 400))),
    };
    Ok(Outcome { path, latency: between(view.created_at, view.finished_at).unwrap_or_default(), found })
}

/// Pure: the figures of a run.
fn summarise(outcomes: &[Outcome], took: Duration) -> Summary {
    let mut latencies: Vec<(Duration, &str)> = outcomes.iter().map(|o| (o.latency, o.path.as_str())).collect();
    latencies.sort();
    let ms = |d: Duration| (d.as_secs_f64() * 1e5).round() / 100.0;
    let at = |q: f64| {
        let rank = (q * latencies.len() as f64).ceil() as usize;
        latencies.get(rank.saturating_sub(1)).map_or(0.0, |(d, _)| ms(*d))
    };
    let mut summary = Summary {
        files: outcomes.len() as u64,
        failed: 0,
        bytes: 0,
        lines: 0,
        seconds: took.as_secs_f64(),
        jobs_per_s: outcomes.len() as f64 / took.as_secs_f64().max(f64::EPSILON),
        p50_ms: at(0.5),
        p95_ms: at(0.95),
        slowest_ms: at(1.0),
        slowest: latencies.last().map(|(_, path)| (*path).to_owned()),
        first_failure: None,
        kinds: BTreeMap::new(),
    };
    for outcome in outcomes {
        match &outcome.found {
            Err(why) => {
                summary.failed += 1;
                summary.first_failure.get_or_insert_with(|| format!("{}: {why}", outcome.path));
            }
            Ok(found) => {
                summary.bytes += found.bytes;
                summary.lines += found.lines;
                let kind = Path::new(&outcome.path)
                    .extension()
                    .map_or("(none)".to_owned(), |e| e.to_string_lossy().to_lowercase());
                let kind = summary.kinds.entry(kind).or_default();
                kind.files += 1;
                kind.bytes += found.bytes;
                kind.lines += found.lines;
            }
        }
    }
    summary
}

impl Summary {
    fn print(&self, out: Output) -> Result {
        if out.json {
            return out.document(&serde_json::json!({ "demo": self }));
        }
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(name, kind)| (std::cmp::Reverse(kind.lines), (*name).clone()));
        let mut table = Table::new(["KIND", "FILES", "SIZE", "LINES"]).right(1).right(2).right(3);
        let mut add = |name: &str, k: &Kind| {
            table.row([name.to_owned(), k.files.to_string(), bytes(k.bytes), k.lines.to_string()], None)
        };
        for (name, kind) in kinds.iter().take(KINDS_SHOWN) {
            add(name, kind);
        }
        let rest = kinds.iter().skip(KINDS_SHOWN).fold(Kind::default(), |sum, (_, k)| Kind {
            files: sum.files + k.files,
            bytes: sum.bytes + k.bytes,
            lines: sum.lines + k.lines,
        });
        if rest.files > 0 {
            add("others", &rest);
        }
        add("all", &Kind { files: self.files - self.failed, bytes: self.bytes, lines: self.lines });
        for line in table.lines() {
            out.line(format!("  {line}"))?;
        }
        let slowest = clean(self.slowest.as_deref().unwrap_or_default(), 60);
        out.line(format!(
            "\n  {} in {:.2} s: {:.0} jobs/s; submit to committed result p50 {:.1} ms, p95 {:.1} ms, slowest {:.1} ms {}\n",
            styled(BOLD, format!("{} jobs", self.files)),
            self.seconds,
            self.jobs_per_s,
            self.p50_ms,
            self.p95_ms,
            self.slowest_ms,
            styled(DIM, format!("({slowest})")),
        ))?;
        match &self.first_failure {
            None => Ok(()),
            Some(why) => out.line(format!(
                "  {}, the first: {}\n",
                styled(RED, format!("{} failed", self.failed)),
                clean(why, 200)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(path: &str, ms: u64, lines: Option<u64>) -> Outcome {
        let found = lines.map(|lines| Found { path: path.into(), sha256: String::new(), bytes: lines * 10, lines });
        Outcome {
            path: path.into(),
            latency: Duration::from_millis(ms),
            found: found.ok_or_else(|| "runtime: no".into()),
        }
    }

    #[test]
    fn figures_are_of_all_jobs_and_sums_of_those_that_succeeded() {
        let mut outcomes: Vec<_> = (1..=98).map(|n| outcome(&format!("{n}.rs"), n, Some(2))).collect();
        outcomes.push(outcome("slow.MD", 500, Some(1)));
        outcomes.push(outcome("gone", 99, None));
        let summary = summarise(&outcomes, Duration::from_secs(2));
        assert_eq!((summary.files, summary.failed, summary.lines, summary.bytes), (100, 1, 197, 1970));
        assert_eq!((summary.p50_ms, summary.p95_ms, summary.slowest_ms), (50.0, 95.0, 500.0));
        assert_eq!(summary.slowest.as_deref(), Some("slow.MD"));
        assert_eq!(summary.jobs_per_s, 50.0);
        assert_eq!(summary.kinds.keys().collect::<Vec<_>>(), ["md", "rs"]);
        assert_eq!(summary.first_failure.as_deref(), Some("gone: runtime: no"));
    }

    #[test]
    fn the_tools_file_is_what_a_worker_reads() {
        let root = tempfile::tempdir().unwrap();
        let place = Place { root: root.path().to_owned(), program: std::env::current_exe().unwrap(), own_tools: true };
        let around = agentforge_worker::tools_file::ProcessEnvironment;
        let defaults = agentforge_worker::tools_file::Defaults { output_max_bytes: 1 << 20, temp_max_bytes: 1 << 20 };
        let tools =
            agentforge_worker::tools_file::parse(&place.tools_file(), defaults, &Default::default(), &around).unwrap();
        assert_eq!(tools.len(), 1);
        assert_eq!(tools[0].1.argv[1..], ["example-tool", "digest"]);
        assert_eq!(tools[0].1.working_dir.as_deref(), Some(root.path()));
    }
}
