//! The floor: the same messages, posted with the same HTTP client, acknowledged, and nothing else.

use crate::process::failed;
use agentforge_egress::{Connection, Dialer, Policy, Target};
use agentforge_jetstream::{Nats, NatsConfig, PullOptions, Puller};
use agentforge_terminal::{Failure, Result};
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};

/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The bare way, on threads of its own, as many as the broadcaster has.
pub async fn measure(nats_url: String, url: String, inflight: usize, count: u64) -> Result<f64> {
    let run = move || -> Result<f64> {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(threads).build();
        runtime.map_err(|e| failed("floor", &e))?.block_on(async move {
            let work = tokio::spawn(forward(nats_url, url, inflight, count));
            work.await.map_err(|e| failed("floor", &e))?
        })
    };
    tokio::task::spawn_blocking(run).await.map_err(|e| failed("floor", &e))?
}

async fn forward(nats_url: String, url: String, inflight: usize, count: u64) -> Result<f64> {
    let config = NatsConfig::for_url(&nats_url).map_err(|e| failed("floor", &e))?;
    let nats = Nats::connect(&config, "floor").await.map_err(|e| failed("floor", &e))?;
    let dialer = Dialer::new(Policy::from_entries(["127.0.0.1"]).0, None).map_err(|e| failed("floor", &e))?;
    let url = url.parse().map_err(|_| Failure::new("floor: no URL"))?;
    let target = Arc::new(Target::new(&url).map_err(|e| failed("floor", &e))?);
    let mut connections = Vec::new();
    for _ in 0..inflight {
        connections.push(dialer.connect(&target).await.map_err(|e| failed("floor", &e))?);
    }
    let puller = Puller::start(nats.clone(), "events", "floor", PullOptions::new("floor", 2 * inflight));
    puller.grant(2 * inflight);
    let (slots, puller) = (puller.slots(), Arc::new(Mutex::new(puller)));
    let (begun, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let lanes: Vec<_> = connections
        .into_iter()
        .map(|connection| {
            tokio::spawn(lane(puller.clone(), slots.clone(), target.clone(), connection, done.clone(), count))
        })
        .collect();
    for lane in lanes {
        timeout(STALL_MAX, lane)
            .await
            .map_err(|_| Failure::new("floor: stands still"))?
            .map_err(|e| failed("floor", &e))??;
    }
    let took = begun.elapsed();
    let _ = nats.drain().await;
    Ok(count as f64 / took.as_secs_f64())
}

async fn lane(
    puller: Arc<Mutex<Puller>>,
    slots: agentforge_jetstream::Slots,
    target: Arc<Target>,
    mut connection: Connection,
    done: Arc<AtomicU64>,
    count: u64,
) -> Result {
    loop {
        let delivery = {
            let mut puller = puller.lock().await;
            // Taken under the lock: no task waits for a message that will not come.
            if done.fetch_add(1, Ordering::Relaxed) >= count {
                return Ok(());
            }
            puller.next().await
        };
        let Some(delivery) = delivery else { return Err(Failure::new("floor: the consumer ended")) };
        let mut request = Request::new(Full::new(delivery.payload().clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target.path().clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, target.host_header().clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(id) = delivery.header("Nats-Msg-Id").and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("webhook-id", id);
        }
        connection.send(request, 1024).await.map_err(|e| failed("floor: post", &e))?;
        delivery.ack().await.map_err(|e| failed("floor: ack", &e))?;
        slots.grant(1);
    }
}
