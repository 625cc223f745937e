//! apalis: jobs in Redis. Plays the roles that ../README.md describes: setup, submit and work.

use apalis::prelude::*;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Stdin};
use tokio::sync::mpsc;

/// Jobs that run at once, and jobs fetched, pushed and acknowledged in one call.
const CONCURRENCY: usize = 256;
const BATCH: usize = 500;
/// Tasks that push side by side.
const STREAMS: usize = 2;

type Failure = Box<dyn Error + Send + Sync>;
type Storage = RedisStorage<Args, ConnectionManager>;

/// Args of a job, with the moment in which they were made.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Args {
    n: usize,
    sent: f64,
    pad: String,
}

/// What the command line asks for.
struct Call {
    count: usize,
    bytes: usize,
    rate: u32,
}

impl Call {
    fn args(&self, n: usize) -> Args {
        let empty = r#"{"n":10000,"sent":1764526000.1234567,"pad":""}"#.len();
        Args { n, sent: now(), pad: "x".repeat(self.bytes.saturating_sub(empty)) }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

async fn storage() -> Result<Storage, Failure> {
    let connection = apalis_redis::connect(std::env::var("PEER_URL")?).await?;
    Ok(RedisStorage::new(connection).with_config(Config::default().queue("jobs").batch_size(BATCH)))
}

/// Reports that everything is connected, and waits for the word to begin.
async fn ready() -> Result<BufReader<Stdin>, Failure> {
    let mut input = BufReader::new(tokio::io::stdin());
    println!("ready");
    input.read_line(&mut String::new()).await?;
    Ok(input)
}

/// Reports the result, and waits until it has been read.
async fn finish(mut input: BufReader<Stdin>, result: serde_json::Value) -> Result<(), Failure> {
    println!("{result}");
    input.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn submit(call: Call) -> Result<(), Failure> {
    let storage = storage().await?;
    let input = ready().await?;
    let call = Arc::new(call);
    let begun = now();
    let mut tasks = tokio::task::JoinSet::new();
    if call.rate > 0 {
        let start = tokio::time::Instant::now();
        for n in 0..call.count {
            tokio::time::sleep_until(start + Duration::from_secs_f64(n as f64 / f64::from(call.rate))).await;
            let (mut storage, args) = (storage.clone(), call.args(n));
            tasks.spawn(async move { storage.push(args).await.map_err(Failure::from) });
        }
    } else {
        for stream in 0..STREAMS {
            let (mut storage, call) = (storage.clone(), call.clone());
            tasks.spawn(async move {
                for first in (stream * BATCH..call.count).step_by(STREAMS * BATCH) {
                    let jobs = (first..call.count.min(first + BATCH)).map(|n| call.args(n)).collect();
                    storage.push_bulk(jobs).await?;
                }
                Ok(())
            });
        }
    }
    while let Some(pushed) = tasks.join_next().await {
        pushed??;
    }
    finish(input, serde_json::json!({ "begun": begun, "ended": now() })).await
}

async fn work(call: Call) -> Result<(), Failure> {
    let (completed, mut completions) = mpsc::unbounded_channel();
    let worker = WorkerBuilder::new(format!("peer-{}", std::process::id()))
        .backend(storage().await?)
        .concurrency(CONCURRENCY)
        .build(move |args: Args| {
            let completed = completed.clone();
            // It reports no completions, so jobs count when they have run.
            async move {
                let _ = completed.send((now() - args.sent) * 1e3);
                Ok::<_, BoxDynError>(())
            }
        });
    let input = ready().await?;
    let begun = now();
    let mut run = tokio::spawn(worker.run());
    println!("working");
    let mut latencies_ms = Vec::with_capacity(call.count);
    while latencies_ms.len() < call.count {
        tokio::select! {
            Some(latency_ms) = completions.recv() => latencies_ms.push(latency_ms),
            ended = &mut run => return Err(format!("the worker ended: {ended:?}").into()),
        }
    }
    let result = serde_json::json!({ "begun": begun, "ended": now(), "latencies_ms": latencies_ms });
    finish(input, result).await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, count, bytes, rate] = words.as_slice() else {
        return Err("wanted: ROLE COUNT BYTES RATE".into());
    };
    let call = Call { count: count.parse()?, bytes: bytes.parse()?, rate: rate.parse()? };
    match role.as_str() {
        "setup" => println!("ready"),
        "submit" => submit(call).await?,
        "work" => work(call).await?,
        _ => return Err(format!("there is no role {role}").into()),
    }
    // The worker has no end of its own.
    std::process::exit(0)
}
