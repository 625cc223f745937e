use super::*;
use crate::model::RetryPolicy;
use agentforge_message_id::{AgentId, JobId, Mission, Queue, ToolName};
use agentforge_proto::bus::{Failure, Started, Success};
use serde_json::value::RawValue;

fn job(state: State, attempt: u32) -> Current {
    Current {
        seq: 1,
        id: JobId::generate(),
        mission: Mission::new("dev").unwrap(),
        queue: Queue::default(),
        tool: ToolName::new("echo").unwrap(),
        labels: None,
        state,
        attempt: Attempt::new(attempt).unwrap(),
        attempt_limit: 3,
        max_attempts: 3,
        deadline: Some(Micros(1_000_000)),
        created_at: Micros(0),
        available_at: Micros(0),
        queued_at: None,
        started_at: None,
        finished_at: None,
        worker: None,
        error: None,
        stream_seq: None,
        republished: 0,
        version: 1,
        lifetime: Some(Duration::from_secs(1)),
        retry: RetryPolicy::default(),
        cancelled_by: None,
        submitted_by: None,
        key_released: false,
    }
}

fn finished(j: &Current, attempt: u32, outcome: Outcome) -> Change {
    Change::Finished(Box::new(Finished {
        job: j.id,
        attempt: Attempt::new(attempt).unwrap(),
        delivery: 1,
        worker: AgentId::new("w").unwrap(),
        started_at: Micros(5),
        finished_at: Micros(6),
        outcome,
        traceparent: None,
        request_id: None,
    }))
}

fn success() -> Outcome {
    Outcome::Succeeded(Success {
        output: Some(RawValue::from_string("1".into()).unwrap()),
        output_ref: None,
        idempotent_replay: None,
    })
}

fn failure(class: ErrorClass) -> Outcome {
    Outcome::Failed(Failure::new(class, "no"))
}

fn run(j: &mut Current, c: &Change) -> Result<Effects, Ignored> {
    apply(j, c, &Backoff::default(), Micros(100), 0.0)
}

#[test]
fn times_of_a_job_are_in_order_whatever_the_clock_of_its_worker_says() {
    for (says, queued, kept) in
        [(500, None, 100), (500, Some(50), 100), (5, Some(50), 50), (-900, None, 0), (60, Some(50), 60)]
    {
        let mut j = job(State::Queued, 1);
        j.queued_at = queued.map(Micros);
        let Change::Finished(mut f) = finished(&j, 1, success()) else { unreachable!() };
        (f.started_at, f.finished_at) = (Micros(says), Micros(says + 1));
        let e = run(&mut j, &Change::Finished(f)).unwrap();
        assert_eq!(j.started_at, Some(Micros(kept)), "the worker says {says}");
        assert!(j.queued_at <= j.started_at && j.started_at <= j.finished_at, "{j:?}");
        assert_eq!(e.attempt.unwrap().started_at, Some(Micros(says)), "the attempt keeps the worker's word");
    }
}

#[test]
fn a_result_counts_once_whatever_state_it_finds() {
    for state in [State::Accepted, State::Queued, State::Running] {
        let mut j = job(state, 1);
        let c = finished(&j, 1, success());
        let e = run(&mut j, &c).unwrap();
        assert_eq!((j.state, e.result.is_some(), e.attempt.is_some()), (State::Succeeded, true, true));
        assert_eq!(run(&mut j, &c).unwrap_err(), Ignored::Final);
    }
}

#[test]
fn nothing_but_a_retry_or_a_redrive_leaves_a_final_state() {
    for state in State::ALL.into_iter().filter(|s| s.is_final()) {
        let j = job(state, 1);
        let changes = [
            Change::Queued { attempt: Attempt::FIRST, stream_seq: 1, at: Micros(1) },
            finished(&j, 1, success()),
            finished(&j, 1, failure(ErrorClass::Transient)),
            Change::Cancel { at: Micros(1), by: None, only: [].into() },
            Change::Expire { at: Micros(2_000_000) },
            Change::Republish { attempt: Attempt::FIRST, at: Micros(1) },
        ];
        for c in changes {
            let mut copy = j.clone();
            let why = run(&mut copy, &c).unwrap_err();
            assert!(matches!(why, Ignored::Final | Ignored::Stopped), "{state:?} {c:?} {why:?}");
            assert_eq!(copy.version, j.version);
        }
        let retried = run(&mut j.clone(), &Change::Retry { at: Micros(1), lifetime: None }).is_ok();
        assert_eq!(retried, state != State::Succeeded);
        let redriven = run(&mut j.clone(), &Change::Redrive { at: Micros(1) }).is_ok();
        assert_eq!(redriven, matches!(state, State::Dead | State::Failed));
    }
}

#[test]
fn an_earlier_attempts_result_is_fenced_off() {
    let mut j = job(State::Running, 1);
    let late = finished(&j, 1, success());
    let failed = finished(&j, 1, failure(ErrorClass::Network));
    run(&mut j, &failed).unwrap();
    assert_eq!((j.state, j.attempt.get()), (State::Accepted, 2));
    assert_eq!(run(&mut j, &late).unwrap_err(), Ignored::OtherAttempt);
}

#[test]
fn retryable_errors_use_up_attempts_and_then_die() {
    let mut j = job(State::Running, 1);
    for n in 1..=2 {
        let c = finished(&j, n, failure(ErrorClass::Timeout));
        let e = run(&mut j, &c).unwrap();
        assert!(e.dead.is_none() && e.release_claim && e.attempt.unwrap().retry_at.unwrap() > Micros(100));
    }
    let c = finished(&j, 3, failure(ErrorClass::Timeout));
    let e = run(&mut j, &c).unwrap();
    assert_eq!((j.state, e.dead), (State::Dead, Some(DeadReason::AttemptsExhausted)));
}

#[test]
fn classes_decide_the_end() {
    let table = [
        (ErrorClass::Validation, State::Failed, DeadReason::NotRetryable),
        (ErrorClass::ToolNotFound, State::Failed, DeadReason::NotRetryable),
        (ErrorClass::Permission, State::Failed, DeadReason::NotRetryable),
        (ErrorClass::Runtime, State::Failed, DeadReason::NotRetryable),
        (ErrorClass::Unknown, State::Failed, DeadReason::NotRetryable),
        (ErrorClass::WorkerLost, State::Dead, DeadReason::WorkerLost),
    ];
    for (class, state, reason) in table {
        let mut j = job(State::Running, 1);
        let c = finished(&j, 1, failure(class));
        let e = run(&mut j, &c).unwrap();
        assert_eq!((j.state, e.dead), (state, Some(reason)), "{class:?}");
    }
}

#[test]
fn backoff_doubles_to_its_cap_and_honours_the_tools_wish() {
    let b = Backoff::default();
    let ms = |n: u32, j: f64| b.after(Attempt::new(n).unwrap(), None, j).as_millis();
    assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(3, 1.0), ms(9, 1.0), ms(100, 1.0)], [200, 400, 800, 30_000, 30_000]);
    assert_eq!(ms(1, 0.0), 100);
    let wish = Some(Duration::from_secs(30));
    assert_eq!(b.after(Attempt::FIRST, wish, 0.5), Duration::from_secs(30));
    let absurd = Some(Duration::from_secs(10_000_000));
    assert_eq!(b.after(Attempt::FIRST, absurd, 0.5), b.retry_after_cap);
}

/// As shipped: twelve attempts, regardless of the spread of the waits.
#[test]
fn the_last_attempt_comes_after_more_than_a_minute() {
    let all =
        |jitter| (1..12).map(|n| Backoff::default().after(Attempt::new(n).unwrap(), None, jitter)).sum::<Duration>();
    assert!(all(0.0) > Duration::from_secs(66), "{:?}", all(0.0));
    assert!(all(1.0) < Duration::from_secs(180), "{:?}", all(1.0));
}

#[test]
fn a_jobs_own_waits_count_before_the_orchestrators() {
    let second = Duration::from_secs(1);
    let with = |base, cap| Backoff::default().with(RetryPolicy { base, cap });
    let of = |b: Backoff| (b.base, b.cap);
    assert_eq!(of(with(None, None)), (Duration::from_millis(200), second * 30));
    assert_eq!(of(with(Some(second * 40), None)), (second * 40, second * 40), "a long first wait is meant");
    assert_eq!(of(with(None, Some(Duration::from_millis(50)))), (Duration::from_millis(50), Duration::from_millis(50)));
    assert_eq!(of(with(Some(second), Some(second * 2))), (second, second * 2));
}

#[test]
fn a_wrong_word_of_a_worker_waits_longer_the_longer_the_job_is_about() {
    for (now, least, most) in
        [(1, 500_000, 1_000_000), (20_000_000, 5_000_000, 10_000_000), (i64::MAX / 4, 30_000_000, 60_000_000)]
    {
        let mut j = Current { deadline: None, ..job(State::Running, 2) };
        let c = finished(&j, 2, Outcome::Expired);
        let e = apply(&mut j, &c, &Backoff::default(), Micros(now), 0.5).unwrap();
        assert!(e.disputed && e.release_claim && e.dead.is_none());
        assert_eq!((j.state, j.attempt.get(), j.attempt_limit), (State::Accepted, 3, 4));
        assert!((least..=most).contains(&(j.available_at.0 - now)), "{now}: {}", j.available_at.0 - now);
    }
}

#[test]
fn a_report_that_overtakes_the_puback_is_not_undone_by_it() {
    let mut j = job(State::Accepted, 1);
    let started = Change::Started(Started {
        job: j.id,
        attempt: Attempt::FIRST,
        delivery: 1,
        worker: AgentId::new("w").unwrap(),
        at: Micros(7),
    });
    run(&mut j, &started).unwrap();
    run(&mut j, &Change::Queued { attempt: Attempt::FIRST, stream_seq: 9, at: Micros(8) }).unwrap();
    assert_eq!((j.state, j.stream_seq), (State::Running, Some(9)));
}

#[test]
fn a_deadline_ends_any_open_state_but_only_when_it_passed() {
    for state in [State::Accepted, State::Queued, State::Running] {
        let mut j = job(state, 1);
        assert_eq!(run(&mut j, &Change::Expire { at: Micros(999_999) }).unwrap_err(), Ignored::Passed);
        run(&mut j, &Change::Expire { at: Micros(1_000_000) }).unwrap();
        assert_eq!(j.state, State::Expired);
    }
}

#[test]
fn a_redrive_grants_fresh_attempts_and_a_fresh_deadline() {
    let mut j = job(State::Dead, 3);
    j.finished_at = Some(Micros(50));
    let e = run(&mut j, &Change::Redrive { at: Micros(5_000_000) }).unwrap();
    assert!(e.redriven && e.release_claim);
    assert_eq!((j.state, j.attempt.get(), j.attempt_limit), (State::Accepted, 4, 6));
    assert_eq!((j.deadline, j.finished_at), (Some(Micros(6_000_000)), None));
}

#[test]
fn a_missing_tool_is_waited_for_while_another_worker_has_it_and_for_the_grace() {
    let grace = Duration::from_secs(30);
    let missing = |j: &Current, tools: &[&str]| {
        let failure = Failure::new(ErrorClass::ToolNotFound, "no such tool");
        let Change::Finished(finished) = finished(j, j.attempt.get(), Outcome::Failed(failure)) else { unreachable!() };
        let announced = Box::new(tools.iter().map(|t| (*t).to_owned()).collect());
        Change::ToolMissing { finished, announced, grace }
    };
    let long_after = Micros(3_600_000_000);
    for (now, tools, goes_on) in [
        (Micros(1_000_000), &[][..], true),
        (long_after, &[][..], false),
        (long_after, &["another"][..], false),
        (long_after, &["echo", "another"][..], true),
    ] {
        let mut j =
            Current { deadline: None, lifetime: None, tool: ToolName::new("echo").unwrap(), ..job(State::Running, 1) };
        let (limit, change) = (j.attempt_limit, missing(&j, tools));
        let e = apply(&mut j, &change, &Backoff::default(), now, 0.5).unwrap();
        if goes_on {
            assert_eq!((j.state, j.attempt.get(), j.attempt_limit), (State::Accepted, 2, limit + 1), "none is used up");
            assert!(j.available_at > now && e.dead.is_none() && !e.disputed);
        } else {
            assert_eq!((j.state, e.dead), (State::Failed, Some(DeadReason::NotRetryable)));
        }
    }
    // A report of an attempt that is over changes nothing.
    let mut j = job(State::Running, 3);
    let old = Current { attempt: Attempt::new(2).unwrap(), ..j.clone() };
    let change = missing(&old, &["echo"]);
    assert_eq!(apply(&mut j, &change, &Backoff::default(), Micros(1), 0.5).unwrap_err(), Ignored::OtherAttempt);
}
