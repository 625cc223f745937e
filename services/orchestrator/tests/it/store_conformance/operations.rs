//! Operations: who carries one out, how far it is, and their bounds.

use super::world::*;
use agentforge_message_id::OperationId;
use agentforge_orchestrator::operation::{Kind, OPEN_MAX, Operation, OperationProgress, Position, State};
use agentforge_orchestrator::store::{Order, Owner};
use agentforge_proto::time::Micros;

fn operation() -> Operation {
    Operation {
        id: OperationId::generate(),
        kind: Kind::Retry,
        state: State::Waiting,
        cancel_asked: false,
        created_at: Micros(5),
        started_by: Some("ops".into()),
        progress: OperationProgress::default(),
    }
}

pub async fn an_operation_is_carried_out_by_one_and_continued_by_another(w: &World) {
    let made = operation();
    assert!(w.create_operation(&made, r#"{"of":"it"}"#).await);
    let (us, them) = (Owner("us".into()), Owner("them".into()));
    let other = w.other().await;
    let (a, b) = tokio::join!(
        w.store.claim_operations(&us, Micros(10), Micros(20), 4),
        other.claim_operations(&them, Micros(10), Micros(20), 4),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.len() + b.len(), 1, "taken by one of two");
    let (first, second) = if a.is_empty() { (&them, &us) } else { (&us, &them) };
    let claimed = a.into_iter().chain(b).next().unwrap();
    assert_eq!((claimed.operation.id, claimed.spec.as_str()), (made.id, r#"{"of":"it"}"#));
    assert_eq!(claimed.operation.state, State::Running);

    // Its progress is stored, and the claim renewed with it.
    let mut running = claimed.operation;
    running.progress = OperationProgress {
        total: Some(9),
        put_back: 3,
        position: Position { before: Some(77), taken: 3 },
        ..OperationProgress::default()
    };
    assert_eq!(w.store.save_operation(&running, first, Micros(40)).await.unwrap(), Some(false));
    assert!(w.store.claim_operations(second, Micros(30), Micros(50), 4).await.unwrap().is_empty());
    // It died: the claim ends, and another continues where it was.
    let taken = w.store.claim_operations(second, Micros(41), Micros(60), 4).await.unwrap().remove(0);
    assert_eq!(taken.operation.progress, running.progress);
    assert_eq!(w.store.save_operation(&running, first, Micros(70)).await.unwrap(), None, "it is another's now");
    // A cancel is noticed with the next share, and ends it.
    w.order(Order::CancelOperation(made.id)).await;
    assert_eq!(w.store.save_operation(&taken.operation, second, Micros(70)).await.unwrap(), Some(true));
    let ended = Operation { state: State::Cancelled, ..taken.operation };
    assert_eq!(w.store.save_operation(&ended, second, Micros(70)).await.unwrap(), Some(true));
    assert_eq!(w.store.save_operation(&ended, second, Micros(70)).await.unwrap(), None, "it has ended");
    assert!(w.store.claim_operations(first, Micros(1_000), Micros(1_100), 4).await.unwrap().is_empty());
    let read = w.store.operation(made.id).await.unwrap().unwrap();
    assert_eq!((read.state, read.cancel_asked, read.progress.put_back), (State::Cancelled, true, 3));
    assert!(w.store.operation(OperationId::generate()).await.unwrap().is_none());
}

pub async fn an_operation_that_waits_is_cancelled_at_once(w: &World) {
    let made = operation();
    assert!(w.create_operation(&made, "{}").await);
    w.order(Order::CancelOperation(made.id)).await;
    let read = w.store.operation(made.id).await.unwrap().unwrap();
    assert_eq!((read.state, read.cancel_asked, read.progress.ended_at.is_some()), (State::Cancelled, true, true));
    let us = Owner("us".into());
    assert!(w.store.claim_operations(&us, Micros(10), Micros(20), 4).await.unwrap().is_empty(), "it does not run");
}

pub async fn operations_of_a_process_that_ended_are_taken_up_at_the_start(w: &World) {
    let made = operation();
    w.create_operation(&made, "{}").await;
    let (before, now) = (Owner("before".into()), Owner("now".into()));
    assert_eq!(w.store.claim_operations(&before, Micros(10), Micros(1_000), 4).await.unwrap().len(), 1);
    w.store.release_orphans(&now).await.unwrap();
    let found = w.store.claim_operations(&now, Micros(11), Micros(1_001), 4).await.unwrap().len();
    // On a shared database the other process may well live: its claim has to end.
    assert_eq!(found, usize::from(!w.store.is_shared()));
    // A clock that was set back by an hour keeps no claim for an hour.
    let hour = 3_600_000_000;
    let late = w.store.claim_operations(&now, Micros(2 * hour), Micros(2 * hour + 30), 4).await.unwrap();
    assert_eq!(late.len(), 1);
    w.store.set_back(Micros(hour), std::time::Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(w.store.claim_operations(&now, Micros(hour + 31), Micros(hour + 60), 4).await.unwrap().len(), 1);
}

pub async fn operations_are_bounded_and_listed_newest_first(w: &World) {
    let mut made = Vec::new();
    for _ in 0..OPEN_MAX {
        let one = operation();
        assert!(w.create_operation(&one, "{}").await);
        made.push(one.id);
    }
    assert!(!w.create_operation(&operation(), "{}").await, "no more than {OPEN_MAX} are open");
    made.reverse();
    let ids = |page: Vec<Operation>| page.into_iter().map(|o| o.id).collect::<Vec<_>>();
    assert_eq!(ids(w.store.operations(None, 60).await.unwrap()), made[..60]);
    assert_eq!(ids(w.store.operations(Some(made[59]), 60).await.unwrap()), made[60..]);
    // One that ended makes room.
    let claimed = w.store.claim_operations(&w.owner, Micros(10), Micros(20), 1).await.unwrap().remove(0).operation;
    assert_eq!(claimed.id, made[OPEN_MAX as usize - 1], "the oldest first");
    let ended = Operation { state: State::Succeeded, ..claimed };
    w.store.save_operation(&ended, &w.owner, Micros(20)).await.unwrap();
    assert!(w.create_operation(&operation(), "{}").await);
}
