//! Queues that are paused, and how fast queues move.

use super::world::*;
use agentforge_message_id::Queue;
use agentforge_orchestrator::model::NewJob;
use agentforge_orchestrator::store::{Order, QueueEnded, QueuePause};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;

fn queue(name: &str) -> Queue {
    Queue::new(name).unwrap()
}

pub async fn a_pause_is_one_row_that_every_store_sees(w: &World) {
    let pause = |name: &str, at: i64, by: &str| {
        let (mission, queue) = (w.mission.clone(), queue(name));
        QueuePause { mission, queue, since: Micros(at), by: by.into() }
    };
    assert!(w.store.queue_pauses().await.unwrap().is_empty());
    assert_eq!(w.order(Order::PauseQueue(pause("b", 5, "ops"))).await, 1);
    assert_eq!(w.order(Order::PauseQueue(pause("b", 9, "other"))).await, 0, "it stays as it was");
    assert_eq!(w.order(Order::PauseQueue(pause("a", 7, "ops"))).await, 1);
    let both = [pause("a", 7, "ops"), pause("b", 5, "ops")];
    assert_eq!(w.other().await.queue_pauses().await.unwrap(), both);
    let resume = |name: &str| Order::ResumeQueue { mission: w.mission.clone(), queue: queue(name) };
    assert_eq!(w.order(resume("b")).await, 1);
    assert_eq!(w.order(resume("b")).await, 0);
    assert_eq!(w.store.queue_pauses().await.unwrap(), both[..1]);
}

pub async fn jobs_that_ended_are_counted_by_queue(w: &World) {
    let ends = [("a", 10), ("a", 20), ("b", 30), ("a", 40)];
    for (name, at) in ends {
        let spec = JobSpec { queue: queue(name), ..JobSpec::clone(&job(1).spec) }.into();
        let id = w.submit(1, NewJob { spec, ..job(1) }).await.job.id;
        let how = if at == 20 { failure(ErrorClass::ToolNotFound) } else { success("1") };
        w.change(at, id, finished(id, 1, how)).await.unwrap();
    }
    let id = w.submit(1, job(1)).await.job.id;
    w.change(50, id, cancel(50)).await.unwrap();
    let ended = |name: &str, jobs, since| {
        let (mission, queue) = (w.mission.clone(), queue(name));
        QueueEnded { mission, queue, jobs, since: Micros(since) }
    };
    let of = async |since, limit| w.store.ended_by_queue(Micros(since), limit).await.unwrap();
    assert_eq!(of(0, 100).await, [ended("a", 3, 0), ended("b", 1, 0)]);
    assert_eq!(of(20, 100).await, [ended("a", 2, 20), ended("b", 1, 20)]);
    // The newest, the cancelled one among those that were looked at.
    assert_eq!(of(0, 3).await, [ended("a", 1, 30), ended("b", 1, 30)]);
    assert!(of(51, 100).await.is_empty());
}
