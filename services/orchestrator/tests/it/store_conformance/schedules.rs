//! Schedules and their turns; agents.

use super::world::*;
use agentforge_message_id::{AgentId, Mission, ScheduleId};
use agentforge_orchestrator::model::{Agent, Schedule};
use agentforge_orchestrator::store::Firing;
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
    }
}

pub async fn a_turn_is_taken_once(w: &World) {
    let other = w.other().await;
    let s = schedule("every-five", 100);
    assert!(w.store.create_schedule(&s).await.unwrap());
    for turn in 0..20 {
        let (expected, next) = (Micros(100 + turn), Some(Micros(101 + turn)));
        let firing = || Firing { id: s.id, expected, next, job: Some(job(100)) };
        let (a, b) = tokio::join!(
            w.store.fire_schedule(firing(), w.ctx(200 + turn)),
            other.fire_schedule(firing(), w.ctx(200 + turn)),
        );
        assert!(a.unwrap() ^ b.unwrap(), "turn {turn} is taken by exactly one");
    }
    assert_eq!(w.rows("jobs").await, 20);
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.next_run_at, stored.last_run_at), (Some(Micros(120)), Some(Micros(219))));
    // What it made waits for the next claims, its events too.
    let made = w.claim(300, 100).await;
    assert_eq!(made.len(), 20);
    assert!(made.contains(&stored.last_job_id.unwrap()));
    assert_eq!(w.store.claim_outbox(&w.owner, Micros(300), Micros(301), 100).await.unwrap().len(), 20);
}

pub async fn a_skipped_turn_moves_on_without_a_job(w: &World) {
    let s = schedule("s", 100);
    w.store.create_schedule(&s).await.unwrap();
    let firing = Firing { id: s.id, expected: Micros(100), next: Some(Micros(400)), job: None };
    assert!(w.store.fire_schedule(firing, w.ctx(350)).await.unwrap());
    let stored = w.store.schedule(s.id).await.unwrap().unwrap();
    assert_eq!((stored.next_run_at, stored.last_run_at, stored.last_job_id), (Some(Micros(400)), None, None));
    assert_eq!(w.rows("jobs").await, 0);
}

pub async fn names_are_unique_and_pages_sorted(w: &World) {
    for name in ["b", "a", "C"] {
        assert!(w.store.create_schedule(&schedule(name, 100)).await.unwrap());
    }
    assert!(!w.store.create_schedule(&schedule("a", 5)).await.unwrap());
    let names = |page: Vec<Schedule>| page.into_iter().map(|s| s.name).collect::<Vec<_>>();
    assert_eq!(names(w.store.schedules(None, 2).await.unwrap()), ["C", "a"]);
    assert_eq!(names(w.store.schedules(Some("a"), 2).await.unwrap()), ["b"]);

    let s = w.store.schedules(None, 1).await.unwrap().remove(0);
    assert!(w.store.delete_schedule(s.id).await.unwrap());
    assert!(!w.store.delete_schedule(s.id).await.unwrap());
    assert!(w.store.schedule(s.id).await.unwrap().is_none());
}

pub async fn a_paused_schedule_is_never_due(w: &World) {
    let (a, b) = (schedule("a", 100), schedule("b", 50));
    for s in [&a, &b] {
        w.store.create_schedule(s).await.unwrap();
    }
    let due = |now| async move {
        w.store.due_schedules(Micros(now), 9).await.unwrap().into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    assert_eq!(due(99).await, [b.id]);
    assert_eq!(due(100).await, [b.id, a.id]);
    assert!(w.store.set_schedule_paused(b.id, true, None).await.unwrap());
    assert_eq!(due(1_000).await, [a.id]);
    let firing = Firing { id: b.id, expected: Micros(50), next: None, job: Some(job(1)) };
    assert!(!w.store.fire_schedule(firing, w.ctx(1_000)).await.unwrap());
    assert!(w.store.set_schedule_paused(b.id, false, Some(Micros(70))).await.unwrap());
    assert_eq!(due(1_000).await, [b.id, a.id]);
    assert!(!w.store.set_schedule_paused(ScheduleId::generate(), true, None).await.unwrap());
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
        (a.tools, a.certificate_expires_at, a.interval, a.clock_skew_us),
        (vec!["echo".to_owned()], Some(Micros(999)), Duration::from_secs(10), Some(-7))
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
