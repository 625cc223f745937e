//! A page of jobs: which way through the tables finds them, and when it ends.
//!
//! First the newest rows are walked through: a filter that matches one job in ten has its page there. What is left is
//! looked for along an index: of the filters that have one, along the one that matches the fewest jobs. Times narrow the
//! rows in which any of them looks. What an index gives is compared with the whole filter before it is shown, so that a way
//! may give too much, and never too little.

use super::fault::Fault;
use super::{JobFilter, PAGE_BYTES_MAX, Page};
use crate::model::{Job, State};
use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

/// Newest rows that are walked through first: 1 to 3 ms.
const WALK_ROWS: i64 = 1_024;
/// Row numbers of a block are equal above these bits, as the indexes on times have them.
pub(super) const BLOCK_BITS: u32 = 12;
/// Ways are compared by how many jobs they lead to, up to this number: about 5 ms.
const COMPARED_MAX: i64 = 50_000;
/// Rows compared with the filter in one step, at most.
const STEP_MAX: usize = 2_000;
/// A way that is sorted again in each step takes at least so many.
const SORTED_STEP: usize = 2_000;
/// Kinds of jobs that are looked through for those that match.
pub(super) const KINDS_MAX: i64 = 5_000;
/// Kinds that are walked side by side; with more of them another way is taken.
const KINDS_WALKED_MAX: usize = 256;
/// Whole jobs read in one step: each may be more than a mebibyte.
const WHOLE_STEP: usize = 25;
/// A page with something in it ends when it has taken so long.
const LONG: Duration = Duration::from_millis(250);
/// An empty one, when it has taken so long: the next one continues there.
const TOO_LONG: Duration = Duration::from_secs(5);

/// What a job is besides its times, labels and state. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) mission: String,
    pub(super) queue: String,
    pub(super) tool: String,
    pub(super) submitted_by: Option<String>,
}

/// A column of times with an index by blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Created,
    Finished,
}

/// Moments from the first to before the second.
pub(super) type Span = (i64, i64);

const ALWAYS: Span = (i64::MIN, i64::MAX);

/// Row numbers along one index, downwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Label(String, String),
    /// A state that few jobs are in.
    Listed(State),
    Kind(Kind),
    /// Accepted jobs; sorted in each step.
    Accepted,
    /// Queued and running jobs; sorted in each step.
    Published,
    /// Jobs with such a time.
    Times(Column, Span),
    /// All rows.
    All,
}

impl Way {
    pub(super) const fn is_sorted(&self) -> bool {
        matches!(self, Self::Accepted | Self::Published)
    }

    /// Where the jobs in a state are.
    const fn to(state: State) -> Self {
        match state {
            State::Accepted => Self::Accepted,
            State::Queued => Self::Published,
            State::Succeeded => Self::Times(Column::Finished, ALWAYS),
            other => Self::Listed(other),
        }
    }
}

/// What the walk through the newest rows gave.
pub(super) struct Walked {
    pub(super) items: Vec<Job>,
    pub(super) bytes: usize,
    /// The last row that it read; `None` when it read them all.
    pub(super) end: Option<i64>,
}

/// The reads that a page is made of.
pub(super) trait Reads: Sync {
    /// The newest `rows` rows before `before` that match.
    fn walk(&self, f: &JobFilter, before: i64, rows: i64) -> impl Future<Output = Result<Walked, Fault>> + Send;
    /// Row numbers along `way` before `before`, the highest first.
    fn seqs(&self, way: &Way, before: i64, limit: i64) -> impl Future<Output = Result<Vec<i64>, Fault>> + Send;
    /// How many there are of them, up to `limit`; not of times.
    fn count(&self, way: &Way, before: i64, limit: i64) -> impl Future<Output = Result<i64, Fault>> + Send;
    /// All kinds of jobs, at most [`KINDS_MAX`] and one.
    fn kinds(&self) -> impl Future<Output = Result<Vec<Kind>, Fault>> + Send;
    /// The highest block up to `from` that has such a time.
    fn highest(&self, column: Column, span: Span, from: i64)
    -> impl Future<Output = Result<Option<i64>, Fault>> + Send;
    /// The lowest block that has such a time.
    fn lowest(&self, column: Column, span: Span) -> impl Future<Output = Result<Option<i64>, Fault>> + Send;
    /// Those of these rows that match, in any order.
    fn matching(&self, f: &JobFilter, seqs: &[i64]) -> impl Future<Output = Result<Vec<i64>, Fault>> + Send;
    /// The jobs of these rows, in any order.
    fn whole(&self, seqs: &[i64]) -> impl Future<Output = Result<Vec<Job>, Fault>> + Send;
}

/// A page of jobs, newest first.
pub(super) async fn page<R: Reads>(reads: &R, f: &JobFilter) -> Result<Page<Job>, Fault> {
    let begun = Instant::now();
    let told;
    let f = if f.error.is_some() {
        told = told_of(f);
        if told.states.is_empty() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        &told
    } else {
        f
    };
    let limit = f.limit as usize;
    let Walked { mut items, mut bytes, end } = reads.walk(f, f.before.unwrap_or(i64::MAX), WALK_ROWS).await?;
    if items.len() >= limit || bytes > PAGE_BYTES_MAX {
        return Ok(Page { next: items.last().map(|job| job.seq), items });
    }
    let ended = |items| Ok(Page { items, next: None });
    let Some(end) = end else { return ended(items) };
    let Some(rows) = narrowed(reads, f, end).await? else { return ended(items) };
    let Some(mut walk) = fewest(reads, f, rows).await? else { return ended(items) };
    let mut step = 0;
    loop {
        let left = limit - items.len();
        step = (left * 2).max(step * 2).clamp(64, STEP_MAX);
        let candidates = walk.next(reads, step).await?;
        let Some(place) = candidates.last().copied() else { return ended(items) };
        let mut found = reads.matching(f, &candidates).await?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(left);
        for some in found.chunks(WHOLE_STEP) {
            let mut jobs = reads.whole(some).await?;
            jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.seq));
            for job in jobs {
                bytes += size(&job);
                items.push(job);
                if bytes > PAGE_BYTES_MAX || items.len() >= limit {
                    return Ok(Page { next: items.last().map(|job| job.seq), items });
                }
            }
        }
        if walk.is_over() {
            return ended(items);
        }
        if begun.elapsed() > if items.is_empty() { TOO_LONG } else { LONG } {
            return Ok(Page { items, next: Some(place) });
        }
    }
}

/// A filter by error, with the states that have one: few jobs are in them, and an index lists those.
fn told_of(f: &JobFilter) -> JobFilter {
    let asked = |state: &State| f.states.is_empty() || f.states.contains(state);
    JobFilter { states: State::ALL.into_iter().filter(|s| s.may_be_retried() && asked(s)).collect(), ..f.clone() }
}

/// Jobs by state, of counts in which all published ones are queued and all that ended succeeded.
pub(super) fn by_state(rows: &[(i64, i64)]) -> [(State, u64); State::ALL.len()] {
    let of = |state: State| rows.iter().filter(|(n, _)| *n == state as i64).map(|(_, count)| *count).sum::<i64>();
    State::ALL.map(|state| {
        let listed = match state {
            State::Queued => of(State::Running),
            State::Succeeded => State::ALL.into_iter().filter(|s| s.may_be_retried()).map(of).sum(),
            _ => 0,
        };
        (state, (of(state) - listed).unsigned_abs())
    })
}

/// What a job counts towards [`PAGE_BYTES_MAX`].
pub(super) fn size(job: &Job) -> usize {
    job.args.len() + job.result.as_ref().map_or(0, String::len)
}

/// Rows from the first to before the second.
type Rows = (i64, i64);

/// The rows before `end` that the times of the filter leave; `None` when that is none.
async fn narrowed<R: Reads>(reads: &R, f: &JobFilter, end: i64) -> Result<Option<Rows>, Fault> {
    let (mut first, mut before) = (i64::MIN, end);
    for (column, span) in [(Column::Created, created(f)), (Column::Finished, finished(f))] {
        let Some(span) = span else { continue };
        let Some(top) = reads.highest(column, span, (before - 1) >> BLOCK_BITS).await? else { return Ok(None) };
        let bottom = reads.lowest(column, span).await?.unwrap_or(top);
        before = before.min((top + 1) << BLOCK_BITS);
        first = first.max(bottom << BLOCK_BITS);
    }
    Ok((first < before).then_some((first, before)))
}

fn span(from: Option<i64>, to: Option<i64>) -> Option<Span> {
    (from.is_some() || to.is_some()).then(|| (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)))
}

fn created(f: &JobFilter) -> Option<Span> {
    span(f.times.created_after.map(|m| m.0), f.times.created_before.map(|m| m.0))
}

fn finished(f: &JobFilter) -> Option<Span> {
    span(f.times.finished_after.map(|m| m.0), f.times.finished_before.map(|m| m.0))
}

/// The way that leads to the fewest jobs, as far as ways are compared; `None` when one leads to none.
async fn fewest<R: Reads>(reads: &R, f: &JobFilter, rows: Rows) -> Result<Option<Merged>, Fault> {
    let mut ways: Vec<Vec<Way>> = f.labels.iter().map(|(k, v)| vec![Way::Label(k.clone(), v.clone())]).collect();
    let states: Vec<Way> = f.states.iter().map(|state| Way::to(*state)).collect();
    if !states.is_empty() && states.iter().all(|way| matches!(way, Way::Listed(_))) {
        ways.push(states.clone());
    }
    if f.mission.is_some() || f.queue.is_some() || f.tool.is_some() || f.submitted_by.is_some() {
        let known = reads.kinds().await?;
        let all_known = known.len() <= KINDS_MAX as usize;
        let kinds: Vec<Way> = known.into_iter().filter(|kind| kind.fits(f)).map(Way::Kind).collect();
        if all_known && kinds.is_empty() {
            return Ok(None);
        }
        if all_known && kinds.len() <= KINDS_WALKED_MAX {
            ways.push(kinds);
        }
    }
    if ways.is_empty() {
        ways.push(match (finished(f), created(f)) {
            (Some(span), _) => vec![Way::Times(Column::Finished, span)],
            (None, _) if !states.is_empty() => states,
            (None, Some(span)) => vec![Way::Times(Column::Created, span)],
            (None, None) => vec![Way::All],
        });
    }
    let (mut best, mut fewest) = (0, COMPARED_MAX);
    let compared = if ways.len() > 1 { ways.len() } else { 0 };
    for (n, ways) in ways.iter().enumerate().take(compared) {
        let mut found = 0;
        for way in ways {
            if found < fewest {
                found += reads.count(way, rows.1, fewest - found).await?;
            }
        }
        if found < fewest {
            (best, fewest) = (n, found);
        }
    }
    Ok(Some(Merged::new(ways.swap_remove(best), rows)))
}

impl Kind {
    fn fits(&self, f: &JobFilter) -> bool {
        fn is<T: AsRef<str>>(asked: Option<T>, has: &str) -> bool {
            asked.is_none_or(|asked| asked.as_ref() == has)
        }
        is(f.mission.as_ref().map(|m| m.as_str()), &self.mission)
            && is(f.queue.as_ref().map(|q| q.as_str()), &self.queue)
            && is(f.tool.as_ref().map(|t| t.as_str()), &self.tool)
            && (f.submitted_by.is_none() || f.submitted_by == self.submitted_by)
    }
}

/// Several ways as one, the highest row number first.
struct Merged {
    lines: Vec<Line>,
    first: i64,
}

struct Line {
    way: Way,
    read: VecDeque<i64>,
    before: i64,
    ended: bool,
}

impl Merged {
    fn new(ways: Vec<Way>, (first, before): Rows) -> Self {
        let line = |way| Line { way, read: VecDeque::new(), before, ended: false };
        Self { lines: ways.into_iter().map(line).collect(), first }
    }

    /// Reads on, until each line has something or has ended.
    async fn fill<R: Reads>(&mut self, reads: &R, step: usize) -> Result<(), Fault> {
        let share = (step / self.lines.len().max(1)).max(16);
        for line in self.lines.iter_mut().filter(|line| line.read.is_empty() && !line.ended) {
            let asked = if line.way.is_sorted() { share.max(SORTED_STEP) } else { share };
            let mut seqs = reads.seqs(&line.way, line.before, asked as i64).await?;
            line.before = seqs.last().copied().unwrap_or(i64::MIN);
            line.ended = seqs.len() < asked;
            let whole = seqs.len();
            seqs.retain(|seq| *seq >= self.first);
            line.ended |= seqs.len() < whole;
            line.read = seqs.into();
        }
        Ok(())
    }

    /// Whether nothing is left.
    fn is_over(&self) -> bool {
        self.lines.iter().all(|line| line.ended && line.read.is_empty())
    }

    /// The next rows, at most `n`; none at the end.
    async fn next<R: Reads>(&mut self, reads: &R, n: usize) -> Result<Vec<i64>, Fault> {
        let mut next = Vec::with_capacity(n);
        while next.len() < n {
            self.fill(reads, n).await?;
            let Some(highest) = self.lines.iter().filter_map(|line| line.read.front()).max().copied() else { break };
            for line in self.lines.iter_mut().filter(|line| line.read.front() == Some(&highest)) {
                line.read.pop_front();
            }
            next.push(highest);
        }
        Ok(next)
    }
}
