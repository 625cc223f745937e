//! Many submissions over one stream: bounded in flight, patient with back-pressure, safe to send again.
//!
//! Every submission has an id or a key, so what was sent over a connection that broke is sent again
//! over the next one and is stored once. Lines are read as they are needed; a file of any size fits.

use super::{request::with_identity, template::line_request};
use crate::context::Context;
use agentforge_client::{Patience, retry_after};
use agentforge_proto::{
    time::duration_from_proto,
    v1::{
        SubmitJobRequest, SubmitJobsResponse,
        submit_jobs_response::{Accepted, Outcome},
    },
};
use agentforge_terminal::{Explain, FAILED, Failure, Output, Progress, Result, Table, short_duration};
use serde::Serialize;
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{Instant as Clock, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Submissions sent and not answered: enough to fill the server's group commits.
const WINDOW: usize = 1_024;
/// A longer line is refused, not read into memory.
const LINE_MAX_BYTES: u64 = 8 << 20;
/// Refusals reported one by one; the rest is counted.
const REFUSALS_SHOWN: usize = 1_000;

struct Item {
    line: u64,
    request: SubmitJobRequest,
    /// Sent before over a connection that broke: whether it was new then is not known.
    resent: bool,
}

/// A line that was not stored.
#[derive(Serialize)]
struct Refusal {
    line: u64,
    code: String,
    field: Option<String>,
    message: String,
}

#[derive(Default, Serialize)]
struct Summary {
    read: u64,
    accepted: u64,
    /// Of the accepted: stored before, the same again.
    existing: u64,
    refused: u64,
    seconds: f64,
    jobs_per_s: f64,
    refusals: Vec<Refusal>,
}

/// A stored line, as shown with `--json`.
#[derive(Serialize)]
struct Stored<'a> {
    line: u64,
    id: &'a str,
    created: bool,
}

/// Submits all lines; with `wait` then waits for their jobs, at most this long.
pub(super) async fn run(
    path: &Path,
    defaults: SubmitJobRequest,
    wait: Option<Option<Duration>>,
    context: &Context,
) -> Result {
    let lines = read_lines(path)?;
    let mut batch = Batch {
        lines,
        defaults,
        in_flight: VecDeque::new(),
        again: VecDeque::new(),
        input_ended: None,
        pause: None,
        patience: Patience::default(),
        stored: wait.is_some().then(Vec::new),
        told: Ok(()),
        summary: Summary::default(),
        progress: Progress::new("jobs stored", None),
        started: Instant::now(),
    };
    while !batch.is_done() {
        let broken = batch.session(context).await;
        if let Err(status) = broken {
            batch.recover(status, context).await?;
        }
    }
    let stored = batch.stored.take();
    let outcome = batch.finish(context.out);
    let (Some(ids), Some(limit)) = (stored, wait) else { return outcome };
    // Refused lines fail the command; the jobs of the others are waited for all the same.
    let waited = super::wait::all(ids, limit, context).await;
    outcome.and(waited)
}

struct Batch {
    lines: mpsc::Receiver<Result<(u64, String), String>>,
    defaults: SubmitJobRequest,
    in_flight: VecDeque<Item>,
    again: VecDeque<Item>,
    /// `Some(problem)` once there are no more lines.
    input_ended: Option<Option<String>>,
    pause: Option<Clock>,
    patience: Patience,
    /// Ids to wait for afterwards.
    stored: Option<Vec<String>>,
    /// Whether stdout accepted the output.
    told: Result,
    summary: Summary,
    progress: Progress,
    started: Instant,
}

impl Batch {
    fn is_done(&self) -> bool {
        self.input_ended.is_some() && self.in_flight.is_empty() && self.again.is_empty()
    }

    /// One stream, until all is answered or it breaks.
    async fn session(&mut self, context: &Context) -> Result<(), Status> {
        let (requests, outbound) = mpsc::channel(WINDOW);
        let (answered, mut answers) = mpsc::channel(WINDOW);
        let mut client = context.client.jobs();
        // A task of its own: a server may read before it answers, or answer before it reads.
        let call = tokio::spawn(async move {
            let mut stream = match client.submit_jobs(ReceiverStream::new(outbound)).await {
                Ok(stream) => stream.into_inner(),
                Err(e) => return drop(answered.send(Err(e)).await),
            };
            while let Some(answer) = stream.message().await.transpose() {
                let failed = answer.is_err();
                if answered.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        let ended = loop {
            if self.is_done() {
                break Ok(());
            }
            let wake = self.pause.unwrap_or_else(Clock::now);
            let has_more = !self.again.is_empty() || self.input_ended.is_none();
            tokio::select! {
                biased;
                answer = answers.recv() => match answer {
                    Some(Ok(answer)) => self.settle(answer, context.out),
                    Some(Err(status)) => break Err(status),
                    None => break Err(Status::unavailable("the server ended the stream early")),
                },
                () = sleep_until(wake), if self.pause.is_some() => self.pause = None,
                item = next(&mut self.again, &mut self.lines), if has_more && self.pause.is_none() && self.in_flight.len() < WINDOW => {
                    if let Some(item) = self.take(item) {
                        // No room is impossible within the window; a closed channel shows in the answers.
                        let _ = requests.try_send(item.request.clone());
                        self.in_flight.push_back(item);
                    }
                }
            }
        };
        drop(requests);
        call.abort();
        ended
    }

    /// Turns what was read into something to send.
    fn take(&mut self, next: Next) -> Option<Item> {
        match next {
            Next::Again(item) => Some(*item),
            Next::End => {
                self.input_ended = Some(None);
                None
            }
            Next::Line(Err(problem)) => {
                self.input_ended = Some(Some(problem));
                None
            }
            Next::Line(Ok((line, text))) => {
                if text.trim().is_empty() {
                    return None;
                }
                self.summary.read += 1;
                let parsed = if text.len() as u64 > LINE_MAX_BYTES {
                    Err(format!("the line is longer than {} MiB", LINE_MAX_BYTES >> 20))
                } else {
                    line_request(&text, &self.defaults)
                };
                match parsed {
                    Ok(request) => Some(Item { line, request: with_identity(request), resent: false }),
                    Err(message) => {
                        self.refuse(Refusal { line, code: "invalid_line".to_owned(), field: None, message });
                        None
                    }
                }
            }
        }
    }

    /// Answers come in the order of the requests.
    fn settle(&mut self, answer: SubmitJobsResponse, out: Output) {
        let Some(item) = self.in_flight.pop_front() else { return };
        self.patience.reset();
        match answer.outcome {
            Some(Outcome::Accepted(accepted)) => {
                self.summary.accepted += 1;
                self.summary.existing += u64::from(!accepted.created && !item.resent);
                self.progress.set(self.summary.accepted);
                self.tell(&item, &accepted, out);
            }
            Some(Outcome::Refused(refused)) => match refused.retry_after.as_ref().and_then(duration_from_proto) {
                Some(wait) => self.hold(item, wait, out),
                None => {
                    let field = Some(refused.field).filter(|f| !f.is_empty());
                    self.refuse(Refusal { line: item.line, code: refused.code, field, message: refused.message });
                }
            },
            None => {
                let message = "the server's answer is empty; are client and server of one version?".to_owned();
                self.refuse(Refusal { line: item.line, code: "internal".to_owned(), field: None, message });
            }
        }
    }

    /// One line for each line that was stored: what became of it can be looked up then.
    fn tell(&mut self, item: &Item, accepted: &Accepted, out: Output) {
        if self.told.is_err() {
            return;
        }
        self.told = if out.json {
            out.document(&Stored { line: item.line, id: &accepted.id, created: accepted.created })
        } else {
            out.line(format!("{}\t{}", item.line, accepted.id))
        };
        if let Some(stored) = &mut self.stored {
            stored.push(accepted.id.clone());
        }
    }

    /// Back-pressure: the item waits its turn again, and nothing is sent for a while.
    fn hold(&mut self, item: Item, wait: Duration, out: Output) {
        let wait = wait.clamp(Duration::from_millis(50), Duration::from_secs(60));
        if self.pause.is_none() {
            self.progress.message(format!("jobs stored; the server pushes back, waiting {}", short_duration(wait)));
            if self.again.is_empty() {
                out.note(format!("the server pushes back; continuing in {}", short_duration(wait)));
            }
        }
        self.pause = Some(self.pause.unwrap_or_else(Clock::now).max(Clock::now() + wait));
        self.again.push_back(item);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.summary.refused += 1;
        if self.summary.refusals.len() < REFUSALS_SHOWN {
            self.summary.refusals.push(refusal);
        }
    }

    /// After a break: everything unanswered goes out again, in its order.
    async fn recover(&mut self, status: Status, context: &Context) -> Result {
        for mut item in self.in_flight.drain(..).rev() {
            item.resent = true;
            self.again.push_front(item);
        }
        if status.code() == Code::ResourceExhausted {
            let wait = retry_after(&status).unwrap_or(Duration::from_secs(1));
            tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
            return Ok(());
        }
        if let Err(status) = self.patience.bear(status).await {
            self.progress.clear();
            let stored = self.summary.accepted;
            let mut failure = context.client.failure("submitting the batch", &status);
            failure.message += &format!("; {stored} jobs were stored before");
            return Err(failure);
        }
        Ok(())
    }

    fn finish(mut self, out: Output) -> Result {
        self.progress.clear();
        // A reader that went away wanted no more of it; the jobs are stored.
        std::mem::replace(&mut self.told, Ok(()))?;
        let took = self.started.elapsed().as_secs_f64();
        self.summary.seconds = took;
        self.summary.jobs_per_s = if took > 0.0 { self.summary.accepted as f64 / took } else { 0.0 };
        if out.json {
            out.document(&self.summary)?;
        } else {
            self.summary.print(out)?;
        }
        if let Some(Some(problem)) = self.input_ended {
            return Err(Failure::new(format!("the batch ended early: {problem}")));
        }
        if self.summary.refused > 0 { Err(Failure::quiet(FAILED)) } else { Ok(()) }
    }
}

impl Summary {
    fn print(&self, out: Output) -> Result {
        const SHOWN: usize = 20;
        out.remark(format!(
            "{} stored ({} of them before), {} refused, in {:.1} s ({:.0} jobs/s)",
            self.accepted, self.existing, self.refused, self.seconds, self.jobs_per_s
        ));
        if self.refusals.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(["LINE", "CODE", "FIELD", "WHY"]).right(0);
        for r in self.refusals.iter().take(SHOWN) {
            table.row(
                [r.line.to_string(), r.code.clone(), r.field.clone().unwrap_or_default(), r.message.clone()],
                None,
            );
        }
        for line in table.lines() {
            out.remark(line);
        }
        if self.refused > SHOWN as u64 {
            out.remark(format!("… and {} more; --json lists up to {REFUSALS_SHOWN}", self.refused - SHOWN as u64));
        }
        Ok(())
    }
}

enum Next {
    Again(Box<Item>),
    Line(Result<(u64, String), String>),
    End,
}

/// What was held back goes first. Cancel-safe: nothing is awaited after something was taken.
async fn next(again: &mut VecDeque<Item>, lines: &mut mpsc::Receiver<Result<(u64, String), String>>) -> Next {
    if let Some(item) = again.pop_front() {
        return Next::Again(Box::new(item));
    }
    lines.recv().await.map_or(Next::End, Next::Line)
}

/// Reads on a thread of its own, as far ahead as the channel lets it: a read of stdin cannot be cancelled.
fn read_lines(path: &Path) -> Result<mpsc::Receiver<Result<(u64, String), String>>> {
    let name = path.display().to_string();
    let input: Box<dyn Read + Send> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(|e| Failure::usage(format!("{name} cannot be read: {e}")))?),
    };
    let (lines, receiver) = mpsc::channel(WINDOW);
    let work = move || {
        let mut input = BufReader::with_capacity(1 << 16, input);
        for number in 1.. {
            let line = match read_line(&mut input) {
                Ok(None) => return,
                Ok(Some(line)) => Ok((number, line)),
                Err(e) => Err(format!("{name}, line {number}: {e}")),
            };
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("batch-input".to_owned()).spawn(work);
    thread.map_err(|e| Failure::new(format!("no thread to read the batch: {e}")))?;
    Ok(receiver)
}

/// A line without its end; of a line that is too long, just enough to show that it is.
fn read_line(input: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    if input.by_ref().take(LINE_MAX_BYTES + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    while line.len() as u64 > LINE_MAX_BYTES + 1 && !line.ends_with(b"\n") {
        line.truncate(LINE_MAX_BYTES as usize + 1);
        let mut rest = Vec::new();
        if input.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut rest)? == 0 || rest.ends_with(b"\n") {
            break;
        }
        line.push(b' ');
    }
    String::from_utf8(line).map(Some).map_err(|_| std::io::Error::other("the line is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_and_long_ones_are_cut() {
        let long = "x".repeat(LINE_MAX_BYTES as usize * 2 + 5);
        let text = format!("a\n\n{long}\nlast");
        let mut input = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0].trim(), lines[1].trim(), lines[3].as_str()), ("a", "", "last"));
        assert!(lines[2].len() as u64 > LINE_MAX_BYTES && lines[2].len() < LINE_MAX_BYTES as usize + 16);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        assert!(read_line(&mut BufReader::new(&b"\xff\xfe\n"[..])).is_err());
    }
}
