//! Lists: filters, cursors, and a bound on the work of each page.

use super::world::*;
use agentforge_message_id::{JobId, Mission, Queue, ToolName};
use agentforge_orchestrator::model::{NewJob, State};
use agentforge_orchestrator::store::{DeadLetterFilter, JobFilter, PAGE_BYTES_MAX, SCAN_ROWS_MAX};
use agentforge_proto::time::Micros;

fn all(limit: u32) -> JobFilter {
    JobFilter { limit, ..JobFilter::default() }
}

async fn ids(w: &World, filter: &JobFilter) -> Vec<JobId> {
    w.store.jobs(filter).await.unwrap().items.into_iter().map(|j| j.id).collect()
}

pub async fn filters_narrow_and_cursors_walk(w: &World) {
    let mut made = w.submit_many(10, 25).await;
    let odd = NewJob {
        spec: JobSpec {
            mission: Mission::new("staging").unwrap(),
            queue: Queue::new("mail").unwrap(),
            tool: ToolName::new("send").unwrap(),
            ..JobSpec::clone(&job(10).spec)
        }
        .into(),
        ..job(10)
    };
    let odd = w.submit(10, odd).await.job.id;
    made.push(odd);
    made.reverse();

    let mut walked = Vec::new();
    let mut filter = all(10);
    loop {
        let page = w.store.jobs(&filter).await.unwrap();
        walked.extend(page.items.iter().map(|j| j.id));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(walked, made);

    assert_eq!(ids(w, &JobFilter { mission: Some(Mission::new("staging").unwrap()), ..all(10) }).await, [odd]);
    assert_eq!(ids(w, &JobFilter { queue: Some(Queue::new("mail").unwrap()), ..all(10) }).await, [odd]);
    assert_eq!(ids(w, &JobFilter { tool: Some(ToolName::new("send").unwrap()), ..all(10) }).await, [odd]);
    assert_eq!(ids(w, &JobFilter { tool: Some(ToolName::new("none").unwrap()), ..all(10) }).await, []);

    w.change(20, odd, cancel(20)).await.unwrap();
    w.change(20, made[1], queued(1, 20)).await.unwrap();
    let states = |states: &[State]| JobFilter { states: states.to_vec(), ..all(50) };
    assert_eq!(ids(w, &states(&[State::Cancelled])).await, [odd]);
    assert_eq!(ids(w, &states(&[State::Cancelled, State::Queued])).await, made[..2]);
    assert_eq!(ids(w, &states(&[State::Accepted])).await, made[2..]);
}

pub async fn labels_are_matched_all_at_once(w: &World) {
    let labelled = |labels: &[(&str, &str)]| NewJob {
        spec: JobSpec {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..JobSpec::clone(&job(10).spec)
        }
        .into(),
        ..job(10)
    };
    let a = w.submit(10, labelled(&[("team", "a"), ("we\"i.rd$", "ä'%")])).await.job.id;
    let b = w.submit(10, labelled(&[("team", "b")])).await.job.id;
    w.submit(10, job(10)).await;
    let by = |labels: &[(&str, &str)]| JobFilter {
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..all(10)
    };
    assert_eq!(ids(w, &by(&[("team", "b")])).await, [b]);
    assert_eq!(ids(w, &by(&[("we\"i.rd$", "ä'%"), ("team", "a")])).await, [a]);
    assert_eq!(ids(w, &by(&[("team", "a"), ("team", "b")])).await, []);
    assert_eq!(ids(w, &by(&[("team", "")])).await, []);
    assert_eq!(ids(w, &by(&[("a", "team")])).await, []);
}

pub async fn a_rare_job_below_many_is_on_the_first_page(w: &World) {
    let rare = w
        .submit(
            10,
            NewJob {
                spec: JobSpec { tool: ToolName::new("rare").unwrap(), ..JobSpec::clone(&job(10).spec) }.into(),
                ..job(10)
            },
        )
        .await;
    w.submit(10, job(10)).await;
    // Many rows that do not match, made inside the database.
    let n = SCAN_ROWS_MAX;
    let id = if w.store.is_shared() { "decode(md5(n::text), 'hex')" } else { "randomblob(16)" };
    let columns = "state, attempt, attempt_limit, max_attempts, version, republished, created_at, available_at, mission, queue, tool";
    w.sql(&format!(
        "INSERT INTO jobs (id, {columns}) WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n}) \
         SELECT {id}, 8, 1, 1, 1, 1, 0, 1, 1, 'dev', 'default', 'echo' FROM c"
    ))
    .await;
    let filter = JobFilter { tool: Some(ToolName::new("rare").unwrap()), ..all(10) };
    let page = w.store.jobs(&filter).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].seq, page.next), (1, rare.seq, None));
}

pub async fn large_jobs_make_short_pages(w: &World) {
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(PAGE_BYTES_MAX / 2));
    for _ in 0..4 {
        w.submit(
            10,
            NewJob { spec: JobSpec { args: args.clone(), ..JobSpec::clone(&job(10).spec) }.into(), ..job(10) },
        )
        .await;
    }
    let (mut sizes, mut filter) = (Vec::new(), all(100));
    loop {
        let page = w.store.jobs(&filter).await.unwrap();
        sizes.push(page.items.len());
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert!(sizes.len() > 1 && sizes.iter().all(|n| *n < 4) && sizes.iter().sum::<usize>() == 4, "{sizes:?}");
}

pub async fn versions_tell_what_changed(w: &World) {
    let made = w.submit_many(10, 700).await;
    w.change(20, made[3], queued(1, 20)).await.unwrap();
    let mut asked = made.clone();
    asked.push(JobId::generate());
    let got = w.store.versions(&asked).await.unwrap();
    assert_eq!(got.len(), made.len());
    for (id, state, version) in got {
        let expected = if id == made[3] { (State::Queued, 2) } else { (State::Accepted, 1) };
        assert_eq!((state, version), expected);
    }
    assert!(w.store.versions(&[]).await.unwrap().is_empty());
}

pub async fn depths_measure_what_waits(w: &World) {
    assert!(w.store.depths(Micros(100)).await.unwrap().is_empty());
    w.submit_many(10, 3).await;
    w.job_in(5, State::Queued).await;
    w.job_in(1, State::Running).await;
    w.job_in(1, State::Succeeded).await;
    w.submit(
        1,
        NewJob { spec: JobSpec { run_at: Some(Micros(500)), ..JobSpec::clone(&job(1).spec) }.into(), ..job(1) },
    )
    .await;
    w.submit(
        20,
        NewJob {
            spec: JobSpec {
                queue: Queue::new("mail").unwrap(),
                run_at: Some(Micros(30)),
                ..JobSpec::clone(&job(20).spec)
            }
            .into(),
            ..job(20)
        },
    )
    .await;
    w.claim(10, 1).await;
    let mut depths = w.store.depths(Micros(100)).await.unwrap();
    depths.sort_by(|a, b| a.queue.cmp(&b.queue));
    let got: Vec<_> = depths.iter().map(|d| (d.queue.as_str(), d.pending, d.oldest.0)).collect();
    assert_eq!(got, [("default", 4, 5), ("mail", 1, 30)]);
    assert_eq!(w.store.accepted_count().await.unwrap(), 5);
}

pub async fn dead_letters_are_filtered_and_paged(w: &World) {
    let mut dead = Vec::new();
    for state in [State::Dead, State::Failed, State::Dead] {
        dead.push(w.job_in(10, state).await);
    }
    let by = |f: DeadLetterFilter| async move {
        let page = w.store.dead_letters(&f).await.unwrap();
        (page.items.iter().filter_map(|l| l.job).collect::<Vec<_>>(), page.next)
    };
    let two = DeadLetterFilter { limit: 2, ..Default::default() };
    let (page, next) = by(two.clone()).await;
    assert_eq!(page, [dead[2], dead[1]]);
    assert_eq!(by(DeadLetterFilter { before: next, ..two.clone() }).await, (vec![dead[0]], None));
    let reason = DeadLetterFilter { reason: Some("not_retryable".into()), ..two.clone() };
    assert_eq!(by(reason).await.0, [dead[1]]);
    assert!(by(DeadLetterFilter { mission: Some("staging".into()), ..two.clone() }).await.0.is_empty());
    assert!(by(DeadLetterFilter { queue: Some("mail".into()), ..two }).await.0.is_empty());
}
