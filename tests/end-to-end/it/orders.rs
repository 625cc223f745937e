//! A message is not an order, and a report is not a result: only what the orchestrator signed is run, and only who was
//! given an attempt ends it.

use crate::api::{Api, metric_of};
use crate::stack::{Options, Stack};
use agentforge_harness::{eventually, http_get, require};
use agentforge_signing::{HEADER, Signer, leaf, new_private_pem};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{self, message::StreamMessage};
use async_nats::{HeaderMap, Message};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
/// Longer than the stream remembers ids here, `DUPLICATE_WINDOW=1s`.
const FORGOTTEN: Duration = Duration::from_millis(1_600);

/// A tool that leaves a line for each run.
struct Marks(TempDir);

impl Marks {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn file(&self) -> PathBuf {
        self.0.path().join("runs")
    }
    fn tools(&self) -> String {
        let script = format!("echo ran >> {}; echo '{{}}'", self.file().display());
        let folder = self.0.path();
        format!("[[tool]]\nname = \"mark\"\nargv = [\"/bin/sh\", \"-c\", \"{script}\"]\nwrite = [{folder:?}]\n")
    }
    fn runs(&self) -> usize {
        std::fs::read_to_string(self.file()).map_or(0, |text| text.lines().count())
    }
}

/// Counts a worker's refusals with this label.
async fn refused(stack: &Stack, metric: &str, label: &str) -> f64 {
    let (_, page) = http_get(&stack.worker_metrics[0], &[]).await.unwrap();
    metric_of(&String::from_utf8_lossy(&page), metric, &[label])
}

async fn until_metric(api: &Api, name: &str, labels: &[&str], least: f64) {
    eventually(SOON, &format!("{name} {labels:?} counts"), || async {
        let found = api.metric(name, labels).await;
        if found >= least { Ok(()) } else { Err(found) }
    })
    .await;
}

async fn send(js: &jetstream::Context, subject: &str, id: &str, signature: Option<&str>, body: Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id);
    signature.into_iter().for_each(|signature| headers.insert(HEADER, signature));
    let ack = js.publish_with_headers(subject.to_owned(), headers, body.into()).await.unwrap().await.unwrap();
    assert!(!ack.duplicate, "{id} was taken for another");
}

/// What it is, subject, id, signature and body of a message.
type Attack<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, &'a [u8]);

/// An attempt as somebody who hears the subject has it.
struct Heard {
    id: String,
    signature: String,
    body: Vec<u8>,
}

impl Heard {
    fn of(message: &Message) -> Self {
        let headers = message.headers.as_ref().unwrap();
        let header = |name: &str| headers.get(name).unwrap().as_str().to_owned();
        Self { id: header(NATS_MESSAGE_ID.as_ref()), signature: header(HEADER), body: message.payload.to_vec() }
    }
    fn token(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_orchestrator_did_not_sign_is_not_run_but_kept_and_counted() {
    let Some(()) = require("nats-server") else { return };
    let marks = Marks::new();
    let options = Options::new().tools(&marks.tools()).worker("WORKER_QUEUES", "default,other");
    let options = options.orchestrator("DUPLICATE_WINDOW", "1s");
    let stack = Stack::start(options).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut jobs = client.subscribe("swarm.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = Vec::new();
    for n in 0..2 {
        let id = api.job("mark", json!({"n": n})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded");
        heard.push(Heard::of(&jobs.next().await.unwrap()));
    }
    assert_eq!(marks.runs(), 2);
    let (a, b) = (&heard[0], &heard[1]);
    // One byte of what is run: another tool argument.
    let mut changed = a.body.clone();
    let at = changed.windows(5).position(|w| w == b"\"n\":0").unwrap() + 4;
    changed[at] = b'7';
    let stranger = Signer::from_pem(&new_private_pem().unwrap()).unwrap();
    let subject = "swarm.jobs.dev.default";
    let mut other = serde_json::from_slice::<Value>(&a.body).unwrap();
    other["queue"] = json!("other");
    let other = serde_json::to_vec(&other).unwrap();
    let forged = stranger.sign(&[leaf(subject, "forged", &a.body)], 0, u64::MAX).remove(0);
    let attacks: [Attack<'_>; 8] = [
        ("unsigned", subject, "unsigned", None, &a.body),
        ("malformed", subject, "malformed", Some("AQAAAA"), &a.body),
        ("wrong", subject, &a.id, Some(&a.signature), &changed),
        ("wrong", subject, &a.id, Some(&b.signature), &a.body),
        ("wrong", subject, "another-id", Some(&a.signature), &a.body),
        ("wrong", "swarm.jobs.dev.other", &a.id, Some(&a.signature), &a.body),
        ("wrong", "swarm.jobs.dev.other", &a.id, Some(&a.signature), &other),
        ("unknown_key", subject, "forged", Some(&forged), &a.body),
    ];
    for (_, subject, id, signature, body) in attacks {
        tokio::time::sleep(FORGOTTEN).await;
        send(&js, subject, id, signature, body.to_vec()).await;
    }
    for (reason, n) in [("unsigned", 1.0), ("malformed", 1.0), ("wrong", 5.0), ("unknown_key", 1.0)] {
        eventually(SOON, reason, || async {
            let found = refused(&stack, "agentforge_attempts_refused_total", &format!("reason=\"{reason}\"")).await;
            if found == n { Ok(()) } else { Err(found) }
        })
        .await;
    }
    let letters = eventually(SOON, "each is a dead letter", || async {
        let letters = api.get("/v1/dead-letters?reason=invalid_signature&limit=100").await.unwrap().body;
        let n = letters["dead_letters"].as_array().map_or(0, Vec::len);
        if n == attacks.len() { Ok(letters) } else { Err(n) }
    })
    .await;
    assert!(letters.to_string().contains("is not signed"), "{letters}");
    until_metric(&api, "agentforge_dead_letters_total", &["invalid_signature"], attacks.len() as f64).await;
    // What was signed, once more: this worker knows that it is done.
    tokio::time::sleep(FORGOTTEN).await;
    send(&js, subject, &a.id, Some(&a.signature), a.body.clone()).await;
    eventually(SOON, "the copy is recognised", || async {
        let found = refused(&stack, "agentforge_duplicates_suppressed_total", "where=\"worker\"").await;
        if found >= 1.0 { Ok(()) } else { Err(found) }
    })
    .await;
    let good = api.job("mark", json!({"still": "served"})).await;
    assert_eq!(api.finished(&good).await["state"], "succeeded");
    assert_eq!(marks.runs(), 3, "none of them ran");
}

/// A worker of the same queue, of another, and someone who only hears what passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_without_the_attempts_token_has_no_effect() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new().worker("WORKER_QUEUES", "default,other")).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut jobs = client.subscribe("swarm.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    let mut running = Vec::new();
    for ms in [3_000, 60_000] {
        let id = api.job("sleep", json!({"ms": ms})).await;
        running.push((id, Heard::of(&jobs.next().await.unwrap()).token()));
    }
    for (id, _) in &running {
        eventually(SOON, "it runs", || async { api.read(id).await["state"] == "running" }).await;
    }
    let (job, token) = &running[0];
    let finished = json!({"finished": {
        "job": job, "attempt": 1, "delivery": 1, "worker": "nobody-you-know", "started_at": 1, "finished_at": 2,
        "outcome": {"succeeded": {"output": {"forged": true}}},
    }});
    let started = json!({"started": {"job": job, "attempt": 1, "delivery": 1, "worker": "nobody-you-know", "at": 1}});
    let report = async |subject: &str, token: Option<&str>, body: &Value| {
        let mut headers = HeaderMap::new();
        token.into_iter().for_each(|token| headers.insert("Agentforge-Task-Token", token));
        js.publish_with_headers(subject.to_owned(), headers, body.to_string().into()).await.unwrap().await.unwrap();
    };
    let own = "swarm.results.dev.default";
    for body in [&finished, &started] {
        report(own, None, body).await;
        report(own, Some(&running[1].1), body).await;
        report(own, Some("AAAAAAAAAAAAAAAAAAAAAA"), body).await;
        report("swarm.results.dev.other", Some(token), body).await;
    }
    for (reason, n) in [("no_token", 2.0), ("wrong_token", 4.0), ("other_queue", 2.0)] {
        until_metric(&api, "agentforge_results_refused_total", &[&format!("reason=\"{reason}\"")], n).await;
    }
    let now = api.read(job).await;
    assert!(now["state"] != "succeeded" || now["result"] != json!({"forged": true}), "{now}");
    assert_ne!(now["worker"], "nobody-you-know");
    let end = api.finished(job).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert!(!end.to_string().contains("forged"), "{end}");
    // With the right token, for a job that is final: the fence.
    let before = api.metric("agentforge_duplicates_suppressed_total", &["where=\"result\""]).await;
    report(own, Some(token), &finished).await;
    until_metric(&api, "agentforge_duplicates_suppressed_total", &["where=\"result\""], before + 1.0).await;
    assert_eq!(api.read(job).await, end);
    // And with the right one for a job that is open, as its worker would: the token is what counts.
    let (job, token) = &running[1];
    let mut finished = finished;
    finished["finished"]["job"] = json!(job);
    report(own, Some(token), &finished).await;
    assert_eq!(api.finished(job).await["result"], json!({"forged": true}));
}

/// Each report of a message is believed by itself: what is wrong with one takes no other with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_travel_together_are_judged_one_by_one() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new()).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut jobs = client.subscribe("swarm.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    let mut running = Vec::new();
    for _ in 0..3 {
        let id = api.job("sleep", json!({"ms": 60_000})).await;
        running.push((id, Heard::of(&jobs.next().await.unwrap()).token()));
    }
    let bundled = |job: usize, token: usize| {
        let outcome = json!({"succeeded": {"output": {"n": job}}});
        let finished = json!({
            "job": running[job].0, "attempt": 1, "delivery": 1, "worker": "w", "started_at": 1, "finished_at": 2,
            "outcome": outcome,
        });
        json!({"token": running[token].1, "report": {"finished": finished}})
    };
    let send = async |reports: Value| {
        let mut headers = HeaderMap::new();
        headers.insert("Agentforge-Reports", reports.as_array().unwrap().len().to_string());
        let sent = js.publish_with_headers("swarm.results.dev.default", headers, reports.to_string().into());
        sent.await.unwrap().await.unwrap();
    };
    // More than any worker sends, all of them good: none counts.
    send(json!(vec![bundled(1, 1); 65])).await;
    until_metric(&api, "agentforge_reports_invalid_total", &[], 1.0).await;
    let rubbish = json!({"token": running[0].1, "report": {"finished": 7}});
    send(json!([bundled(0, 0), bundled(1, 0), rubbish, bundled(2, 2)])).await;
    for job in [0, 2] {
        let end = api.finished(&running[job].0).await;
        assert_eq!((end["state"].as_str(), &end["result"]), (Some("succeeded"), &json!({"n": job})), "{end}");
    }
    until_metric(&api, "agentforge_results_refused_total", &["reason=\"wrong_token\""], 1.0).await;
    until_metric(&api, "agentforge_reports_invalid_total", &[], 2.0).await;
    let other = api.read(&running[1].0).await;
    assert!(!crate::api::is_final(&other), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_jobs_are_answered_by_what_the_orchestrator_kept_and_by_nothing_else() {
    let Some(()) = require("nats-server") else { return };
    let marks = Marks::new();
    let options = Options::new().tools(&marks.tools()).orchestrator("DUPLICATE_WINDOW", "1s");
    let stack = Stack::start(options).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let body = |n: u32| json!({"tool": "mark", "args": {"n": n}, "reuse": true});
    // A caller that saw the success may rely on it.
    for n in 0..5 {
        let first = api.post("/v1/jobs?wait=30s", &body(n)).await.unwrap().body;
        let second = api.post("/v1/jobs?wait=30s", &body(n)).await.unwrap().body;
        assert_eq!((&second["idempotent_replay"], &second["state"]), (&first["id"], &json!("succeeded")), "{second}");
    }
    assert_eq!(marks.runs(), 5);
    // A forged entry, and the signed one of another operation.
    let store = js.get_key_value("operations").await.unwrap();
    let stream = js.get_stream("KV_operations").await.unwrap();
    let mut keys = store.keys().await.unwrap();
    let key = keys.next().await.unwrap().unwrap();
    let signed = stream.get_last_raw_message_by_subject(&format!("$KV.operations.{key}")).await.unwrap();
    let other = keys.next().await.unwrap().unwrap();
    let entry =
        json!({"job": uuid::Uuid::now_v7(), "at": jiff::Timestamp::now().as_microsecond(), "output": {"forged": 1}});
    store.put(&key, entry.to_string().into()).await.unwrap();
    tokio::time::sleep(FORGOTTEN).await;
    js.publish_with_headers(format!("$KV.operations.{other}"), signed.headers, signed.payload)
        .await
        .unwrap()
        .await
        .unwrap();
    let mut replays = 0;
    for n in 0..5 {
        let job = api.post("/v1/jobs?wait=30s", &body(n)).await.unwrap().body;
        assert!(job["state"] == "succeeded" && !job.to_string().contains("forged"), "{job}");
        replays += usize::from(!job["idempotent_replay"].is_null());
    }
    assert_eq!((replays, marks.runs()), (3, 7), "the two were run");
    for reason in ["unsigned", "wrong"] {
        let n = refused(&stack, "agentforge_operations_refused_total", &format!("reason=\"{reason}\"")).await;
        assert_eq!(n, 1.0, "{reason}");
    }
}

/// Files of keys as an operator changes them.
struct KeyFiles {
    dir: TempDir,
}

impl KeyFiles {
    fn signing(&self) -> PathBuf {
        self.dir.path().join("signing.pem")
    }
    fn verify(&self) -> PathBuf {
        self.dir.path().join("verify.pem")
    }
    fn write(path: &Path, text: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let part = path.with_extension("part");
        let mut file =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::fs::rename(part, path).unwrap();
    }
    fn sign_with(&self, keys: &[&str]) {
        Self::write(&self.signing(), &keys.concat());
    }
    fn verify_with(&self, keys: &[&str]) {
        Self::write(&self.verify(), &Signer::from_pem(&keys.concat()).unwrap().public_keys().to_pem());
    }
}

/// The steps of docs/howto/operate-workers.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_replaced_under_load_and_none_is_refused_but_its_own_later() {
    let Some(()) = require("nats-server") else { return };
    let files = KeyFiles { dir: tempfile::tempdir().unwrap() };
    let (old, new) = (new_private_pem().unwrap(), new_private_pem().unwrap());
    files.sign_with(&[&old]);
    files.verify_with(&[&old]);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let options = Options::new()
        .orchestrator("SIGNING_KEY_FILE", &text(files.signing()))
        .orchestrator("DUPLICATE_WINDOW", "1s")
        .worker("VERIFY_KEYS", "")
        .worker("VERIFY_KEYS_FILE", &text(files.verify()));
    let stack = Stack::start(options).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut jobs = client.subscribe("swarm.jobs.>").await.unwrap();
    client.flush().await.unwrap();
    // Version and id of the key, of the header's text.
    let key_of = |heard: &Heard| heard.signature[..12].to_owned();
    let mut ids = vec![api.job("echo", json!({"the": "first"})).await];
    let first = Heard::of(&jobs.next().await.unwrap());
    assert_eq!(api.finished(&ids[0]).await["state"], "succeeded");
    // One that runs while the key changes: its token was made with the old one.
    let long = api.job("sleep", json!({"ms": 9_000})).await;
    let _ = jobs.next().await;
    files.verify_with(&[&new, &old]);
    files.sign_with(&[&new, &old]);
    let begun = tokio::time::Instant::now();
    let mut seen = false;
    while !seen {
        assert!(begun.elapsed() < SOON, "the orchestrator signs with the new key");
        for _ in 0..20 {
            ids.push(api.job("echo", json!({"n": ids.len()})).await);
            seen |= key_of(&Heard::of(&jobs.next().await.unwrap())) != key_of(&first);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for id in &ids {
        assert_eq!(api.finished(id).await["state"], "succeeded");
    }
    files.verify_with(&[&new]);
    for _ in 0..20 {
        ids.push(api.job("echo", json!({"n": ids.len()})).await);
    }
    for id in ids.iter().chain([&long]) {
        assert_eq!(api.finished(id).await["state"], "succeeded");
    }
    files.sign_with(&[&new]);
    assert_eq!(refused(&stack, "agentforge_attempts_refused_total", "").await, 0.0);
    assert_eq!(api.metric("agentforge_results_refused_total", &[]).await, 0.0);
    // What was signed with the old key is an order no more, once the worker has read its file again.
    eventually(SOON, "the old key is not trusted", || async {
        send(&js, "swarm.jobs.dev.default", &first.id, Some(&first.signature), first.body.clone()).await;
        tokio::time::sleep(FORGOTTEN).await;
        let found = refused(&stack, "agentforge_attempts_refused_total", "reason=\"unknown_key\"").await;
        if found >= 1.0 { Ok(()) } else { Err(found) }
    })
    .await;
}

/// An upgrade from a version that did not sign, as docs/deploy/upgrade-0.3.md has it: workers stop, the orchestrator is
/// upgraded, workers start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_of_a_version_that_did_not_sign_are_published_again_signed() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new().workers(0)).await;
    let (api, js) = (stack.api(), stack.jetstream().await);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(api.job("echo", json!({"n": n})).await);
    }
    let stream = js.get_stream("swarm_jobs").await.unwrap();
    for id in &ids {
        eventually(SOON, "it is published", || async { api.read(id).await["state"] == "queued" }).await;
    }
    stack.orchestrators[0].kill9();
    // As the version before would have stored them.
    let last = js.get_stream("swarm_jobs").await.unwrap().cached_info().state.last_sequence;
    let mut old: Vec<StreamMessage> = Vec::new();
    for seq in 1..=last {
        old.extend(stream.get_raw_message(seq).await.ok());
    }
    assert_eq!(old.len(), ids.len());
    stream.purge().await.unwrap();
    for message in &old {
        let id = format!("{}:r9", message.headers.get(NATS_MESSAGE_ID).unwrap().as_str());
        let mut body: Value = serde_json::from_slice(&message.payload).unwrap();
        body.as_object_mut().unwrap().remove("token");
        send(&js, &message.subject, &id, None, body.to_string().into_bytes()).await;
    }
    stack.start_orchestrator(0).await;
    eventually(SOON, "the unsigned ones are taken out", || async {
        let mut unsigned = Vec::new();
        for seq in last + 1..=last + 5 {
            unsigned.extend(stream.get_raw_message(seq).await.ok().map(|m| m.sequence));
        }
        if unsigned.is_empty() { Ok(()) } else { Err(unsigned) }
    })
    .await;
    let mut worker = stack.spawn_worker();
    let ready = worker.ready(SOON).await;
    stack.worker_metrics.push(ready["worker"]["metrics"].as_str().unwrap().to_owned());
    stack.workers.push(worker);
    for id in &ids {
        assert_eq!(api.finished(id).await["state"], "succeeded");
    }
    assert_eq!(refused(&stack, "agentforge_attempts_refused_total", "").await, 0.0, "no worker met one");
}
