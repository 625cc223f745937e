//! Schedules and their turns; agents.

use super::world::*;
use agentforge_message_id::{AgentId, Mission, ScheduleId};
use agentforge_orchestrator::model::{Agent, NewJob, Schedule};
use agentforge_orchestrator::store::{Act, Fired, Firing, Order, Slot};
use agentforge_orchestrator::transition::Change;
use agentforge_orchestrator::turns::{self, CatchUp, Overlap, Skip, SkipReason};
use agentforge_proto::time::Micros;
use std::time::Duration;

fn schedule(name: &str, next: i64) -> Schedule {
    Schedule {
        id: ScheduleId::generate(),
        name: name.into(),
        cron: "*/5 * * * *".into(),
        time_zone: "Europe/Berlin".into(),
        template: "{}".into(),
        paused: false,
        created_at: Micros(1),
        last_run_at: None,
        last_job_id: None,
        next_run_at: Some(Micros(next)),
        overlap: Overlap::Queue,
        catch_up: CatchUp::All,
        deadline: Some(Duration::from_secs(90)),
        updated_at: None,
        last_scheduled_at: None,
        waiting_turn: None,
        paused_turn: None,
        turns_skipped: 0,
        last_skipped: None,
        rewinds: 0,
        created_by: Some("ops".into()),
        updated_by: None,
    }
}

fn due(s: &Schedule, expected: i64, next: i64, act: Act) -> Firing {
    let slot = Slot::Due { expected: Micros(expected), next: Some(Micros(next)) };
    Firing { id: s.id, slot, act, skipped: vec![], entry: None }
}

fn start(turn: i64, alone: bool) -> Act {
    let job = NewJob {
        spec: JobSpec { scheduled_at: Some(Micros(turn)), ..JobSpec::clone(&job(turn).spec) }.into(),
        ..job(turn)
    };
    Act::Start { turn: Micros(turn), job, alone }
}

pub async fn a_turn_is_taken_once(w: &World) {
    let other = w.other().await;
    let s = schedule("every-five", 100);
    assert!(w.create_schedule(&s).await);
    for turn in 100..120 {
        let firing = || due(&s, turn, turn + 1, start(turn, false));
        let (a, b) = tokio::join!(
            w.store.fire_schedule(firing(), w.ctx(turn + 100)),
            other.fire_schedule(firing(), w.ctx(turn + 100)),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!((a == Fired::Lost) ^ (b == Fired::Lost), "turn {turn} is taken by exactly one: {a:?} {b:?}");
    }
    assert_eq!(w.rows("jobs").await, 20);
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.next_run_at, stored.last_run_at), (Some(Micros(120)), Some(Micros(219))));
    assert_eq!(stored.last_scheduled_at, Some(Micros(119)));
    assert_eq!((stored.overlap, stored.catch_up, stored.deadline), (s.overlap, s.catch_up, s.deadline));
    // What it made waits for the next claims, its events too.
    let made = w.store.claim_due(&w.owner, Micros(300), Micros(301), 100).await.unwrap();
    let turns: Vec<_> = made.iter().map(|job| job.scheduled_at).collect();
    assert_eq!(turns, (100..120).map(|turn| Some(Micros(turn))).collect::<Vec<_>>(), "each knows its time");
    assert_eq!(made.last().map(|job| job.id), stored.last_job_id);
    let events = messages(w.store.claim_outbox(&w.owner, Micros(300), Micros(301), 100).await.unwrap());
    assert_eq!(events.iter().filter(|event| event.subject.contains(".job.")).count(), 20);
}

pub async fn a_skipped_turn_moves_on_without_a_job(w: &World) {
    let s = schedule("s", 100);
    w.create_schedule(&s).await;
    let older = Skip { turn: Micros(90), count: 3, reason: SkipReason::Missed, detail: "m".into() };
    let last = Skip::one(Micros(100), SkipReason::Refused, "r");
    let firing = Firing { skipped: vec![last, older], ..due(&s, 100, 400, Act::Pass) };
    assert_eq!(w.store.fire_schedule(firing, w.ctx(350)).await.unwrap(), Fired::Done(None));
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.next_run_at, stored.last_run_at, stored.last_job_id), (Some(Micros(400)), None, None));
    let skipped = stored.last_skipped.unwrap();
    assert_eq!((stored.turns_skipped, skipped.at, skipped.reason.as_str()), (4, Micros(100), "refused"));
    assert_eq!(w.rows("jobs").await, 0);
}

pub async fn a_turn_waits_for_the_end_of_the_one_before(w: &World) {
    let s = schedule("s", 100);
    w.create_schedule(&s).await;
    let fire = |firing, now| w.store.fire_schedule(firing, w.ctx(now));
    let Fired::Done(Some(first)) = fire(due(&s, 100, 200, start(100, true)), 100).await.unwrap() else { panic!() };
    // Nothing happens together with a job that is not over.
    assert_eq!(fire(due(&s, 200, 300, start(200, true)), 200).await.unwrap(), Fired::Busy(first));
    assert_eq!(w.store.schedule(s.id).await.unwrap().unwrap().next_run_at, Some(Micros(200)));
    assert_eq!(fire(due(&s, 200, 300, Act::Wait(Micros(200))), 200).await.unwrap(), Fired::Done(None));
    // One waits; another cannot.
    assert_eq!(fire(due(&s, 300, 400, Act::Wait(Micros(300))), 300).await.unwrap(), Fired::Lost);
    assert!(w.store.waiting_schedules(9).await.unwrap().is_empty(), "the first is not over");
    let waits = |alone| Firing {
        id: s.id,
        slot: Slot::Waiting(Micros(200)),
        act: start(200, alone),
        skipped: vec![],
        entry: None,
    };
    assert_eq!(fire(waits(true), 250).await.unwrap(), Fired::Busy(first));

    w.change(260, first, Change::Cancel { at: Micros(260), by: None, only: [].into() }).await.unwrap();
    let waiting = w.store.waiting_schedules(9).await.unwrap();
    assert_eq!(waiting.iter().map(|s| s.waiting_turn).collect::<Vec<_>>(), [Some(Micros(200))]);
    let other = w.other().await;
    let (a, b) = tokio::join!(fire(waits(true), 270), other.fire_schedule(waits(true), w.ctx(270)));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!((a == Fired::Lost) ^ (b == Fired::Lost), "taken by one: {a:?} {b:?}");
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.waiting_turn, stored.last_scheduled_at), (None, Some(Micros(200))));
    assert_eq!((stored.next_run_at, w.rows("jobs").await), (Some(Micros(300)), 2));
    // A requested run leaves the clock's turns alone.
    let now = Firing { id: s.id, slot: Slot::Now, act: start(280, false), skipped: vec![], entry: None };
    assert!(matches!(fire(now, 280).await.unwrap(), Fired::Done(Some(_))));
    assert_eq!(w.store.schedule(s.id).await.unwrap().unwrap().next_run_at, Some(Micros(300)));
}

pub async fn a_schedule_is_changed_as_it_was_read(w: &World) {
    let (s, taken) = (schedule("s", 100), schedule("taken", 100));
    for s in [&s, &taken] {
        w.create_schedule(s).await;
    }
    let changed = Schedule {
        name: "t".into(),
        overlap: Overlap::Skip,
        catch_up: CatchUp::None,
        deadline: None,
        next_run_at: Some(Micros(700)),
        updated_at: Some(Micros(5)),
        ..s.clone()
    };
    assert!(w.update_schedule(&changed, None, false).await);
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.name.as_str(), stored.overlap, stored.deadline), ("t", Overlap::Skip, None));
    assert_eq!((stored.next_run_at, stored.updated_at), (Some(Micros(100)), Some(Micros(5))), "its turn stays");
    // Who read the row before that is refused; so is a name that another has.
    assert!(!w.update_schedule(&changed, None, false).await);
    let newer = Schedule { updated_at: Some(Micros(6)), ..changed.clone() };
    let named = Schedule { name: "taken".into(), ..newer.clone() };
    assert!(!w.update_schedule(&named, Some(Micros(5)), false).await);
    assert!(w.update_schedule(&newer, Some(Micros(5)), true).await);
    assert_eq!(w.store.schedule(s.id).await.unwrap().unwrap().next_run_at, Some(Micros(700)));
    // A pause keeps the turn that it made the schedule miss.
    assert!(w.set_schedule_paused(s.id, true, None).await);
    let paused = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((paused.next_run_at, paused.paused_turn), (None, Some(Micros(700))));
    assert!(w.set_schedule_paused(s.id, true, None).await);
    assert_eq!(w.store.schedule(s.id).await.unwrap().unwrap().paused_turn, Some(Micros(700)), "however often");
    assert!(w.set_schedule_paused(s.id, false, Some(Micros(900))).await);
    let resumed = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((resumed.next_run_at, resumed.paused_turn), (Some(Micros(900)), None));
}

pub async fn a_schedule_goes_on_where_a_clock_that_was_set_back_is(w: &World) {
    let (s, paused) = (schedule("s", 900), schedule("paused", 900));
    for s in [&s, &paused] {
        w.create_schedule(s).await;
    }
    w.set_schedule_paused(paused.id, true, None).await;
    let other = w.other().await;
    let rewind = |planned| w.store.rewind_schedule(s.id, Micros(planned), Some(Micros(100)));
    assert!(!rewind(800).await.unwrap(), "a turn was taken since it was read");
    let (a, b) = tokio::join!(rewind(900), other.rewind_schedule(s.id, Micros(900), Some(Micros(100))));
    assert!(a.unwrap() ^ b.unwrap(), "by one of two");
    assert!(!w.store.rewind_schedule(paused.id, Micros(900), Some(Micros(100))).await.unwrap());
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.next_run_at, stored.rewinds), (Some(Micros(100)), 1));
    // The turn was taken the first time; now it occurs again, and has a job of its own.
    let of = |key: String| NewJob {
        spec: JobSpec { scheduled_at: Some(Micros(100)), idempotency_key: Some(key), ..JobSpec::clone(&job(100).spec) }
            .into(),
        ..job(100)
    };
    w.submit(50, of(turns::key(s.id, Micros(100), 0, false))).await;
    let act = Act::Start { turn: Micros(100), job: of(turns::key(s.id, Micros(100), 1, false)), alone: false };
    let fired = w.store.fire_schedule(due(&s, 100, 200, act), w.ctx(100)).await.unwrap();
    assert!(matches!(fired, Fired::Done(Some(_))), "{fired:?}");
    assert_eq!(w.rows("jobs").await, 2);
    // A database of its own machine says what its clock shows.
    assert_eq!(w.store.clock().await.unwrap().is_some(), w.store.is_shared());
    if let Some(shown) = w.store.clock().await.unwrap() {
        let ours = Micros::now();
        assert!(ours.since(shown).max(shown.since(ours)) < Duration::from_secs(30), "{shown:?} {ours:?}");
    }
}

pub async fn names_are_unique_and_pages_sorted(w: &World) {
    for name in ["b", "a", "C"] {
        assert!(w.create_schedule(&schedule(name, 100)).await);
    }
    assert!(!w.create_schedule(&schedule("a", 5)).await);
    let names = |page: Vec<Schedule>| page.into_iter().map(|s| s.name).collect::<Vec<_>>();
    assert_eq!(names(w.store.schedules(None, 2).await.unwrap()), ["C", "a"]);
    assert_eq!(names(w.store.schedules(Some("a"), 2).await.unwrap()), ["b"]);

    let s = w.store.schedules(None, 1).await.unwrap().remove(0);
    assert_eq!(w.order(Order::DeleteSchedule(s.id)).await, 1);
    assert_eq!(w.order(Order::DeleteSchedule(s.id)).await, 0);
    assert!(w.store.schedule(s.id).await.unwrap().is_none());
}

pub async fn a_paused_schedule_is_never_due(w: &World) {
    let (a, b) = (schedule("a", 100), schedule("b", 50));
    for s in [&a, &b] {
        w.create_schedule(s).await;
    }
    let found = |now| async move {
        w.store.due_schedules(Micros(now), 9).await.unwrap().into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    assert_eq!(found(99).await, [b.id]);
    assert_eq!(found(100).await, [b.id, a.id]);
    assert!(w.set_schedule_paused(b.id, true, None).await);
    assert_eq!(found(1_000).await, [a.id]);
    let fired = w.store.fire_schedule(due(&b, 50, 60, start(50, false)), w.ctx(1_000)).await.unwrap();
    assert_eq!(fired, Fired::Lost);
    assert!(w.set_schedule_paused(b.id, false, Some(Micros(70))).await);
    assert_eq!(found(1_000).await, [b.id, a.id]);
    assert!(!w.set_schedule_paused(ScheduleId::generate(), true, None).await);
}

pub async fn agents_are_kept_as_last_heard(w: &World) {
    w.store
        .upsert_agents(&[agent("a", "dev", 10, 1), agent("b", "staging", 10, 0), agent("c", "dev", 10, 0)])
        .await
        .unwrap();
    w.store.upsert_agents(&[agent("a", "dev", 30, 3), agent("a", "dev", 20, 2)]).await.unwrap();
    w.store.upsert_agents(&[]).await.unwrap();
    let a = w.store.agent(&AgentId::new("a").unwrap()).await.unwrap().unwrap();
    assert_eq!((a.inflight, a.first_seen_at, a.last_seen_at), (3, Micros(10), Micros(30)));
    assert_eq!(
        (a.tools, a.certificate_expires_at, a.interval, a.clock_skew_us, a.unconfined.as_deref()),
        (vec!["echo".to_owned()], Some(Micros(999)), Duration::from_secs(10), Some(-7), Some("cgroup ipc"))
    );

    let dev = Mission::new("dev").unwrap();
    let ids = |page: Vec<Agent>| page.into_iter().map(|a| a.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(w.store.agents(None, None, 2).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(w.store.agents(Some(&dev), Some("a"), 9).await.unwrap()), ["c"]);
    assert_eq!(w.store.forget_agents(Micros(30)).await.unwrap(), 2);
    assert_eq!(ids(w.store.agents(None, None, 9).await.unwrap()), ["a"]);
    assert!(w.store.agent(&AgentId::new("b").unwrap()).await.unwrap().is_none());

    // The clock was set back by an hour: the beats after it count, or a worker that died would be there for an hour.
    let hour = 3_600_000_000;
    w.store.upsert_agents(&[agent("d", "dev", hour, 1)]).await.unwrap();
    w.store.upsert_agents(&[agent("d", "dev", 40, 2)]).await.unwrap();
    let d = w.store.agent(&AgentId::new("d").unwrap()).await.unwrap().unwrap();
    assert_eq!((d.inflight, d.last_seen_at), (2, Micros(40)));
}
