//! Large outputs and equal operations.

use crate::bench::{Bench, failure_of, output_of};
use crate::tools::tools_file;
use agentforge_harness::{NatsOptions, require};
use agentforge_jetstream::subjects;
use agentforge_proto::bus::{ErrorClass, Outcome};
use agentforge_proto::operation::{Kept, operation_key};
use agentforge_proto::time::Micros;
use tokio::io::AsyncReadExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_output_goes_to_the_object_store_and_its_reference_is_true() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let worker = bench.worker(&[("OUTPUT_INLINE_MAX", "1KiB")]).await;
    let args = format!(r#"{{"text":"{}"}}"#, "x".repeat(300_000));
    let finished = bench.run(&bench.job("echo", &args)).await;
    let Outcome::Succeeded(success) = finished.outcome else { panic!("{:?}", finished.outcome) };
    assert!(success.output.is_none());
    let reference = success.output_ref.unwrap();
    assert_eq!(reference.size, args.len() as u64);
    let store = bench.nats.jetstream().get_object_store(&reference.bucket).await.unwrap();
    let mut bytes = Vec::new();
    store.get(&reference.name).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, args.as_bytes());
    use sha2::Digest;
    assert_eq!(reference.sha256, hex::encode(sha2::Sha256::digest(&bytes)));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_operation_is_answered_with_the_earlier_success_also_by_another_worker() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let reuse = |args: &str| {
        let mut job = bench.job("sleep", args);
        job.reuse = true;
        job
    };
    let worker = bench.worker(&[]).await;
    let first = reuse(r#"{"ms":31}"#);
    let Outcome::Succeeded(success) = bench.run(&first).await.outcome else { panic!() };
    let answer = success.output.as_ref().unwrap().get().to_owned();
    worker.drain().await;
    // As the orchestrator does.
    let key = operation_key(&first.tool, &first.args, None).unwrap();
    let kept = serde_json::to_vec(&Kept::new(first.job, &success, Micros::now())).unwrap();
    bench.send(&subjects::operation(&bench.mission, &key), "kept", kept).await;

    let worker = bench.worker(&[]).await;
    let again = bench.run(&reuse(r#" { "ms" : 31 } "#)).await;
    assert_eq!(output_of(&again), answer);
    let Outcome::Succeeded(success) = again.outcome else { panic!() };
    assert_eq!(success.idempotent_replay, Some(first.job));

    for different in [bench.job("sleep", r#"{"ms":31}"#), reuse(r#"{"ms":32}"#)] {
        let Outcome::Succeeded(success) = bench.run(&different).await.outcome else { panic!() };
        assert_eq!(success.idempotent_replay, None, "another operation, or one that did not ask");
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_fits_the_messages_of_a_small_server_and_what_never_fits_ends_the_attempt() {
    let Some(()) = require("nats-server") else { return };
    let small = NatsOptions::default().extra("max_payload: 100KB");
    let bench = Bench::with(small, &[("OUTPUTS_MAX_BYTES", "1MiB")]).await;
    let prints = |bytes: usize| format!("printf '\"'; head -c {bytes} /dev/zero | tr '\\0' x; printf '\"'");
    let (fits, never) = (prints(300_000), prints(2_000_000));
    let file = tools_file(&[("fits", &fits, ""), ("never", &never, "")]);
    let worker = bench.worker(&[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]).await;
    let Outcome::Succeeded(success) = bench.run(&bench.job("fits", "{}")).await.outcome else { panic!() };
    let reference = success.output_ref.unwrap();
    let store = bench.nats.jetstream().get_object_store(&reference.bucket).await.unwrap();
    let mut bytes = Vec::new();
    store.get(&reference.name).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!((bytes.len(), reference.size), (300_002, 300_002));

    let failure = failure_of(&bench.run(&bench.job("never", "{}")).await);
    assert_eq!(failure.class, ErrorClass::Runtime);
    assert!(failure.message.contains("2000002") && failure.message.contains("OUTPUTS_MAX_BYTES"), "{failure:?}");
    bench.queue_is_empty().await;
    worker.drain().await;
}
