//! Claims: no process publishes what another publishes, and nothing is forgotten.

use super::world::*;
use agentforge_message_id::{JobId, Queue};
use agentforge_orchestrator::model::{DeadReason, JobError, NewJob, State};
use agentforge_orchestrator::store::{
    Group, Order, OutboxMessage, OutboxPick, OutboxRow, Owner, PAGE_BYTES_MAX, PARKED_MAX, Park, Pick, Submit, Waiting,
};
use agentforge_orchestrator::transition::{Change, Ignored};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub async fn due_jobs_are_claimed_once_in_order(w: &World) {
    let later = w
        .submit(
            10,
            NewJob { spec: JobSpec { run_at: Some(Micros(1_000)), ..JobSpec::clone(&job(10).spec) }.into(), ..job(10) },
        )
        .await
        .job
        .id;
    let ids = w.submit_many(10, 70).await;
    assert_eq!(w.claim(20, 50).await, ids[..50]);
    assert_eq!(w.claim(20, 50).await, ids[50..]);
    assert!(w.claim(999, 50).await.is_empty());
    assert_eq!(w.claim(1_000, 50).await, [later]);
}

pub async fn a_claim_at_submission_keeps_others_away(w: &World) {
    let claimed = |now, run_at| Submit {
        job: NewJob { spec: JobSpec { run_at, ..JobSpec::clone(&job(now).spec) }.into(), ..job(now) },
        claim: true,
    };
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
        assert_eq!((again, events), (ids[..2].to_vec(), 1), "one row with the events of three jobs");
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
        w.submit(
            10,
            NewJob { spec: JobSpec { args: args.clone(), ..JobSpec::clone(&job(10).spec) }.into(), ..job(10) },
        )
        .await;
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
    // All are ours already, so no other process gets them before the claim ends.
    assert!(w.store.claim_outbox(&Owner("o".into()), Micros(21), Micros(99), 10).await.unwrap().is_empty());
    let again = w.store.claim_outbox(&w.owner, Micros(20 + CLAIM), Micros(20 + 2 * CLAIM), 10).await.unwrap();
    assert_eq!(again.len(), 5);
    assert!(again.windows(2).all(|p| p[0].seq < p[1].seq));
    assert_eq!(
        again[3..].iter().map(|r| &r.messages).collect::<Vec<_>>(),
        done.outbox.iter().map(|r| &r.messages).collect::<Vec<_>>()
    );
    assert_eq!(again[3].seq, done.outbox[0].seq);

    let outbox_sent = again[..3].iter().map(|r| r.seq).collect();
    w.commit(30, Group { outbox_sent, ..Group::default() }).await;
    assert_eq!(w.rows_of_outbox().await.iter().map(|r| r.seq).collect::<Vec<_>>(), [again[3].seq, again[4].seq]);
}

pub async fn concurrent_relays_send_each_message_once(w: &World) {
    for n in 0..300 {
        w.submit(n, job(n)).await;
    }
    let stores = [Arc::clone(&w.store), w.other().await];
    let relays = (0..4).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move {
            let (owner, mut mine, now) = (Owner(format!("relay-{n}")), Vec::new(), Micros(300 + CLAIM));
            loop {
                let rows = store.claim_outbox(&owner, now, Micros(now.0 + CLAIM), 13).await.unwrap();
                if rows.is_empty() {
                    return mine;
                }
                mine.extend(messages(rows).into_iter().map(|m| m.msg_id));
            }
        })
    });
    let mut all = Vec::new();
    for relay in relays.collect::<Vec<_>>() {
        all.extend(relay.await.unwrap());
    }
    let rest = w.store.claim_outbox(&w.owner, Micros(300 + CLAIM), Micros(300 + 2 * CLAIM), 1_000).await.unwrap();
    all.extend(messages(rest).into_iter().map(|m| m.msg_id));
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (300, 300));
}

pub async fn the_next_due_moment_counts_claims_and_the_future(w: &World) {
    assert_eq!(w.store.next_due().await.unwrap(), None);
    let ids = w.submit_many(10, 1).await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(10)));
    w.claim(10, 1).await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(10 + CLAIM)));
    w.submit(
        11,
        NewJob { spec: JobSpec { run_at: Some(Micros(500)), ..JobSpec::clone(&job(11).spec) }.into(), ..job(11) },
    )
    .await;
    assert_eq!(w.store.next_due().await.unwrap(), Some(Micros(500)));
    w.change(12, ids[0], cancel(12)).await.unwrap();
    assert_eq!(w.store.accepted_count().await.unwrap(), 1);
}

/// A message that no server takes makes room for those behind it, and waits for an operator. Its row stays for what else
/// it holds.
pub async fn parked_messages_are_kept_apart_and_come_back(w: &World) {
    for n in 0..2 {
        w.submit_many(10 + n, 3).await;
    }
    let rows = w.store.claim_outbox(&w.owner, Micros(11 + CLAIM), Micros(11 + 2 * CLAIM), 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.messages.len()).collect::<Vec<_>>(), [3, 3]);
    let (one, two) = (&rows[0].messages[0], &rows[0].messages[2]);
    let park = |seq, message: &OutboxMessage, reason: &str| Park {
        seq,
        message: message.clone(),
        code: "too_large",
        reason: reason.to_owned(),
    };
    let seq = rows[0].seq;
    let outbox_parked = vec![park(seq, one, "one"), park(seq, two, "t\0wo"), park(987_654, one, "not there")];
    w.commit(20, Group { outbox_parked: outbox_parked.clone(), ..Group::default() }).await;
    // A mark that is made twice is made once, also with the end of its row.
    w.commit(21, Group { outbox_parked: outbox_parked.clone(), outbox_sent: vec![seq], ..Group::default() }).await;
    w.commit(22, Group { outbox_parked, ..Group::default() }).await;
    assert_eq!(w.rows_of_outbox().await.iter().map(|r| r.seq).collect::<Vec<_>>(), [rows[1].seq]);

    let parked = w.store.parked(None, 10).await.unwrap();
    assert_eq!((parked.len(), w.store.parked_count().await.unwrap()), (2, 2));
    let (newer, older) = (&parked[0], &parked[1]);
    assert_eq!((&older.subject, &older.msg_id, &*older.reason), (&one.subject, &one.msg_id, "one"));
    assert_eq!((older.bytes, older.parked_at, older.created_at), (one.payload.len() as u64, Micros(20), Micros(10)));
    assert_eq!((&newer.msg_id, &*newer.code), (&two.msg_id, "too_large"));
    assert_eq!(w.store.parked(Some(newer.seq), 10).await.unwrap().len(), 1);

    assert_eq!(w.order(Order::Unpark(Some(vec![older.seq, 987_654]))).await, 1);
    let back = w.store.claim_outbox(&w.owner, Micros(30), Micros(30 + CLAIM), 10).await.unwrap();
    let last = back.iter().map(|row| row.seq).max().unwrap();
    // The order is an event too.
    let mut back = messages(back);
    back.retain(|m| !m.subject.starts_with("agentforge.events.audit."));
    assert_eq!(back.as_slice(), std::slice::from_ref(one));
    assert_eq!(w.order(Order::DiscardParked(None)).await, 1);
    assert_eq!(w.store.parked_count().await.unwrap(), 0);
    // Row numbers keep rising after a retry.
    w.submit_many(40, 1).await;
    assert!(w.rows_of_outbox().await.last().unwrap().seq > last);
}

/// They are neglected for a year: the newest are kept.
pub async fn parked_messages_are_bounded(w: &World) {
    let n = usize::try_from(PARKED_MAX).unwrap() + 20;
    w.submit_many(10, n).await;
    let mut parked = 0;
    loop {
        let now = Micros(10 + CLAIM);
        let rows = w.store.claim_outbox(&w.owner, now, Micros(now.0 + CLAIM), 300).await.unwrap();
        if rows.is_empty() {
            break;
        }
        let outbox_sent = rows.iter().map(|row| row.seq).collect();
        let of = |row: OutboxRow| {
            let seq = row.seq;
            row.messages.into_iter().map(move |message| Park { seq, message, code: "refused", reason: seq.to_string() })
        };
        let outbox_parked: Vec<_> = rows.into_iter().flat_map(of).collect();
        parked += outbox_parked.len();
        w.commit(20, Group { outbox_parked, outbox_sent, ..Group::default() }).await;
    }
    assert_eq!(parked, n);
    assert_eq!(w.store.parked_count().await.unwrap(), PARKED_MAX.unsigned_abs());
    let newest = w.store.parked(None, 1).await.unwrap();
    assert_eq!(w.order(Order::DiscardParked(Some(vec![newest[0].seq]))).await, 1);
}

/// The attempt is over, with its reason; and only once, and not for a message that went out after all.
pub async fn a_refused_attempt_ends_its_job_with_a_letter(w: &World) {
    let id = w.submit_many(10, 1).await[0];
    let refused = |n: u32| Change::Refused {
        attempt: attempt(n),
        error: Box::new(JobError {
            class: ErrorClass::Validation,
            message: "too large".into(),
            log_tail: String::new(),
        }),
        at: Micros(20),
    };
    assert_eq!(w.change(20, id, refused(2)).await.unwrap_err(), Ignored::OtherAttempt);
    let changed = w.change(20, id, refused(1)).await.unwrap();
    assert_eq!((changed.job.state, changed.dead), (State::Failed, Some(DeadReason::NotRetryable)));
    assert_eq!(w.change(21, id, refused(1)).await.unwrap_err(), Ignored::Final);
    let job = w.store.job(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.error.unwrap().message), (State::Failed, "too large".into()));
    let attempts = w.store.attempts(id).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].outcome.as_str(), attempts[0].delivery), (1, "failed", 0));
    assert!(w.claim(1_000_000, 10).await.is_empty(), "nothing is left to publish");
    // Once the limit is raised it can be put back.
    w.change(30, id, Change::Redrive { at: Micros(30) }).await.unwrap();
    assert_eq!(w.claim(31, 10).await.len(), 1);
    w.change(32, id, queued(2, 32)).await.unwrap();
    assert_eq!(w.change(33, id, refused(2)).await.unwrap_err(), Ignored::Passed);
}

/// A queue that cannot leave is passed over, however much of it lies before the others.
pub async fn queues_are_claimed_apart(w: &World) {
    let of = |queue: &str| NewJob {
        spec: JobSpec { queue: Queue::new(queue).unwrap(), ..JobSpec::clone(&job(10).spec) }.into(),
        ..job(10)
    };
    let mut ids = HashMap::<&str, Vec<JobId>>::new();
    for queue in ["bulk", "bulk", "bulk", "default", "a", "z-last", "bulk", "default"] {
        let id = w.submit(10, of(queue)).await.job.id;
        ids.entry(queue).or_default().push(id);
    }
    let claim = |now, limit, pick: Pick| {
        let (store, owner) = (Arc::clone(&w.store), w.owner.clone());
        async move {
            let due = store.claim_due_of(&owner, Micros(now), Micros(now + CLAIM), limit, &pick).await.unwrap();
            due.into_iter().map(|o| o.id).collect::<Vec<_>>()
        }
    };
    let queue = |q: &str| Queue::new(q).unwrap();
    let held = Pick::AllBut(vec![queue("bulk"), queue("a")]);
    assert_eq!(w.store.next_due_of(&held).await.unwrap(), Some(Micros(10)));
    let mut got = claim(20, 100, held.clone()).await;
    got.sort_unstable();
    let mut wanted = [ids["default"].clone(), ids["z-last"].clone()].concat();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
    assert!(claim(20, 100, held.clone()).await.is_empty());
    assert_eq!(w.store.next_due_of(&held).await.unwrap(), Some(Micros(20 + CLAIM)));
    // One message of a held queue, the first.
    assert_eq!(claim(20, 1, Pick::Only(queue("bulk"))).await, ids["bulk"][..1]);
    assert!(claim(20, 1, Pick::Only(queue("nobody"))).await.is_empty());
    // Each queue has its part of a claim that is too small for all.
    let mut parts = vec![];
    for _ in 0..4 {
        parts.extend(claim(20, 2, Pick::default()).await);
    }
    assert_eq!(parts.len(), 4);
    assert_eq!(parts.iter().filter(|id| ids["a"].contains(id)).count(), 1);
}

/// Due jobs are distinguished from later ones, by queue, wherever they are claimed.
pub async fn what_waits_is_counted_by_queue(w: &World) {
    assert_eq!(w.store.waiting(Micros(10)).await.unwrap(), Waiting::default());
    let of = |queue: &str, run_at| NewJob {
        spec: JobSpec { queue: Queue::new(queue).unwrap(), run_at, ..JobSpec::clone(&job(10).spec) }.into(),
        ..job(10)
    };
    for _ in 0..3 {
        w.submit(10, of("bulk", None)).await;
    }
    for at in [11, 1_000, 40_000_000, 90_000_000_000] {
        w.submit(10, of("default", Some(Micros(at)))).await;
    }
    w.submit(10, of("later", Some(Micros(90_000_000_000)))).await;
    let counts = |waiting: Waiting| {
        let due: Vec<(String, u64)> =
            waiting.due.into_iter().filter(|(_, n)| *n > 0).map(|(q, n)| (q.to_string(), n)).collect();
        (due, waiting.later)
    };
    assert_eq!(counts(w.store.waiting(Micros(10)).await.unwrap()), (vec![("bulk".into(), 3)], 5));
    assert_eq!(w.claim(20, 2).await.len(), 2);
    let due = vec![("bulk".to_owned(), 3), ("default".to_owned(), 1)];
    assert_eq!(counts(w.store.waiting(Micros(20)).await.unwrap()), (due, 4));
    assert_eq!(w.store.accepted_count().await.unwrap(), 8);
    let mut queues: Vec<String> = w.store.queues().await.unwrap().iter().map(ToString::to_string).collect();
    queues.sort();
    assert_eq!(queues, ["bulk", "default", "later"]);
    // The gauge of the queues reads only what is due.
    let depths = w.store.depths(Micros(20)).await.unwrap();
    let mut depths: Vec<_> = depths.iter().map(|d| (d.queue.to_string(), d.pending)).collect();
    depths.sort();
    assert_eq!(depths, [("bulk".to_owned(), 3), ("default".to_owned(), 1)]);
}

/// Events are one line, each queue's dead letters another; a held one is passed over.
pub async fn lines_of_the_outbox_are_claimed_apart(w: &World) {
    let id = w.job_in(10, State::Running).await;
    w.commit(20, Group { changes: vec![(id, finished(id, 1, failure(ErrorClass::Runtime)))], ..Group::default() })
        .await;
    let now = 20 + CLAIM;
    let claim = |pick: OutboxPick| {
        let (store, owner) = (Arc::clone(&w.store), w.owner.clone());
        async move {
            let rows = store.claim_outbox_of(&owner, Micros(now), Micros(now + CLAIM), 10, &pick).await.unwrap();
            rows.iter().map(|row| (row.seq, row.line().to_owned())).collect::<Vec<_>>()
        }
    };
    let (events, letters) = ("agentforge.events.".to_owned(), "swarm.dlq.dev.default".to_owned());
    let dead = claim(OutboxPick::AllBut(vec![events.clone()])).await;
    assert_eq!(dead.iter().map(|(_, subject)| subject).collect::<Vec<_>>(), [&letters]);
    w.store.release_outbox(&Owner("another".into()), &[dead[0].0]).await.unwrap();
    assert!(claim(OutboxPick::Only(letters.clone())).await.is_empty(), "only one's own claims");
    w.store.release_outbox(&w.owner, &[dead[0].0]).await.unwrap();
    assert_eq!(claim(OutboxPick::Only(letters.clone())).await, dead);
    let claimed = claim(OutboxPick::AllBut(vec![letters])).await;
    assert_eq!(claimed.len(), 4);
    w.store.release_outbox(&w.owner, &claimed.iter().map(|(seq, _)| *seq).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(claim(OutboxPick::Only(events)).await, claimed);
}
