//! Jobs that are put back, and keys that are used again.

use super::world::*;
use agentforge_message_id::JobId;
use agentforge_orchestrator::model::{KeyReuse, NewJob, RetryPolicy, State};
use agentforge_orchestrator::store::{Clash, Group, JobFilter, Submit, Submitted, Times};
use agentforge_orchestrator::transition::{Change, Ignored};
use agentforge_proto::bus::{ErrorClass, Outcome};
use agentforge_proto::time::Micros;
use std::time::Duration;

fn retry(at: i64) -> Change {
    Change::Retry { at: Micros(at), lifetime: None }
}

fn ending_without_success() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|s| s.may_be_retried())
}

fn with_key(now: i64, key: &str, reuse: KeyReuse) -> NewJob {
    NewJob { key_reuse: reuse, ..named(now, Some(key), 1) }
}

/// Brings a keyed job to an end without success.
async fn end(w: &World, id: JobId, state: State) {
    let change = match state {
        State::Failed => finished(id, 1, failure(ErrorClass::Validation)),
        State::Dead => finished(id, 1, failure(ErrorClass::WorkerLost)),
        State::Cancelled => Change::Cancel { at: Micros(20), by: None, only: [].into() },
        _ => Change::Expire { at: Micros(20 + 2 * DEADLINE) },
    };
    assert_eq!(w.change(20, id, change).await.unwrap().job.state, state);
}

pub async fn every_end_without_success_can_be_retried(w: &World) {
    for state in ending_without_success() {
        let id = w.job_in(10, state).await;
        let before = w.store.attempts(id).await.unwrap().len();
        let at = 5 * DEADLINE;
        let done = w.change(at, id, retry(at)).await.unwrap();
        assert_eq!((done.from, done.job.state), (state, State::Accepted));
        let job = w.job(id).await;
        assert_eq!((job.deadline, job.finished_at, job.error), (Some(Micros(at + DEADLINE)), None, None), "{state:?}");
        assert_eq!(w.claim(at, 10).await, [id]);
        assert_eq!(w.change(at, id, retry(at)).await.unwrap_err(), Ignored::Passed);
        // What is late of the attempt before is fenced off; the next one counts.
        assert_eq!(w.change(at, id, finished(id, 1, success("0"))).await.unwrap_err(), Ignored::OtherAttempt);
        w.change(at, id, finished(id, 2, success("2"))).await.unwrap();
        assert_eq!((w.job(id).await.result.as_deref(), w.job(id).await.state), (Some("2"), State::Succeeded));
        assert_eq!(w.store.attempts(id).await.unwrap().len(), before + 1);
        assert_eq!(w.change(at, id, retry(at)).await.unwrap_err(), Ignored::Passed, "a success stays");
    }
}

pub async fn a_retry_grants_the_same_time_again_however_often(w: &World) {
    let new = NewJob {
        spec: JobSpec { run_at: Some(Micros(1_000)), ..JobSpec::clone(&job(10).spec) }.into(),
        deadline: Some(Micros(1_000 + 77)),
        ..job(10)
    };
    let id = w.submit(10, new).await.job.id;
    for at in [100_000, 900_000, 5_000_000] {
        w.change(at, id, Change::Expire { at: Micros(at) }).await.unwrap();
        assert_eq!(w.change(at, id, retry(at)).await.unwrap().job.deadline, Some(Micros(at + 77)));
    }
    let longer = Change::Retry { at: Micros(6_000_000), lifetime: Some(Duration::from_micros(5)) };
    w.change(6_000_000, id, Change::Cancel { at: Micros(6_000_000), by: None, only: [].into() }).await.unwrap();
    assert_eq!(w.change(6_000_000, id, longer).await.unwrap().job.deadline, Some(Micros(6_000_005)));
}

pub async fn a_retried_job_may_die_again_and_leaves_a_letter_each_time(w: &World) {
    let id = w.job_in(10, State::Dead).await;
    for n in 2..4 {
        w.change(100, id, retry(100)).await.unwrap();
        w.change(110, id, finished(id, n, failure(ErrorClass::Runtime))).await.unwrap();
    }
    assert_eq!(w.rows("dead_letters").await, 3);
    let open = agentforge_orchestrator::store::DeadLetterFilter { limit: 10, ..Default::default() };
    assert_eq!(w.store.dead_letters(&open).await.unwrap().items.len(), 1);
}

pub async fn waits_between_attempts_are_the_jobs_own(w: &World) {
    let second = Duration::from_secs(1);
    let policy = RetryPolicy { base: Some(second * 40), cap: Some(second * 100) };
    let id = w
        .submit(
            10,
            NewJob {
                spec: JobSpec { retry: policy, max_attempts: 9, ..JobSpec::clone(&job(10).spec) }.into(),
                ..job(10)
            },
        )
        .await
        .job
        .id;
    for n in 1..=4_u32 {
        let change = finished(id, n, failure(ErrorClass::Network));
        let due = w.change(10, id, change).await.unwrap().job.available_at.0 - 10;
        let whole = [40, 80, 100, 100][n as usize - 1] * 1_000_000;
        assert!((whole / 2..=whole).contains(&due), "attempt {n} waits {due} µs of {whole}");
    }
    assert_eq!(w.job(id).await.retry, policy);
}

pub async fn a_worker_whose_clock_is_ahead_ends_no_job(w: &World) {
    let id = w.job_in(10, State::Queued).await;
    let limit = w.change(20, id, started(id, 1, 20)).await.unwrap().job.attempt_limit;
    let done = w.change(30, id, finished(id, 1, Outcome::Expired)).await.unwrap();
    assert!(done.disputed);
    assert_eq!((done.job.state, done.job.attempt.get(), done.job.attempt_limit), (State::Accepted, 2, limit + 1));
    assert!(done.job.available_at.0 >= 30 + 500_000, "it does not spin");
    // It goes out again without the deadline that some worker misreads, and keeps it here.
    let later = done.job.available_at.0;
    let due = w.store.claim_due(&w.owner, Micros(later), Micros(later + CLAIM), 10).await.unwrap();
    assert_eq!((due.len(), due[0].deadline, due[0].attempt.get()), (1, None, 2));
    assert!(w.store.past_deadline(Micros(10 + DEADLINE), Micros(10 + DEADLINE), 10).await.unwrap().contains(&id));
    let tries = w.store.attempts(id).await.unwrap();
    assert_eq!((tries[0].outcome.as_str(), tries[0].retry_at), ("expired", Some(Micros(later))));
    w.change(later, id, finished(id, 2, success("1"))).await.unwrap();
    assert_eq!(w.job(id).await.error, None);
    // Where our clock agrees, give or take two seconds, the word counts.
    let id = w.job_in(10, State::Running).await;
    let near = 10 + DEADLINE - 1_000_000;
    assert_eq!(w.change(near, id, finished(id, 1, Outcome::Expired)).await.unwrap().job.state, State::Expired);
}

pub async fn a_stale_cancel_at_a_worker_ends_no_job(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let done = w.change(30, id, finished(id, 1, Outcome::Cancelled)).await.unwrap();
    assert_eq!((done.job.state, done.job.attempt.get(), done.disputed), (State::Accepted, 2, true));
    w.change(40, id, Change::Cancel { at: Micros(40), by: None, only: [].into() }).await.unwrap();
    assert_eq!(w.change(50, id, finished(id, 2, Outcome::Cancelled)).await.unwrap_err(), Ignored::Stopped);
}

pub async fn a_key_is_used_again_where_the_caller_says_so(w: &World) {
    for state in ending_without_success() {
        let key = state.as_str();
        let first = w.submit(10, with_key(10, key, KeyReuse::Never)).await.job.id;
        let open = w.try_submit(15, with_key(15, key, KeyReuse::AfterFailure)).await;
        assert!(matches!(open, Submitted::Existing(j) if j.id == first), "an open job keeps its key");
        end(w, first, state).await;
        let never = w.try_submit(30, with_key(30, key, KeyReuse::Never)).await;
        assert!(matches!(never, Submitted::Existing(j) if j.id == first));
        let stop = w.try_submit(31, with_key(31, key, KeyReuse::AfterStop)).await;
        let stopped = matches!(state, State::Cancelled | State::Expired);
        assert_eq!(matches!(stop, Submitted::Created(_)), stopped, "{state:?}");
        let second = match stop {
            Submitted::Created(c) => c.job.id,
            _ => w.submit(32, with_key(32, key, KeyReuse::AfterFailure)).await.job.id,
        };
        let again = w.try_submit(33, with_key(33, key, KeyReuse::AfterFailure)).await;
        assert!(matches!(again, Submitted::Existing(j) if j.id == second), "the new one is open");
        // The first one shows its key, and cannot be put back alongside the second.
        assert_eq!(w.job(first).await.idempotency_key.as_deref(), Some(key));
        assert_eq!(w.change(40, first, retry(40)).await.unwrap_err(), Ignored::KeyTaken);
    }
}

pub async fn a_key_is_used_again_by_one_of_many(w: &World) {
    let other = w.other().await;
    let first = w.submit(10, with_key(10, "k", KeyReuse::Never)).await.job.id;
    end(w, first, State::Cancelled).await;
    let groups = (0..200).map(|n: i64| {
        let job = NewJob {
            spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&with_key(30, "k", KeyReuse::AfterFailure).spec) }
                .into(),
            ..with_key(30, "k", KeyReuse::AfterFailure)
        };
        let store = if n % 2 == 0 { &w.store } else { &other };
        store.commit(Group { submits: vec![Submit { job, claim: false }], ..Group::default() }, w.ctx(30))
    });
    let (mut created, mut ids) = (0, std::collections::HashSet::new());
    for done in futures_util::future::join_all(groups).await {
        match &done.unwrap().submits[0] {
            Submitted::Created(c) => (created, _) = (created + 1, ids.insert(c.job.id)),
            Submitted::Existing(j) => _ = ids.insert(j.id),
            Submitted::Conflict { .. } => panic!("a conflict with itself"),
        }
    }
    assert_eq!((created, ids.len(), w.rows("jobs").await), (1, 1, 2));
}

pub async fn a_retry_and_a_new_use_of_the_key_exclude_each_other(w: &World) {
    let other = w.other().await;
    for round in 0..20 {
        let key = format!("k{round}");
        let first = w.submit(10, with_key(10, &key, KeyReuse::Never)).await.job.id;
        end(w, first, State::Cancelled).await;
        let submit = Submit { job: with_key(30, &key, KeyReuse::AfterFailure), claim: false };
        let (put_back, submitted) = tokio::join!(
            w.store.commit(Group { changes: vec![(first, retry(30))], ..Group::default() }, w.ctx(30)),
            other.commit(Group { submits: vec![submit], ..Group::default() }, w.ctx(30)),
        );
        let put_back = put_back.unwrap().changes.remove(0).is_ok();
        let created = matches!(submitted.unwrap().submits.remove(0), Submitted::Created(_));
        assert!(put_back != created, "round {round}: put back {put_back}, submitted anew {created}");
    }
}

pub async fn id_and_key_are_both_honoured_or_both_refused(w: &World) {
    let (x, y) = (JobId::generate(), JobId::generate());
    let with = |id: JobId, key: Option<&str>| NewJob {
        spec: JobSpec { id, ..JobSpec::clone(&named(10, key, 1).spec) }.into(),
        id_from_caller: true,
        ..named(10, key, 1)
    };
    w.submit(10, with(x, Some("A"))).await;
    let clash = async |job| match w.try_submit(20, job).await {
        Submitted::Conflict { existing, clash } => (existing, clash),
        other => panic!("no conflict: {other:?}"),
    };
    assert_eq!(clash(with(x, Some("C"))).await, (x, Clash::IdWithOtherKey));
    assert_eq!(clash(with(y, Some("A"))).await, (x, Clash::KeyWithOtherId));
    assert!(w.store.job(y).await.unwrap().is_none());
    for again in [with(x, Some("A")), with(x, None)] {
        assert!(matches!(w.try_submit(20, again).await, Submitted::Existing(j) if j.id == x));
    }
    // All of it at once, in one group and from two processes: the first one decides.
    let other = w.other().await;
    for round in 0..10 {
        let (a, b) = (JobId::generate(), JobId::generate());
        let key = format!("round-{round}");
        let group = |job| Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        let (one, two) = tokio::join!(
            w.store.commit(group(with(a, Some(&key))), w.ctx(30)),
            other.commit(group(with(b, Some(&key))), w.ctx(30)),
        );
        let stored = |s: &Submitted| matches!(s, Submitted::Created(_));
        let refused = |s: &Submitted| matches!(s, Submitted::Conflict { clash: Clash::KeyWithOtherId, .. });
        let (one, two) = (one.unwrap().submits.remove(0), two.unwrap().submits.remove(0));
        assert!(stored(&one) && refused(&two) || refused(&one) && stored(&two), "{one:?} {two:?}");
    }
}

pub async fn a_row_of_the_version_before_is_known_again(w: &World) {
    let now_given = |given: u8| NewJob { given_hash: Some([given; 32]), ..named(20, Some("old"), 1) };
    let id = w.submit(10, named(10, Some("old"), 1)).await.job.id;
    // What it came to is all that is known of it.
    assert!(matches!(w.try_submit(20, now_given(7)).await, Submitted::Existing(j) if j.id == id));
    let other = NewJob { body_hash: Some([2; 32]), ..now_given(7) };
    assert!(matches!(w.try_submit(20, other).await, Submitted::Conflict { .. }));
    // For a row of this version, the given value decides, regardless of its current meaning.
    let new = NewJob { given_hash: Some([7; 32]), ..named(30, Some("new"), 1) };
    let id = w.submit(30, new.clone()).await.job.id;
    let defaults_changed = NewJob {
        spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&new.clone().spec) }.into(),
        body_hash: Some([2; 32]),
        ..new.clone()
    };
    assert!(matches!(w.try_submit(40, defaults_changed).await, Submitted::Existing(j) if j.id == id));
    let other = NewJob {
        spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&new.spec) }.into(),
        given_hash: Some([8; 32]),
        ..new
    };
    assert!(matches!(w.try_submit(40, other).await, Submitted::Conflict { .. }));
}

pub async fn jobs_are_listed_by_when_they_came_and_ended(w: &World) {
    let mut ids = Vec::new();
    for at in [100, 200, 300] {
        let id = w.submit(at, job(at)).await.job.id;
        w.change(at + 1_000, id, Change::Cancel { at: Micros(at + 1_000), by: None, only: [].into() }).await.unwrap();
        ids.push(id);
    }
    let open = w.submit(400, job(400)).await.job.id;
    let list = async |times| {
        let found = w.store.jobs(&JobFilter { times, limit: 10, ..JobFilter::default() }).await.unwrap();
        found.items.into_iter().map(|j| j.id).rev().collect::<Vec<_>>()
    };
    let at = |n| Some(Micros(n));
    assert_eq!(list(Times { created_after: at(200), ..Times::default() }).await, [ids[1], ids[2], open]);
    assert_eq!(list(Times { created_before: at(200), ..Times::default() }).await, [ids[0]]);
    assert_eq!(list(Times { finished_after: at(1_200), ..Times::default() }).await, ids[1..]);
    let window = Times { finished_after: at(1_100), finished_before: at(1_300), ..Times::default() };
    assert_eq!(list(window).await, ids[..2]);
}

/// An hour, as when a wrong clock is corrected.
pub async fn a_clock_that_goes_back_holds_nothing_up(w: &World) {
    let hour = 3_600_000_000;
    let before = 2 * hour;
    let waiting = w.submit(before, job(before)).await.job.id;
    let retrying = w.submit(before, job(before)).await.job.id;
    w.change(before, retrying, finished(retrying, 1, failure(ErrorClass::Network))).await.unwrap();
    let claimed = Submit { job: job(before), claim: true };
    let claimed = w.commit(before, Group { submits: vec![claimed], ..Group::default() }).await;
    let claimed = created(claimed.submits.into_iter().next().unwrap()).job.id;
    let later = w
        .submit(
            before,
            NewJob {
                spec: JobSpec { run_at: Some(Micros(before + hour)), ..JobSpec::clone(&job(before).spec) }.into(),
                ..job(before)
            },
        )
        .await
        .job
        .id;
    let run_at = w.job(later).await.available_at;
    // The outbox is claimed too, in a name that is gone.
    let far = Micros(before + CLAIM);
    assert!(!w.store.claim_outbox(&w.owner, far, Micros(far.0 + CLAIM), 100).await.unwrap().is_empty());
    assert_eq!(w.store.newest_accepted().await.unwrap(), Some(Micros(before)));

    let now = before - hour;
    assert!(w.claim(now + CLAIM, 10).await.is_empty(), "all of it waits for an hour");
    assert_eq!(w.store.set_back(Micros(now), Duration::from_secs(3_600)).await.unwrap(), 3);
    let mut due = w.claim(now + CLAIM, 10).await;
    due.sort_unstable();
    let mut wanted = vec![waiting, retrying, claimed];
    wanted.sort_unstable();
    assert_eq!(due, wanted);
    assert_eq!(w.job(later).await.available_at, run_at, "a time that a caller named stays");
    assert_eq!(w.job(waiting).await.deadline, Some(Micros(now + DEADLINE)));
    assert!(
        w.store.past_deadline(Micros(now + DEADLINE), Micros(now + DEADLINE), 10).await.unwrap().contains(&waiting)
    );
    let after = Micros(now + 2 * CLAIM);
    assert!(!w.store.claim_outbox(&w.owner, after, Micros(after.0 + CLAIM), 100).await.unwrap().is_empty());
}
