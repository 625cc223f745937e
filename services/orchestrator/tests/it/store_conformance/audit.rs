//! The audit log: whole, with what it is about or not at all, and found out when it is touched.

use super::world::*;
use agentforge_audit::{Entry, Finding, Verified, Verifier};
use agentforge_orchestrator::model::NewJob;
use agentforge_orchestrator::store::{
    AuditFilter, AuditKeep, AuditRow, Group, JobFilter, Order, OutboxMessage, Park, Store, Subject, Submit, Submitted,
};
use agentforge_proto::time::Micros;
use serde_json::{Value, json};
use std::sync::Arc;

fn submits(of: &[(&str, NewJob)]) -> Group {
    let acts = of.iter().enumerate();
    Group {
        acts: acts.map(|(n, (name, _))| (caller(name, "SubmitJob"), Subject::Submit(n))).collect(),
        submits: of.iter().map(|(_, job)| Submit { job: job.clone(), claim: false }).collect(),
        ..Group::default()
    }
}

/// Newest first.
async fn log(w: &World) -> Vec<AuditRow> {
    w.store.audit(&AuditFilter { limit: 1_000, ..AuditFilter::default() }).await.unwrap().items
}

async fn verified(store: &Arc<dyn Store>, anchors: &[agentforge_audit::Hash]) -> Verified {
    let mut verifier = Verifier::default();
    for chain in store.audit_chains().await.unwrap() {
        verifier.begin(&chain);
        let mut after = 0;
        loop {
            let page = store.audit_chain(chain.head.chain, after, 7).await.unwrap();
            page.iter().for_each(|entry| verifier.take(entry));
            let Some(last) = page.last() else { break };
            after = last.place;
        }
        verifier.end(&chain.head);
    }
    verifier.finish(anchors)
}

fn detail(entry: &Entry) -> Value {
    serde_json::from_str(entry.detail.as_deref().unwrap_or("null")).unwrap()
}

pub async fn every_act_of_a_commit_has_its_entry(w: &World) {
    let known = named(10, Some("key"), 1);
    let done = w.commit(10, submits(&[("ci", known.clone())])).await;
    let Submitted::Created(first) = &done.submits[0] else { panic!("{done:?}") };
    let again = NewJob { spec: JobSpec { id: job(10).spec.id, ..JobSpec::clone(&known.spec) }.into(), ..known.clone() };
    let other = NewJob { body_hash: Some([2; 32]), ..again.clone() };
    w.commit(20, submits(&[("ci", job(20)), ("ops", job(20)), ("ci", job(20)), ("ci", again), ("ci", other)])).await;
    let mut group = Group { changes: vec![(first.job.id, cancel(30))], ..Group::default() };
    group.acts.push((caller("ops", "CancelJob"), Subject::Change(0)));
    w.commit(30, group).await;

    let mut found = log(w).await;
    found.reverse();
    let short = |row: &AuditRow| {
        let e = row.chained.entry.clone();
        (e.principal, e.operation, e.outcome, e.calls)
    };
    let of = |name: &str, operation: &str, outcome: &str, calls: u32| {
        (name.to_owned(), operation.to_owned(), outcome.to_owned(), calls)
    };
    assert_eq!(
        found.iter().map(short).collect::<Vec<_>>(),
        [
            of("ci", "SubmitJob", "ok", 1),
            of("ci", "SubmitJob", "ok", 3),
            of("ops", "SubmitJob", "ok", 1),
            of("ci", "SubmitJob", "conflict", 1),
            of("ops", "CancelJob", "ok", 1),
        ]
    );
    let one = &found[0].chained.entry;
    assert_eq!((one.object_id.clone(), detail(one)), (Some(first.job.id.to_string()), json!({"created": true})));
    assert_eq!((one.address.as_deref(), one.request_id.as_deref()), (Some("10.0.0.7"), Some("req-1")));
    let many = detail(&found[1].chained.entry);
    assert_eq!(
        (&many["jobs"], &many["created"], many["ids_sha256"].as_str().unwrap().len()),
        (&json!(3), &json!(2), 64)
    );
    let cancelled = detail(&found[4].chained.entry);
    assert_eq!(cancelled, json!({"before": {"state": "accepted"}, "after": {"state": "cancelled"}}));
    assert_eq!(w.job(first.job.id).await.cancelled_by.as_deref(), Some("ops"));
    assert_eq!(verified(&w.store, &[]).await, Verified { entries: 5, findings: vec![], more: 0 });

    let events = w.events_of("agentforge.events.audit.orchestrator.dev.").await;
    assert_eq!(events.len(), 5, "each entry is an event");
    let event: Value = serde_json::from_slice(&events[0].payload).unwrap();
    assert_eq!(event["data"]["hash"], json!(found[0].chained.hash.to_string()), "which is an anchor");
    assert_eq!((&event["data"]["principal"], &events[0].msg_id), (&json!("ci"), &one.id));
}

/// A store with some entries, and how its check ends after `sql`.
async fn after(w: &World, sql: &str) -> Vec<Finding> {
    w.sql(sql).await;
    verified(&w.store, &[]).await.findings
}

pub async fn what_is_done_to_the_log_in_sql_is_found(w: &World) {
    for n in 0..9 {
        w.commit(10 + n, submits(&[("ci", job(10))])).await;
    }
    let anchor = log(w).await[0].chained.hash;
    assert_eq!(verified(&w.store, &[anchor]).await.findings, []);
    let id = |place: i64| async move {
        let found = w.store.audit_chain(0, place - 1, 1).await.unwrap();
        found[0].entry.id.clone()
    };
    let changed = Finding::Changed { chain: 0, place: 3, id: id(3).await };
    for (change, back) in [
        ("principal = 'somebody'", "principal = 'ci'"),
        ("outcome = 'conflict'", "outcome = 'ok'"),
        ("at = at + 1", "at = at - 1"),
        ("calls = 7", "calls = 1"),
        ("address = NULL", "address = '10.0.0.7'"),
    ] {
        let set = |what: &str| format!("UPDATE audit SET {what} WHERE chain = 0 AND place = 3");
        assert_eq!(after(w, &set(change)).await, std::slice::from_ref(&changed), "{change}");
        assert_eq!(after(w, &set(back)).await, [], "{back}");
    }
    // Two entries that changed places.
    w.sql("UPDATE audit SET place = -4 WHERE chain = 0 AND place = 4").await;
    w.sql("UPDATE audit SET place = 4 WHERE chain = 0 AND place = 5").await;
    let findings = after(w, "UPDATE audit SET place = 5 WHERE chain = 0 AND place = -4").await;
    assert!(findings.contains(&Finding::Changed { chain: 0, place: 4, id: id(4).await }), "{findings:?}");
    w.sql("UPDATE audit SET place = -4 WHERE chain = 0 AND place = 4").await;
    w.sql("UPDATE audit SET place = 4 WHERE chain = 0 AND place = 5").await;
    assert_eq!(after(w, "UPDATE audit SET place = 5 WHERE chain = 0 AND place = -4").await, []);
    // The end is cut off, then something in the middle.
    let gone = |from, to| Finding::Missing { chain: 0, from, to };
    assert_eq!(after(w, "DELETE FROM audit WHERE chain = 0 AND place = 9").await, [gone(9, 9)]);
    assert_eq!(after(w, "DELETE FROM audit WHERE chain = 0 AND place IN (4, 5)").await, [gone(4, 5), gone(9, 9)]);
    // Who moves the recorded head as well is seen against an anchor.
    let last = w.store.audit_chain(0, 7, 1).await.unwrap().remove(0);
    let found = verified(&w.store, &[anchor, last.hash]).await.findings;
    assert_eq!(found, [gone(4, 5), gone(9, 9), Finding::NoAnchor { hash: anchor }]);
}

pub async fn what_cannot_be_audited_is_not_done(w: &World) {
    w.commit(10, submits(&[("ci", job(10))])).await;
    if w.store.is_shared() {
        w.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$",
        )
        .await;
        w.sql("CREATE TRIGGER no_audit BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse()").await;
    } else {
        w.sql("CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END").await;
    }
    let refused = w.store.commit(submits(&[("ci", job(20)), ("ops", job(20))]), w.ctx(20)).await;
    assert!(refused.is_err(), "{refused:?}");
    let entry = caller("ops", "DiscardParkedMessages").entry();
    w.store.order(Order::DiscardParked(None), entry.clone(), w.ctx(20)).await.unwrap_err();
    let all = JobFilter { limit: 9, ..JobFilter::default() };
    let job_id = w.store.jobs(&all).await.unwrap().items[0].id;
    let mut group = Group { changes: vec![(job_id, cancel(20))], ..Group::default() };
    group.acts.push((caller("ops", "CancelJob"), Subject::Change(0)));
    w.store.commit(group, w.ctx(20)).await.unwrap_err();
    assert_eq!((w.rows("jobs").await, log(w).await.len()), (1, 1));
    assert_eq!(w.job(job_id).await.cancelled_by, None);

    w.sql(if w.store.is_shared() { "DROP TRIGGER no_audit ON audit" } else { "DROP TRIGGER no_audit" }).await;
    w.commit(30, submits(&[("ci", job(30))])).await;
    assert_eq!((w.rows("jobs").await, log(w).await.len()), (2, 2));
    assert_eq!(verified(&w.store, &[]).await.findings, []);
}

/// What an order or a walk was about is found by its id, however many there were.
pub async fn each_thing_of_many_is_named(w: &World) {
    let ids = w.submit_many(10, 250).await;
    let about = |object: &str| AuditFilter { object: Some(object.to_owned()), limit: 9, ..AuditFilter::default() };
    let mut group = Group { changes: ids.iter().map(|id| (*id, cancel(20))).collect(), ..Group::default() };
    group.acts.extend((0..ids.len()).map(|n| (caller("ops", "CancelJob"), Subject::Change(n))));
    w.commit(20, group).await;
    for id in &ids {
        let found = w.store.audit(&about(&id.to_string())).await.unwrap().items;
        let of: Vec<_> = found.iter().map(|row| (&*row.chained.entry.operation, row.chained.entry.calls)).collect();
        assert!(matches!(of[..], [("CancelJob", 50 | 100)]), "{of:?}");
    }
    let is_of_a_job = |m: &OutboxMessage| m.subject.starts_with("agentforge.events.job.");
    let parks = async || {
        let park = |(seq, message): (i64, OutboxMessage)| Park { seq, message, code: "refused", reason: "no".into() };
        let rows = w.rows_of_outbox().await;
        let outbox_sent = rows.iter().map(|row| row.seq).collect();
        let each = rows.into_iter().flat_map(|row| row.messages.into_iter().map(move |message| (row.seq, message)));
        Group {
            outbox_parked: each.filter(|(_, m)| is_of_a_job(m)).map(park).collect(),
            outbox_sent,
            ..Group::default()
        }
    };
    let messages = w.outbox().await;
    let of_jobs: Vec<_> = messages.iter().filter(|m| is_of_a_job(m)).collect();
    w.commit(30, parks().await).await;
    let named = async |operation: &'static str, order: Order| {
        let before = log(w).await.len();
        let done = w.store.order(order, caller("ops", operation).entry(), w.ctx(40)).await.unwrap();
        assert_eq!(done, of_jobs.len() as u64);
        for row in &of_jobs {
            let found = w.store.audit(&about(&row.msg_id)).await.unwrap().items;
            assert!(found.iter().any(|row| row.chained.entry.operation == operation), "{operation} of {}", row.msg_id);
        }
        let new = log(w).await.len() - before;
        assert!((5..=9).contains(&new), "{} messages in {new} entries", of_jobs.len());
    };
    named("RetryParkedMessages", Order::Unpark(None)).await;
    w.commit(50, parks().await).await;
    named("DiscardParkedMessages", Order::DiscardParked(None)).await;
    assert_eq!(verified(&w.store, &[]).await.findings, []);
}

pub async fn stores_that_append_at_once_leave_whole_chains(w: &World) {
    let other = w.other().await;
    for turn in 0..20 {
        let group = |name| submits(&[(name, job(turn))]);
        let order = |store: &Arc<dyn Store>| {
            let (store, entry) = (store.clone(), caller("ops", "RetryParkedMessages").entry());
            async move { store.order(Order::Unpark(None), entry, w.ctx(turn)).await }
        };
        let (a, b, c, d) = tokio::join!(
            w.store.commit(group("a"), w.ctx(turn)),
            other.commit(group("b"), w.ctx(turn)),
            order(&w.store),
            order(&other),
        );
        for done in [a.map(drop), b.map(drop), c.map(drop), d.map(drop)] {
            done.unwrap();
        }
    }
    // A caller that goes away in the middle leaves all of it or nothing.
    for turn in 0..20 {
        let commit = w.store.commit(submits(&[("c", job(turn))]), w.ctx(turn));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(50 * turn.unsigned_abs()), commit).await;
        w.commit(turn, submits(&[("d", job(turn))])).await;
    }
    let Verified { entries, findings, .. } = verified(&w.store, &[]).await;
    assert_eq!(findings, []);
    let jobs = w.rows("jobs").await;
    assert_eq!(entries, jobs.unsigned_abs() + 40, "each job has its entry, and each order");
    let head = w.store.checkpoint_audit(w.ctx(1)).await.unwrap();
    assert_eq!(verified(&other, &[head.hash]).await.findings, []);
}

pub async fn a_pruned_log_is_still_checked(w: &World) {
    for n in 0..9 {
        w.commit(n, submits(&[("ci", job(10))])).await;
    }
    let old = w.store.audit_chain(0, 0, 1).await.unwrap().remove(0);
    let keep = AuditKeep { since: Micros(0), entries: 4 };
    assert_eq!(w.store.prune_audit(keep, w.ctx(1)).await.unwrap(), 5);
    assert_eq!(w.store.prune_audit(AuditKeep { since: Micros(0), entries: 1_000 }, w.ctx(1)).await.unwrap(), 0);
    w.commit(20, submits(&[("ci", job(20))])).await;
    assert_eq!(verified(&w.store, &[]).await, Verified { entries: 6, findings: vec![], more: 0 });
    let lost = verified(&w.store, &[old.hash]).await.findings;
    assert_eq!(lost, [Finding::NoAnchor { hash: old.hash }], "what is pruned is no anchor any more");
    // Twice: what attests the first cut is pruned itself.
    assert!(w.store.prune_audit(AuditKeep { since: Micros(0), entries: 1 }, w.ctx(1)).await.unwrap() > 0);
    assert_eq!(verified(&w.store, &[]).await.findings, []);
    w.sql("UPDATE audit_chains SET base_place = base_place + 1 WHERE chain = 0").await;
    assert!(!verified(&w.store, &[]).await.findings.is_empty(), "a cut that no entry attests");
}

pub async fn entries_of_other_services_are_taken_in_once(w: &World) {
    let entry =
        |principal: &str| Entry { surface: "broadcaster".into(), ..caller(principal, "EnableEndpoint").entry() };
    let (a, b) = (entry("a"), entry("b"));
    assert_eq!(w.store.take_in(vec![a.clone(), a.clone()]).await.unwrap(), 1);
    assert_eq!(w.store.take_in(vec![a.clone(), b.clone()]).await.unwrap(), 1);
    assert_eq!(w.store.take_in(vec![b, a]).await.unwrap(), 0);
    assert_eq!(verified(&w.store, &[]).await, Verified { entries: 2, findings: vec![], more: 0 });
    assert!(w.events_of("agentforge.events.audit.").await.is_empty(), "they are events already");
}

pub async fn the_log_is_filtered_and_paged(w: &World) {
    for n in 0..5 {
        let name = if n % 2 == 0 { "ci" } else { "ops" };
        w.commit(100 + n, submits(&[(name, job(10))])).await;
    }
    let page = |filter: AuditFilter| async move { w.store.audit(&filter).await.unwrap() };
    let of = |principal: &str| AuditFilter { principal: Some(principal.into()), limit: 2, ..AuditFilter::default() };
    let first = page(of("ci")).await;
    assert_eq!(first.items.len(), 2);
    let second = page(AuditFilter { before: first.next, ..of("ci") }).await;
    assert_eq!((second.items.len(), second.next), (1, None));
    let object = first.items[0].chained.entry.object_id.clone();
    let all = || AuditFilter { limit: 9, ..AuditFilter::default() };
    for (filter, wanted) in [
        (AuditFilter { object, ..all() }, 1),
        (AuditFilter { operation: Some("CancelJob".into()), ..all() }, 0),
        (AuditFilter { outcome: Some("ok".into()), ..all() }, 5),
        (AuditFilter { since: Some(Micros(102)), ..all() }, 3),
        (AuditFilter { until: Some(Micros(102)), ..all() }, 2),
    ] {
        assert_eq!(page(filter.clone()).await.items.len(), wanted, "{filter:?}");
    }
}
