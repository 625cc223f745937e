//! The board on both databases and against a real NATS: what is stored, what goes out, and what happens when NATS or the
//! process goes away in between.

use super::board::Intake;
use super::event::Action;
use super::item::{Item, NewItem, Patch, Status, Step};
use super::outbox;
use super::settings::IntakeConfig;
use super::store::{Changed, Error, Filter, Limits, Store};
use super::submit::{Submit, SubmitError};
use super::template::{self, Template};
use crate::store::Database;
use agentforge_access::{Principal, Role, Scopes};
use agentforge_harness::{NatsOptions, NatsServer, Postgres, eventually, require};
use agentforge_jetstream::{HeaderMap, Nats, NatsConfig, publish};
use async_nats::jetstream::{consumer, stream};
use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);
const WIDE: Limits = Limits { items_max: 1_000, outbox_max: 1_000 };

/// The board's tables in a SQLite file.
async fn sqlite(file: &Path) -> Database {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(5));
    let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
    sqlx::raw_sql(include_str!("../store/migrations/0010_intake_sqlite.sql")).execute(&writer).await.unwrap();
    let readers = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    Database::Sqlite { writer, readers, file: file.to_owned() }
}

/// The same in a database of Postgres; nothing without a server.
async fn postgres(name: &str) -> Option<Database> {
    require("postgres")?;
    let url = Postgres::start().await.database(name).await;
    let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
    sqlx::raw_sql(include_str!("../store/migrations/0010_intake_postgres.sql")).execute(&pool).await.unwrap();
    Some(Database::Postgres(pool))
}

fn new(text: &str, owner: &str, tags: &[&str]) -> Item {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let new = NewItem { text: text.into(), owner: Some(owner.into()), tags, ..NewItem::default() };
    new.into_item("ada", Timestamp::now()).unwrap()
}

async fn keeps_items_and_events(store: Store) {
    let mut made = Vec::new();
    for (text, owner, tags) in
        [("a", "eve", &["x", "y"][..]), ("b", "", &["x"]), ("c", "bob", &[]), ("d", "eve", &["y"])]
    {
        made.push(store.create(new(text, owner, tags), None).await.unwrap().0);
    }
    let texts = |items: Vec<Item>| items.into_iter().map(|item| item.text).collect::<String>();
    let listed = async |filter: Filter, limit| texts(store.items(&filter, limit).await.unwrap());
    let all = Filter::default();
    assert_eq!(listed(all.clone(), 9).await, "dcba");
    assert_eq!(listed(Filter { owner: Some("eve".into()), ..all.clone() }, 9).await, "da");
    assert_eq!(listed(Filter { owner: Some(String::new()), ..all.clone() }, 9).await, "b");
    assert_eq!(listed(Filter { tag: Some("x".into()), ..all.clone() }, 9).await, "ba");
    assert_eq!(listed(Filter { tag: Some("x".into()), owner: Some("eve".into()), ..all.clone() }, 9).await, "a");
    assert_eq!(listed(Filter { status: Some(Status::Done), ..all.clone() }, 9).await, "");
    // Pages.
    assert_eq!(listed(all.clone(), 2).await, "dc");
    assert_eq!(listed(Filter { before: Some(made[2].id), ..all.clone() }, 2).await, "ba");
    assert_eq!(store.item(made[0].id).await.unwrap().as_ref().unwrap().tags, ["x", "y"]);
    assert_eq!(store.item(Uuid::nil()).await.unwrap(), None);

    // Fields, tags, states.
    let at = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
    let change = |item: Item| {
        let patch = Patch { tags: Some(vec!["z".into()]), problem: Some(Some("p".into())), ..Patch::default() };
        patch.apply(Item { status: Status::Done, job_id: Some(Uuid::max()), impact: Some(3), ..item })
    };
    let changed = store.change(made[0].id, at, change).await.unwrap();
    let Changed::Is(changed) = changed else { panic!("{changed:?}") };
    assert_eq!((changed.version, changed.updated_at, changed.status), (2, Some(at), Status::Done));
    assert_eq!(store.item(made[0].id).await.unwrap().as_ref(), Some(&*changed));
    assert_eq!(listed(Filter { tag: Some("x".into()), ..all.clone() }, 9).await, "b");
    assert_eq!(listed(Filter { tag: Some("z".into()), status: Some(Status::Done), ..all.clone() }, 9).await, "a");
    // What changes nothing, is refused, or is about nothing, is not stored, and no event goes out.
    let same = store.change(made[1].id, at, Ok::<_, Infallible>).await.unwrap();
    assert!(matches!(same, Changed::Is(item) if item.version == 1));
    let refused = store.change(made[1].id, at, |_| Err("no")).await.unwrap();
    assert!(matches!(refused, Changed::Refused("no")));
    let missing = store.change(Uuid::nil(), at, Ok::<_, Infallible>).await.unwrap();
    assert!(matches!(missing, Changed::Missing));
    assert!(store.delete(made[1].id, at).await.unwrap());
    assert!(!store.delete(made[1].id, at).await.unwrap());
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.by_status, counts.total(), store.total().await.unwrap()), ([2, 0, 0, 0, 1], 3, 3));
    assert_eq!(counts.by_owner, [("eve".to_owned(), 2), ("bob".to_owned(), 1)]);

    let events = store.waiting(99).await.unwrap();
    let told: Vec<(i64, String, String, String)> = events
        .iter()
        .map(|event| {
            let body: Value = serde_json::from_str(&event.body).unwrap();
            assert_eq!(
                (body["event_id"].as_str().unwrap(), body["sequence"].as_i64().unwrap()),
                (&*event.id.to_string(), event.sequence)
            );
            let word = |key: &str| body[key].as_str().unwrap().to_owned();
            (event.sequence, word("action"), word("text"), word("status"))
        })
        .collect();
    let expected = [
        ("created", "a", "not-done"),
        ("created", "b", "not-done"),
        ("created", "c", "not-done"),
        ("created", "d", "not-done"),
        ("updated", "a", "done"),
        ("deleted", "b", "not-done"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .zip(1..)
        .map(|((action, text, status), n)| (n, (*action).to_owned(), (*text).to_owned(), (*status).to_owned()))
        .collect();
    assert_eq!(told, expected);
    assert_eq!(serde_json::to_value(Action::Deleted).unwrap(), "deleted");
    store.sent(4).await.unwrap();
    assert_eq!(store.backlog().await.unwrap(), 2);
}

#[tokio::test]
async fn sqlite_keeps_items_and_events() {
    let dir = tempfile::tempdir().unwrap();
    keeps_items_and_events(Store::new(sqlite(&dir.path().join("a.db")).await, WIDE)).await;
}

#[tokio::test]
async fn postgres_keeps_items_and_events() {
    let Some(database) = postgres("intake_items").await else { return };
    keeps_items_and_events(Store::new(database, WIDE)).await;
}

/// Limits hold, and what they refuse leaves nothing behind; the same key is the same item.
async fn is_bounded_and_takes_a_submission_once(database: Database) {
    let store = Store::new(database.clone(), Limits { items_max: 2, outbox_max: 4 });
    let key = || Some("key:1".to_owned());
    let (first, is_new) = store.create(new("a", "", &["t"]), key()).await.unwrap();
    assert!(is_new);
    let (again, is_new) = store.create(new("other", "", &[]), key()).await.unwrap();
    assert_eq!((again.id, again.text.as_str(), is_new), (first.id, "a", false));
    // Of another maker it is another key.
    let stranger = Item { created_by: "eve".into(), ..new("b", "", &[]) };
    assert!(store.create(stranger, key()).await.unwrap().1);
    let full = store.create(new("c", "", &["t"]), Some("key:2".into())).await.unwrap_err();
    assert!(matches!(full, Error::Full(2)) && full.to_string().contains("INTAKE_ITEMS_MAX"), "{full}");
    assert_eq!((store.total().await.unwrap(), store.backlog().await.unwrap()), (2, 2));
    let found = store.items(&Filter { tag: Some("t".into()), ..Filter::default() }, 9).await.unwrap();
    assert_eq!(found.len(), 1);
    // After a delete the key is free, and so is the place.
    store.delete(first.id, Timestamp::now()).await.unwrap();
    assert!(store.create(new("d", "", &[]), key()).await.unwrap().1);
    let late = store.delete(first.id, Timestamp::now()).await.unwrap();
    assert!(!late);
    let held = store.items(&Filter::default(), 9).await.unwrap();
    let full =
        store.change(held[0].id, Timestamp::now(), |item| Ok::<_, Infallible>(Item { impact: Some(1), ..item })).await;
    let full = full.unwrap_err();
    assert!(matches!(full, Error::OutboxFull(4)) && full.to_string().contains("INTAKE_OUTBOX_MAX"), "{full}");
    assert_eq!(store.item(held[0].id).await.unwrap().unwrap().impact, None);
    // Numbers of what was refused are used again: there are no gaps.
    store.sent(4).await.unwrap();
    store.delete(held[0].id, Timestamp::now()).await.unwrap();
    assert_eq!(store.waiting(9).await.unwrap().iter().map(|e| e.sequence).collect::<Vec<_>>(), [5]);
}

#[tokio::test]
async fn sqlite_is_bounded_and_takes_a_submission_once() {
    let dir = tempfile::tempdir().unwrap();
    is_bounded_and_takes_a_submission_once(sqlite(&dir.path().join("a.db")).await).await;
}

#[tokio::test]
async fn postgres_is_bounded_and_takes_a_submission_once() {
    let Some(database) = postgres("intake_bounds").await else { return };
    is_bounded_and_takes_a_submission_once(database).await;
}

/// Many writers at once: every change has a number of its own, without gaps, and none is lost.
async fn numbers_changes_without_gaps(database: Database) {
    let item = Store::new(database.clone(), WIDE).create(new("a", "", &[]), None).await.unwrap().0;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..8 {
        // As on several consoles.
        let store = Store::new(database.clone(), WIDE);
        writers.spawn(async move {
            for m in 0..10 {
                let change =
                    |item: Item| Ok::<_, Infallible>(Item { impact: Some(item.impact.unwrap_or(0) + 1), ..item });
                store.change(item.id, Timestamp::now(), change).await.unwrap();
                store.create(new(&format!("{n} {m}"), "", &["t"]), Some("key:same".into())).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let store = Store::new(database, WIDE);
    let found = store.item(item.id).await.unwrap().unwrap();
    assert_eq!((found.impact, found.version), (Some(80), 81));
    assert_eq!(store.total().await.unwrap(), 2, "one key, one item");
    let numbers: Vec<i64> = store.waiting(999).await.unwrap().iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=82).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_numbers_changes_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    numbers_changes_without_gaps(sqlite(&dir.path().join("a.db")).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_numbers_changes_without_gaps() {
    let Some(database) = postgres("intake_numbers").await else { return };
    numbers_changes_without_gaps(database).await;
}

/// Begins what happens while a job is submitted.
type Begin = Box<dyn FnOnce() -> tokio::task::JoinHandle<()> + Send>;

/// Hands out job ids by key, as the orchestrator does; what happens meanwhile is up to the test.
#[derive(Default)]
struct Jobs {
    submitted: Mutex<Vec<Value>>,
    cancelled: Mutex<BTreeSet<Uuid>>,
    meanwhile: Mutex<Option<Begin>>,
}

#[async_trait]
impl Submit for Jobs {
    async fn submit(&self, _: &Principal, body: Value) -> Result<Uuid, SubmitError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile().await.unwrap();
        }
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, body["idempotency_key"].as_str().unwrap().as_bytes());
        self.submitted.lock().unwrap().push(body);
        Ok(id)
    }
    async fn cancel(&self, _: &Principal, job: Uuid) {
        self.cancelled.lock().unwrap().insert(job);
    }
}

fn board(database: Database, jobs: Arc<Jobs>) -> Intake {
    let config = IntakeConfig { template: Template::parse(template::DEFAULT).unwrap(), limits: WIDE };
    Intake::new(Store::new(database, WIDE), config, jobs)
}

fn operator() -> Principal {
    Principal { name: "ada".into(), role: Role::Operator, scopes: Scopes::ALL }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_becomes_one_job_also_when_somebody_else_is_faster() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = Arc::new(Jobs::default());
    let intake = board(sqlite(&dir.path().join("a.db")).await, jobs.clone());
    let add = async |text: &str| {
        let new = NewItem { text: text.into(), ..NewItem::default() };
        intake.create(&operator(), new, None).await.unwrap()
    };
    // The ordinary way, and once more.
    let item = add("a").await;
    assert_eq!(intake.store().item(item.id).await.unwrap().as_ref(), Some(&item), "what is answered is what is read");
    let approved = intake.approve(&operator(), item.id, None).await.unwrap();
    assert_eq!((approved.status, approved.job_id.is_some()), (Status::Approved, true));
    assert_eq!(jobs.submitted.lock().unwrap()[0]["args"]["text"], "a");
    let twice = intake.approve(&operator(), item.id, None).await.unwrap_err();
    assert!(twice.to_string().contains("approved"), "{twice}");
    // Two at the same moment: one job, one approval.
    let item = add("b").await;
    let other = intake.clone();
    let race = move || tokio::spawn(async move { drop(other.approve(&operator(), item.id, None).await.unwrap()) });
    *jobs.meanwhile.lock().unwrap() = Some(Box::new(race));
    let both = intake.approve(&operator(), item.id, None).await.unwrap();
    assert_eq!((both.status, both.version), (Status::Approved, 2));
    assert!(jobs.cancelled.lock().unwrap().is_empty());
    // It is rejected in between: its job is cancelled.
    let item = add("c").await;
    let other = intake.clone();
    let race = move || tokio::spawn(async move { drop(other.step(item.id, None, Step::Reject).await.unwrap()) });
    *jobs.meanwhile.lock().unwrap() = Some(Box::new(race));
    let refused = intake.approve(&operator(), item.id, None).await.unwrap_err();
    assert!(refused.to_string().contains("version 2"), "{refused}");
    assert_eq!(jobs.cancelled.lock().unwrap().len(), 1);
    assert_eq!(intake.store().item(item.id).await.unwrap().unwrap().status, Status::Rejected);
}

/// What the stream has, in its order, with the message ids.
async fn stored(nats: &Nats) -> Vec<(String, Value)> {
    let stream = nats.jetstream().get_stream("events").await.unwrap();
    let count = stream.cached_info().state.messages;
    let config = consumer::pull::OrderedConfig { deliver_policy: consumer::DeliverPolicy::All, ..Default::default() };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut found = Vec::new();
    for _ in 0..count {
        let message = messages.next().await.unwrap().unwrap();
        let id = message.headers.as_ref().unwrap().get(async_nats::header::NATS_MESSAGE_ID).unwrap().to_string();
        found.push((id, serde_json::from_slice(&message.payload).unwrap()));
    }
    found
}

async fn make_stream(nats: &Nats) {
    let config = stream::Config { name: "events".into(), subjects: vec!["todos.events".into()], ..Default::default() };
    nats.jetstream().get_or_create_stream(config).await.unwrap();
}

async fn goes_out_when_nats_is_there_and_once(database: Database) {
    let Some(()) = require("nats-server") else { return };
    let mut server = NatsServer::start(NatsOptions::default()).await;
    let config = NatsConfig::for_url(&server.url()).unwrap();
    let nats = Nats::connect(&config, "console").await.unwrap();
    assert!(nats.wait_connected(SOON).await);
    make_stream(&nats).await;
    let intake = board(database.clone(), Arc::new(Jobs::default()));
    let stop = CancellationToken::new();
    let running = tokio::spawn(outbox::run(intake.clone(), nats.clone(), stop.clone()));
    let drained = async |intake: &Intake| {
        eventually(SOON, "no event waits", || async {
            match intake.store().backlog().await.unwrap() {
                0 => Ok(()),
                n => Err(format!("{n} wait")),
            }
        })
        .await;
    };
    let add = async |text: &str| {
        let new = NewItem { text: text.into(), ..NewItem::default() };
        intake.create(&operator(), new, None).await.unwrap()
    };
    let first = add("with NATS").await;
    drained(&intake).await;

    // NATS goes away; changes, a delete among them, are taken and wait.
    server.kill9();
    let second = add("without NATS").await;
    intake.put(first.id, Some("changed".into()), Some(true)).await.unwrap();
    intake.delete(second.id).await.unwrap();
    assert_eq!(intake.store().backlog().await.unwrap(), 3);
    // The console goes away too, after it sent the first of them and before it knew: the copy has the same id.
    stop.cancel();
    running.await.unwrap();
    server.restart().await;
    assert!(nats.wait_connected(SOON).await);
    let waiting = intake.store().waiting(1).await.unwrap().remove(0);
    let id = waiting.message_id();
    publish::publish(&nats, "todos.events", id, HeaderMap::new(), waiting.body.into()).await.unwrap();
    let again = board(database, Arc::new(Jobs::default()));
    let stop = CancellationToken::new();
    tokio::spawn(outbox::run(again.clone(), nats.clone(), stop.clone()));
    drained(&again).await;

    // A stream that is gone holds events up until it is there again.
    nats.jetstream().delete_stream("events").await.unwrap();
    let mut attempts = nats.client().subscribe("todos.events").await.unwrap();
    nats.client().flush().await.unwrap();
    again.delete(first.id).await.unwrap();
    for _ in 0..2 {
        // It was sent, and no stream took it: it is sent again.
        tokio::time::timeout(SOON, attempts.next()).await.unwrap().unwrap();
    }
    assert_eq!(again.store().backlog().await.unwrap(), 1);
    let told: Vec<Value> = {
        make_stream(&nats).await;
        drained(&again).await;
        stored(&nats).await.into_iter().map(|(_, body)| body).collect()
    };
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["action"], &told[0]["sequence"], &told[0]["status"]),
        (&json!("deleted"), &json!(5), &json!("done"))
    );
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_sqlite_go_out_when_nats_is_there_and_once() {
    let dir = tempfile::tempdir().unwrap();
    goes_out_when_nats_is_there_and_once(sqlite(&dir.path().join("a.db")).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_postgres_go_out_when_nats_is_there_and_once() {
    let Some(database) = postgres("intake_outbox").await else { return };
    goes_out_when_nats_is_there_and_once(database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consoles_on_one_database_send_every_change_in_order() {
    let Some(()) = require("nats-server") else { return };
    let Some(database) = postgres("intake_two").await else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let stop = CancellationToken::new();
    let mut boards = Vec::new();
    let config = NatsConfig::for_url(&server.url()).unwrap();
    let reader = Nats::connect(&config, "reader").await.unwrap();
    assert!(reader.wait_connected(SOON).await);
    make_stream(&reader).await;
    for _ in 0..2 {
        let nats = Nats::connect(&config, "console").await.unwrap();
        let intake = board(database.clone(), Arc::new(Jobs::default()));
        tokio::spawn(outbox::run(intake.clone(), nats, stop.clone()));
        boards.push(intake);
    }
    for n in 0..60 {
        let new = NewItem { text: format!("{n}"), ..NewItem::default() };
        boards[n % 2].create(&operator(), new, None).await.unwrap();
    }
    eventually(SOON, "no event waits", || async {
        match boards[0].store().backlog().await.unwrap() {
            0 => Ok(()),
            n => Err(format!("{n} wait")),
        }
    })
    .await;
    let found = stored(&reader).await;
    let numbers: Vec<i64> = found.iter().map(|(_, body)| body["sequence"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    let ids: BTreeSet<&String> = found.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 60);
    stop.cancel();
}
