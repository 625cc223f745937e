//! How the number of workers goes up and down: a model of KEDA and its autoscaler with the shipped figures, second by second
//! for six hours. It shows what no cluster is needed for: that triggers do not fight each other.

use crate::manifests::{Object, containers, find, list, overlay};
use agentforge_harness::require;
use std::collections::VecDeque;

/// The figures of a manifest.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Jobs waiting and running per worker, and minutes until drained per worker.
    lag: f64,
    drain: f64,
    /// Fewer that wait have no estimate.
    floor: usize,
    concurrency: usize,
    least: i64,
    most: i64,
    grace: u64,
    up_window: u64,
    down_window: u64,
}

/// Jobs that come.
#[derive(Clone, Copy)]
struct Load {
    seconds: u64,
    /// Of all slots at the most workers.
    share: f64,
}

#[derive(Debug)]
struct Played {
    changes: usize,
    handed_back: usize,
    done: usize,
    /// Beyond its own run, seconds.
    longest_wait: u64,
}

struct Worker {
    ready: u64,
    ends: Option<u64>,
    /// When each was submitted, and when it is done.
    jobs: Vec<(u64, u64)>,
}

const HOURS: u64 = 6;
/// Of the autoscaler.
const SYNC: u64 = 15;
const POLL: u64 = 5;
const START: u64 = 10;

fn play(figures: Figures, load: Load) -> Played {
    let mut chance = 12_345_u64;
    let mut random = move || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) as f64 / (1_u64 << 31) as f64
    };
    let rate = figures.most as f64 * figures.concurrency as f64 * load.share / load.seconds as f64;
    let mut played = Played { changes: 0, handed_back: 0, done: 0, longest_wait: 0 };
    let mut waiting: VecDeque<u64> = VecDeque::new();
    let mut workers: Vec<Worker> =
        (0..figures.least).map(|_| Worker { ready: 0, ends: None, jobs: Vec::new() }).collect();
    let (mut next, mut lag, mut estimate) = (0.0_f64, 0.0, 0.0);
    let mut depths: VecDeque<(u64, usize)> = VecDeque::new();
    let mut wanted: VecDeque<(u64, i64)> = VecDeque::new();
    for now in 0..HOURS * 3600 {
        while next <= now as f64 {
            waiting.push_back(now);
            next += -(1.0 - random()).ln() / rate;
        }
        for worker in &mut workers {
            let done = |job: &(u64, u64)| job.1 <= now;
            for (submitted, _) in worker.jobs.iter().filter(|job| done(job)) {
                played.done += 1;
                played.longest_wait = played.longest_wait.max(now - submitted - load.seconds.min(now - submitted));
            }
            worker.jobs.retain(|job| !done(job));
        }
        workers.retain_mut(|worker| {
            let Some(ends) = worker.ends else { return true };
            if !worker.jobs.is_empty() && now - ends >= figures.grace {
                played.handed_back += worker.jobs.len();
                worker.jobs.drain(..).for_each(|(submitted, _)| waiting.push_front(submitted));
            }
            !worker.jobs.is_empty()
        });
        for worker in workers.iter_mut().filter(|worker| worker.ends.is_none() && worker.ready <= now) {
            while worker.jobs.len() < figures.concurrency {
                let Some(submitted) = waiting.pop_front() else { break };
                worker.jobs.push((submitted, now + load.seconds));
            }
        }
        if now % SYNC == 0 {
            depths.push_back((now, waiting.len()));
            depths.retain(|(at, _)| at + 600 > now);
        }
        if now % POLL == 0 {
            let running: usize = workers.iter().map(|worker| worker.jobs.len()).sum();
            lag = (waiting.len() + running) as f64;
            let falls = -slope(&depths);
            estimate = match waiting.len() {
                few if few <= figures.floor => 0.0,
                _ if falls <= 0.0 => 60.0,
                many => (many as f64 / falls / 60.0).min(60.0),
            };
        }
        if now % SYNC == 0 {
            let current = workers.iter().filter(|worker| worker.ends.is_none()).count() as i64;
            let by = |total: f64, threshold: f64| {
                let is_near = current > 0 && (total / current as f64 / threshold - 1.0).abs() <= 0.1;
                if is_near { current } else { (total / threshold).ceil() as i64 }
            };
            let desired = by(lag, figures.lag).max(by(estimate, figures.drain)).clamp(figures.least, figures.most);
            wanted.push_back((now, desired));
            wanted.retain(|(at, _)| at + 300 > now);
            let within = |window: u64| wanted.iter().filter(move |(at, _)| at + window > now).map(|(_, n)| *n);
            let up = within(figures.up_window).min().unwrap_or(desired);
            let down = within(figures.down_window).max().unwrap_or(desired);
            // At most 200 % more in a period.
            let new = if current < up { up.min(current * 3) } else { current.min(down) };
            played.changes += usize::from(new != current);
            (current..new).for_each(|_| workers.push(Worker { ready: now + START, ends: None, jobs: Vec::new() }));
            // The youngest go first.
            let mut active: Vec<&mut Worker> = workers.iter_mut().filter(|worker| worker.ends.is_none()).collect();
            active.sort_by_key(|worker| std::cmp::Reverse(worker.ready));
            active.into_iter().take((current - new).max(0) as usize).for_each(|worker| worker.ends = Some(now));
        }
    }
    played
}

/// Per second, by least squares, as `deriv` has it.
fn slope(points: &VecDeque<(u64, usize)>) -> f64 {
    let n = points.len() as f64;
    let mean = |value: fn(&(u64, usize)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (at, depth) = (mean(|p| p.0 as f64), mean(|p| p.1 as f64));
    let spread: f64 = points.iter().map(|p| (p.0 as f64 - at).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 as f64 - at) * (p.1 as f64 - depth)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

/// What an overlay ships.
fn shipped(objects: &[Object]) -> Figures {
    let scaled = find(objects, "ScaledObject", "worker");
    let worker = find(objects, "Deployment", "worker");
    let setting = |name: &str| {
        let variables = list(&containers(worker)[0]["env"]);
        variables
            .iter()
            .find(|v| v["name"] == name)
            .and_then(|v| v["value"].as_str())
            .unwrap_or_else(|| panic!("{name}"))
    };
    let triggers = scaled.list("/spec/triggers");
    let number = |text: &serde_json::Value| text.as_str().unwrap().parse::<f64>().unwrap();
    let query = triggers[1]["metadata"]["query"].as_str().unwrap();
    let floor = query.split("jetstream_backlog > ").nth(1).unwrap().split(')').next().unwrap();
    let behaviour = scaled.at("/spec/advanced/horizontalPodAutoscalerConfig/behavior");
    let grace = setting("SHUTDOWN_GRACE").strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let pod = worker.at("/spec/template/spec/terminationGracePeriodSeconds").as_u64().unwrap();
    assert!(pod > grace, "a pod has {pod} s, its worker wants {grace} s");
    assert_eq!(scaled.text("/spec/fallback/behavior"), "currentReplicasIfHigher");
    Figures {
        lag: number(&triggers[0]["metadata"]["lagThreshold"]),
        drain: number(&triggers[1]["metadata"]["threshold"]),
        floor: floor.parse().unwrap(),
        concurrency: setting("WORKER_CONCURRENCY").parse().unwrap(),
        least: scaled.at("/spec/minReplicaCount").as_i64().unwrap(),
        most: scaled.at("/spec/maxReplicaCount").as_i64().unwrap(),
        grace,
        up_window: behaviour["scaleUp"]["stabilizationWindowSeconds"].as_u64().unwrap(),
        down_window: behaviour["scaleDown"]["stabilizationWindowSeconds"].as_u64().unwrap(),
    }
}

#[test]
fn triggers_do_not_fight_and_no_job_is_handed_back_for_scaling() {
    let Some(()) = require("kubectl") else { return };
    for name in ["staging", "production"] {
        // At no workers at all there is nothing to compare with: KEDA itself starts the first.
        let figures = Figures { least: 1, ..shipped(&overlay(name)) };
        assert!(figures.lag <= 0.8 * figures.concurrency as f64, "{name}: it would end workers that are busy");
        for (load, changes) in [
            (Load { seconds: 300, share: 0.6 }, 120),
            (Load { seconds: 300, share: 0.3 }, 150),
            (Load { seconds: 300, share: 0.9 }, 120),
            (Load { seconds: 30, share: 0.6 }, 200),
            (Load { seconds: 2, share: 0.6 }, 200),
        ] {
            let played = play(figures, load);
            println!("{name}: {} s at {}: {played:?}", load.seconds, load.share);
            assert!(played.changes <= changes, "{name}: {played:?}");
            assert!(played.handed_back == 0, "{name}: {played:?}");
            assert!(played.longest_wait <= 300 && played.done > 0, "{name}: {played:?}");
        }
    }
}

/// The model itself: with the figures of before, it shows what was wrong with them.
#[test]
fn a_threshold_above_the_slots_flaps() {
    let Some(()) = require("kubectl") else { return };
    let shipped = shipped(&overlay("production"));
    let before = Figures { lag: 10.0, floor: 0, grace: 25, ..shipped };
    let (was, is) = (play(before, Load { seconds: 300, share: 0.6 }), play(shipped, Load { seconds: 300, share: 0.6 }));
    println!("before: {was:?}\nshipped: {is:?}");
    assert!(was.changes > 2 * is.changes && was.handed_back > 500 && was.longest_wait > 600, "{was:?}");
}
