//! Listing among many jobs: what is found is what a reader of all jobs would find, and no page is empty before the end.

use super::world::*;
use agentforge_message_id::{Mission, Queue, ToolName};
use agentforge_orchestrator::model::{Job, NewJob, State};
use agentforge_orchestrator::store::{Group, JobFilter, Submit, Times};
use agentforge_orchestrator::transition::Change;
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use std::sync::Arc;

/// More than a page walks through before it takes another way.
const FILLERS: usize = 5_000;

/// Repeatable numbers: a failure names the turn.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
    fn maybe<T: Clone>(&mut self, one_in: usize, of: &[T]) -> Option<T> {
        (self.below(one_in) == 0).then(|| self.one(of))
    }
}

const QUEUES: [&str; 4] = ["default", "mail", "bulk", "filler"];
const TOOLS: [&str; 4] = ["echo", "sleep", "send", "filler"];
const PEOPLE: [&str; 3] = ["ci", "ops", "filler"];
const LABELS: [(&str, &str); 6] =
    [("team", "a"), ("team", "b"), ("customer", "c1"), ("customer", "c2"), ("we\"i.rd$", "ä'%"), ("empty", "")];

/// Words of errors: of some, of all, and what means something to a pattern.
const ERRORS: [&str; 6] = ["it was", "WORKER_lost", "validation: It", "100%", "worker%lost", "ä"];

fn random_job(dice: &mut Dice, now: i64) -> NewJob {
    let mut job = job(now);
    let spec = Arc::make_mut(&mut job.spec);
    spec.queue = Queue::new(dice.one(&QUEUES[..3])).unwrap();
    spec.tool = ToolName::new(dice.one(&TOOLS[..3])).unwrap();
    spec.mission = Mission::new(if dice.below(9) == 0 { "staging" } else { "dev" }).unwrap();
    spec.submitted_by = dice.maybe(2, &PEOPLE[..2]).map(str::to_owned);
    for _ in 0..dice.below(3) {
        let (key, value) = dice.one(&LABELS);
        spec.labels.insert(key.to_owned(), value.to_owned());
    }
    job
}

/// Submits jobs whose times are nearly in order, and brings each to a state.
async fn random_jobs(w: &World, dice: &mut Dice, n: usize, now: i64) {
    let new = |i| {
        let at = now + i as i64 * 10 + dice.below(4_000) as i64;
        Submit { job: random_job(dice, at), claim: false }
    };
    let submits = (0..n).map(new).collect();
    let done = w.commit(now, Group { submits, ..Group::default() }).await;
    let made: Vec<_> = done.submits.into_iter().map(|s| (created(s).job.id, dice.one(&State::ALL))).collect();
    let step = async |changes: Vec<_>| {
        w.commit(now + 5_000, Group { changes, ..Group::default() }).await;
    };
    let at = now + 5_000;
    step(made.iter().filter(|(_, s)| *s >= State::Queued).map(|(id, _)| (*id, queued(1, at))).collect()).await;
    step(made.iter().filter(|(_, s)| *s >= State::Running).map(|(id, _)| (*id, started(*id, 1, at))).collect()).await;
    let last = made.iter().filter_map(|(id, state)| {
        let change = match state {
            State::Accepted | State::Queued | State::Running => return None,
            State::Succeeded => finished(*id, 1, success("1")),
            State::Failed => finished(*id, 1, failure(ErrorClass::Validation)),
            State::Dead => finished(*id, 1, failure(ErrorClass::WorkerLost)),
            State::Cancelled => cancel(at),
            State::Expired => Change::Expire { at: Micros(at + 2 * DEADLINE) },
        };
        Some((*id, change))
    });
    step(last.collect()).await;
}

/// Many jobs that succeeded, made inside the database.
async fn fillers(w: &World, now: i64) {
    let id = if w.store.is_shared() { "decode(md5(random()::text || n), 'hex')" } else { "randomblob(16)" };
    let reuse = if w.store.is_shared() { "false" } else { "0" };
    w.sql(&format!(
        "INSERT INTO jobs (id, state, attempt, attempt_limit, max_attempts, version, republished, created_at, \
           available_at, finished_at, mission, queue, tool, submitted_by) \
         WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {FILLERS}) \
         SELECT {id}, 4, 1, 1, 1, 1, 0, {now} + n, {now} + n, {now} + n + 5, 'dev', 'filler', 'filler', 'filler' FROM c"
    ))
    .await;
    w.sql(&format!(
        "INSERT INTO job_payloads (seq, timeout_us, reuse, args) \
         SELECT seq, 1, {reuse}, '{{}}' FROM jobs WHERE queue = 'filler' AND seq NOT IN (SELECT seq FROM job_payloads)"
    ))
    .await;
}

/// All jobs, newest first, layer upon layer; the last moment of them.
async fn layers(w: &World, dice: &mut Dice) -> i64 {
    let mut now = 1_000_000;
    for _ in 0..2 {
        random_jobs(w, dice, 150, now).await;
        now += 10_000;
        fillers(w, now).await;
        // It continues behind the rows that it did not write.
        w.store.prepare().await.unwrap();
        now += 10_000;
    }
    now
}

async fn walked(w: &World, filter: &JobFilter, turn: usize) -> Vec<Job> {
    let (mut all, mut filter) = (Vec::new(), filter.clone());
    loop {
        let page = w.store.jobs(&filter).await.unwrap();
        assert!(page.items.len() <= filter.limit as usize, "turn {turn}: {filter:?}");
        assert!(!page.items.is_empty() || page.next.is_none(), "turn {turn}: an empty page goes on: {filter:?}");
        all.extend(page.items);
        filter.before = page.next;
        if page.next.is_none() {
            return all;
        }
    }
}

fn fits(job: &Job, f: &JobFilter) -> bool {
    let Times { created_after, created_before, finished_after, finished_before } = f.times;
    let ended = |is: &dyn Fn(Micros) -> bool| job.finished_at.is_some_and(is);
    f.mission.as_ref().is_none_or(|m| *m == job.mission)
        && f.queue.as_ref().is_none_or(|q| *q == job.queue)
        && f.tool.as_ref().is_none_or(|t| *t == job.tool)
        && (f.states.is_empty() || f.states.contains(&job.state))
        && (f.submitted_by.is_none() || f.submitted_by == job.submitted_by)
        && f.error.as_deref().is_none_or(|text| has_error(job, text))
        && f.labels.iter().all(|(k, v)| job.labels.get(k) == Some(v))
        && created_after.is_none_or(|m| job.created_at >= m)
        && created_before.is_none_or(|m| job.created_at < m)
        && finished_after.is_none_or(|m| ended(&|at| at >= m))
        && finished_before.is_none_or(|m| ended(&|at| at < m))
}

fn has_error(job: &Job, text: &str) -> bool {
    let written = job.error.as_ref().map(|e| format!("{}: {}", e.class.as_str(), e.message).to_ascii_lowercase());
    job.state.may_be_retried() && written.is_some_and(|written| written.contains(&text.to_ascii_lowercase()))
}

fn random_filter(dice: &mut Dice, last: i64) -> JobFilter {
    let moment =
        |dice: &mut Dice| (dice.below(8) == 0).then(|| Micros(1_000_000 + dice.below(last as usize - 990_000) as i64));
    let mut filter = JobFilter {
        mission: dice.maybe(8, &["dev", "staging", "none"]).map(|m| Mission::new(m).unwrap()),
        queue: dice.maybe(4, &QUEUES).map(|q| Queue::new(q).unwrap()),
        tool: dice.maybe(4, &TOOLS).map(|t| ToolName::new(t).unwrap()),
        submitted_by: dice.maybe(4, &PEOPLE).map(str::to_owned),
        times: Times {
            created_after: moment(dice),
            created_before: moment(dice),
            finished_after: moment(dice),
            finished_before: moment(dice),
        },
        limit: 1 + dice.below(120) as u32,
        ..JobFilter::default()
    };
    if dice.below(2) == 0 {
        filter.states = (0..=dice.below(3)).map(|_| dice.one(&State::ALL)).collect();
    }
    filter.error = dice.maybe(5, &ERRORS).map(str::to_owned);
    for _ in 0..dice.below(3) {
        let (key, value) = dice.one(&LABELS);
        filter.labels.push((key.to_owned(), value.to_owned()));
    }
    filter
}

pub async fn every_filter_finds_what_a_reader_of_all_would(w: &World) {
    let mut dice = Dice(7);
    let last = layers(w, &mut dice).await;
    let all = walked(w, &JobFilter { limit: 1_000, ..JobFilter::default() }, 0).await;
    assert_eq!(all.len(), 2 * (FILLERS + 150));
    for turn in 1..=120 {
        let filter = random_filter(&mut dice, last);
        let expected: Vec<_> = all.iter().filter(|job| fits(job, &filter)).map(|job| job.id).collect();
        // Of long lists the first pages are enough.
        if expected.len() > 400 {
            let page = w.store.jobs(&filter).await.unwrap();
            let got: Vec<_> = page.items.iter().map(|job| job.id).collect();
            assert!(!got.is_empty() && got == expected[..got.len()], "turn {turn}: {filter:?}");
            continue;
        }
        let got: Vec<_> = walked(w, &filter, turn).await.into_iter().map(|job| job.id).collect();
        assert_eq!(got, expected, "turn {turn}: {filter:?}");
    }
}

pub async fn states_are_counted(w: &World) {
    let mut dice = Dice(11);
    random_jobs(w, &mut dice, 200, 1_000_000).await;
    let retried = w.job_in(10, State::Dead).await;
    w.change(20, retried, Change::Redrive { at: Micros(20) }).await.unwrap();
    let all = walked(w, &JobFilter { limit: 1_000, ..JobFilter::default() }, 0).await;
    let expected = State::ALL.map(|state| (state, all.iter().filter(|job| job.state == state).count() as u64));
    assert_eq!(w.store.state_counts().await.unwrap(), expected);
    assert!(expected.iter().all(|(_, n)| *n > 0), "{expected:?}");
}

pub async fn labels_go_with_their_job(w: &World) {
    random_jobs(w, &mut Dice(3), 60, 1_000).await;
    let before = w.rows("job_labels").await;
    assert!(before > 20);
    // As the version before stores a job, and the next start finds it.
    let id = if w.store.is_shared() {
        "'\\x00112233445566778899aabbccddeeff'::bytea"
    } else {
        "x'00112233445566778899aabbccddeeff'"
    };
    w.sql(&format!(
        "INSERT INTO jobs (id, state, attempt, attempt_limit, max_attempts, version, republished, created_at, available_at, \
           claimable_at, mission, queue, tool, labels) \
         VALUES ({id}, 1, 1, 3, 3, 1, 0, 5, 5, 5, 'dev', 'default', 'echo', '{{\"a\":\"b\",\"c\":\"d\"}}')"
    ))
    .await;
    w.store.prepare().await.unwrap();
    assert_eq!(w.rows("job_labels").await, before + 2);
    w.store.prepare().await.unwrap();
    assert_eq!(w.rows("job_labels").await, before + 2);
    let open = w.sql_number("SELECT count(*) FROM jobs WHERE finished_at IS NULL").await;
    assert!(w.store.prune(Micros(i64::MAX), 1_000).await.unwrap() > 0);
    assert_eq!(w.rows("jobs").await, open);
    let lost = "SELECT count(*) FROM job_labels WHERE seq NOT IN (SELECT seq FROM jobs WHERE labels IS NOT NULL)";
    assert_eq!(w.sql_number(lost).await, 0);
}
