//! Judges a history: what was submitted, what REST says, what the database holds, what the events reported.

use crate::api::{Api, is_final};
use crate::stack::Stack;
use agentforge_harness::eventually;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::{Connection, Row};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Jobs that were acknowledged, with what their result must be.
#[derive(Default)]
pub struct Submitted(pub BTreeMap<String, Value>);

impl Submitted {
    /// Submits until `count` are acknowledged, riding out refusals and cut connections. Each job has
    /// an idempotency key, so that an answer that was lost is asked for again without harm.
    pub async fn submit(api: &Api, count: usize, prefix: &str, tool: &str) -> Self {
        let jobs = futures_util::stream::iter((0..count).map(|n| {
            let (api, key, tool) = (api.clone(), format!("{prefix}-{n}"), tool.to_owned());
            async move {
                let args = json!({"n": n, "key": key});
                let body = json!({"tool": tool, "args": args, "idempotency_key": key, "labels": {"run": "oracle"}});
                let id = eventually(Duration::from_secs(120), "a submission is acknowledged", || {
                    let (api, body) = (api.clone(), body.clone());
                    async move {
                        match api.post("/v1/jobs", &body).await {
                            Ok(a) if a.status.is_success() => Ok(a.body["id"].as_str().unwrap().to_owned()),
                            Ok(a) => Err(format!("{} {}", a.status, a.body)),
                            Err(e) => Err(e.to_string()),
                        }
                    }
                })
                .await;
                (id, args)
            }
        }));
        Self(jobs.buffer_unordered(32).collect().await)
    }

    /// Waits until every acknowledged job is final in the eyes of a caller.
    pub async fn all_final(&self, api: &Api, within: Duration) {
        let mut open: Vec<&String> = self.0.keys().collect();
        let until = tokio::time::Instant::now() + within;
        while let Some(id) = open.last() {
            let what = format!("job {id} is final ({} open)", open.len());
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            eventually(left, &what, || async {
                match api.get(&format!("/v1/jobs/{id}?wait=5s")).await {
                    Ok(a) if is_final(&a.body) => Ok(()),
                    Ok(a) => Err(a.body["state"].to_string()),
                    Err(e) => Err(e.to_string()),
                }
            })
            .await;
            open.pop();
        }
    }

    /// Every job succeeded with its own args as the result: one row in the database, one result, one
    /// successful attempt, one `succeeded` event.
    pub async fn judge(&self, stack: &Stack) {
        let rows = rows(&stack.database_url()).await;
        assert_eq!(rows.len(), self.0.len(), "jobs in the database and jobs acknowledged");
        for (id, args) in &self.0 {
            let row = rows.get(id).unwrap_or_else(|| panic!("acknowledged job {id} is not in the database"));
            assert_eq!(
                (row.state, row.results, row.successes),
                (4, 1, 1),
                "job {id}: state, results, successful attempts"
            );
            let output: Value = serde_json::from_str(&row.output).unwrap();
            assert_eq!(&output, args, "job {id} has another job's result");
        }
        self.judge_events(stack).await;
    }

    async fn judge_events(&self, stack: &Stack) {
        let told = eventually(Duration::from_secs(60), "every success is told once", || async {
            let told = succeeded_events(&stack.nats.url()).await;
            if told.len() >= self.0.len() { Ok(told) } else { Err(format!("{} of {}", told.len(), self.0.len())) }
        })
        .await;
        for id in self.0.keys() {
            assert_eq!(told.get(id), Some(&1), "succeeded events of job {id}");
        }
    }
}

struct JobRow {
    state: i64,
    results: i64,
    successes: i64,
    output: String,
}

const HISTORY: &str = "\
    select j.id as id, j.state as state,
      (select count(*) from job_results r where r.seq = j.seq) as results,
      (select count(*) from job_attempts a where a.seq = j.seq and a.outcome = 'succeeded') as successes,
      (select r.output from job_results r where r.seq = j.seq) as output
    from jobs j";

async fn rows(url: &str) -> HashMap<String, JobRow> {
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(url.trim_start_matches("sqlite://")).read_only(true);
    let mut c = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query(HISTORY).fetch_all(&mut c).await.unwrap();
    rows.iter()
        .map(|r| {
            let id = uuid::Uuid::from_slice(r.get::<&[u8], _>("id")).unwrap().to_string();
            let output = r.get::<Option<String>, _>("output").unwrap_or_default();
            (id, JobRow { state: r.get("state"), results: r.get("results"), successes: r.get("successes"), output })
        })
        .collect()
}

/// How often each job was reported as succeeded, read from the stream itself.
pub async fn succeeded_events(nats_url: &str) -> HashMap<String, u32> {
    let client = async_nats::connect(nats_url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let stream = js.get_stream("events").await.unwrap();
    let config = async_nats::jetstream::consumer::pull::Config {
        filter_subject: "agentforge.events.job.*.succeeded".into(),
        ack_policy: async_nats::jetstream::consumer::AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await.unwrap();
    let pending = consumer.info().await.unwrap().num_pending;
    let mut told = HashMap::new();
    if pending == 0 {
        return told;
    }
    let mut messages = consumer.messages().await.unwrap().take(usize::try_from(pending).unwrap());
    while let Some(m) = messages.next().await {
        let event: Value = serde_json::from_slice(&m.unwrap().payload).unwrap();
        *told.entry(event["subject"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    told
}
