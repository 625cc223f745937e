//! Claims: nobody publishes what another publishes, and nothing is forgotten.

use super::world::*;
use agentforge_orchestrator::model::{NewJob, State};
use agentforge_orchestrator::store::{Group, Owner, PAGE_BYTES_MAX, Submit};
use agentforge_orchestrator::transition::Change;
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use std::collections::HashSet;
use std::sync::Arc;

pub async fn due_jobs_are_claimed_once_in_order(w: &World) {
    let later = w.submit(10, NewJob { run_at: Some(Micros(1_000)), ..job(10) }).await.job.id;
    let ids = w.submit_many(10, 70).await;
    assert_eq!(w.claim(20, 50).await, ids[..50]);
    assert_eq!(w.claim(20, 50).await, ids[50..]);
    assert!(w.claim(999, 50).await.is_empty());
    assert_eq!(w.claim(1_000, 50).await, [later]);
}

pub async fn a_claim_at_submission_keeps_others_away(w: &World) {
    let claimed = |now, run_at| Submit { job: NewJob { run_at, ..job(now) }, claim: true };
    let submits = vec![claimed(10, None), claimed(10, Some(Micros(9))), claimed(10, Some(Micros(500)))];
    let done = w.commit(10, Group { submits, ..Group::default() }).await.submits;
    let done: Vec<_> = done.into_iter().map(created).collect();
    assert_eq!(done.iter().map(|c| c.claimed).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(w.claim(600, 10).await, [done[2].job.id]);
}

pub async fn claims_that_run_out_come_back(w: &World) {
    let ids = w.submit_many(10, 3).await;
    assert_eq!(w.claim(10, 2).await, ids[..2]);
    w.change(11, ids[0], queued(1, 11)).await.unwrap();
    assert_eq!(w.claim(10 + CLAIM - 1, 10).await, ids[2..]);
    assert_eq!(w.claim(10 + CLAIM, 10).await, ids[1..2]);
}

pub async fn released_jobs_are_due_at_once(w: &World) {
    let ids = w.submit_many(10, 5).await;
    w.claim(10, 5).await;
    w.change(11, ids[1], queued(1, 11)).await.unwrap();
    w.store.release(&w.owner, &ids[..3]).await.unwrap();
    assert_eq!(w.claim(12, 5).await, [ids[0], ids[2]]);
    assert_eq!(w.job(ids[1]).await.state, State::Queued);
    w.store.release(&w.owner, &[]).await.unwrap();
}

pub async fn only_ones_own_claims_can_be_released(w: &World) {
    let ids = w.submit_many(10, 1).await;
    w.claim(10, 1).await;
    w.store.release(&Owner("somebody else".into()), &ids).await.unwrap();
    assert!(w.claim(11, 1).await.is_empty());
}

/// Where the file belongs to one process, a new one knows that all earlier claims are orphaned;
/// where it is shared, they run out.
pub async fn claims_of_processes_that_ended_come_back(w: &World) {
    let ids = w.submit_many(10, 3).await;
    w.claim(10, 2).await;
    let us = Owner("a new process".into());
    let until = Micros(20 + CLAIM);
    let ours = w.store.claim_due(&us, Micros(20), until, 1).await.unwrap();
    assert_eq!(ours[0].id, ids[2]);
    w.store.release_orphans(&us).await.unwrap();
    let again: Vec<_> = w.store.claim_due(&us, Micros(20), until, 9).await.unwrap().iter().map(|o| o.id).collect();
    let events = w.store.claim_outbox(&us, Micros(20), until, 9).await.unwrap().len();
    if w.store.is_shared() {
        assert_eq!((again.len(), events), (0, 0));
        assert_eq!(w.claim(10 + CLAIM, 9).await, ids[..2]);
    } else {
        assert_eq!((again, events), (ids[..2].to_vec(), 3));
    }
}

pub async fn concurrent_claimers_share_without_overlap(w: &World) {
    const JOBS: usize = 600;
    for _ in 0..3 {
        w.submit_many(10, JOBS / 3).await;
    }
    let stores = [Arc::clone(&w.store), w.other().await];
    let claimers = (0..6).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move {
            let (owner, mut mine) = (Owner(format!("claimer-{n}")), Vec::new());
            loop {
                let due = store.claim_due(&owner, Micros(10), Micros(10 + CLAIM), 17).await.unwrap();
                if due.is_empty() {
                    return mine;
                }
                mine.extend(due.into_iter().map(|o| o.id));
            }
        })
    });
    let mut all = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        all.extend(claimer.await.unwrap());
    }
    // One that found only locked rows may have ended early; nothing may be left or taken twice.
    all.extend(w.claim(10, u32::MAX).await);
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (JOBS, JOBS));
}

pub async fn a_claim_takes_no_more_than_it_can_carry(w: &World) {
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(PAGE_BYTES_MAX / 2));
    for _ in 0..4 {
        w.submit(10, NewJob { args: args.clone(), ..job(10) }).await;
    }
    let first = w.claim(10, 100).await.len();
    assert!((1..4).contains(&first), "{first}");
    assert_eq!(first + w.claim(10, 100).await.len(), 4);
}

pub async fn the_outbox_is_claimed_in_order_and_emptied_by_pubacks(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let done = w
        .commit(20, Group { changes: vec![(id, finished(id, 1, failure(ErrorClass::Runtime)))], ..Group::default() })
        .await;
    assert_eq!(done.outbox.len(), 2, "the event and the dead letter");
    // All are ours already, so nobody else gets them before the claim ends.
    assert!(w.store.claim_outbox(&Owner("o".into()), Micros(21), Micros(99), 10).await.unwrap().is_empty());
    let again = w.store.claim_outbox(&w.owner, Micros(20 + CLAIM), Micros(20 + 2 * CLAIM), 10).await.unwrap();
    assert_eq!(again.len(), 5);
    assert!(again.windows(2).all(|p| p[0].seq < p[1].seq));
    assert_eq!(
        again[3..].iter().map(|r| &r.payload).collect::<Vec<_>>(),
        done.outbox.iter().map(|r| &r.payload).collect::<Vec<_>>()
    );
    assert_eq!(again[3].seq, done.outbox[0].seq);

    let outbox_sent = again[..3].iter().map(|r| r.seq).collect();
    w.commit(30, Group { outbox_sent, ..Group::default() }).await;
    assert_eq!(w.outbox().await.iter().map(|r| r.seq).collect::<Vec<_>>(), [again[3].seq, again[4].seq]);
}

pub async fn concurrent_relays_send_each_message_once(w: &World) {
    w.submit_many(10, 300).await;
    let stores = [Arc::clone(&w.store), w.other().await];
    let relays = (0..4).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move {
            let (owner, mut mine, now) = (Owner(format!("relay-{n}")), Vec::new(), Micros(10 + CLAIM));
            loop {
                let rows = store.claim_outbox(&owner, now, Micros(now.0 + CLAIM), 13).await.unwrap();
                if rows.is_empty() {
                    return mine;
                }
                mine.extend(rows.into_iter().map(|r| r.msg_id));
            }
        })
    });
    let mut all = Vec::new();
    for relay in relays.collect::<Vec<_>>() {
        all.extend(relay.await.unwrap());
    }
    let rest = w.store.claim_outbox(&w.owner, Micros(10 + CLAIM), Micros(10 + 2 * CLAIM), 1_000).await.unwrap();
    all.extend(rest.into_iter().map(|r| r.msg_id));
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (300, 300));
}

pub async fn the_next_due_moment_counts_claims_and_the_future(w: &World) {
    assert_eq!(w.store.next_due().await.unwrap(), None);
    let ids = w.submit_many(10, 1).await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(10)));
    w.claim(10, 1).await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(10 + CLAIM)));
    w.submit(11, NewJob { run_at: Some(Micros(500)), ..job(11) }).await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(500)));
    w.change(12, ids[0], Change::Cancel { at: Micros(12) }).await.unwrap();
    assert_eq!(w.store.accepted_count().await.unwrap(), 1);
}
