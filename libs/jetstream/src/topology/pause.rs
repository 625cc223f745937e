//! Queues that are paused: the server keeps what is in their stream, and delivers none of it.
//!
//! A pause is part of the consumer's configuration at the server, so it holds while no orchestrator runs, across
//! restarts of the server, and for every worker. Ours end at one moment that is far away, so that those of an
//! operator are known, and left alone.

use super::plan::Plan;
use crate::api::{self, ApiError};
use crate::subjects::{STREAM_JOBS, worker_durable};
use agentforge_message_id::{Mission, Queue};
use async_nats::datetime::{DateTime, now, parse_rfc3339};
use async_nats::jetstream::{Context, ErrorCode, consumer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The end of a pause that somebody is to end. Farther than any server runs, and near enough for its timers, which end
/// after 292 years.
const END: &str = "2199-12-31T00:00:00Z";

fn end() -> DateTime {
    parse_rfc3339(END).expect("it is a moment as RFC 3339 has them")
}

/// Has the consumers of these queues deliver nothing; a consumer that is made is paused from its first moment.
pub fn pause(plan: &mut Plan, mission: &Mission, queues: &BTreeSet<Queue>) {
    let paused: BTreeSet<String> = queues.iter().map(|queue| worker_durable(mission, queue)).collect();
    for planned in plan.consumers.iter_mut().filter(|planned| planned.stream == STREAM_JOBS) {
        if planned.config.durable_name.as_ref().is_some_and(|name| paused.contains(name)) {
            planned.config.pause_until = Some(end());
        }
    }
}

/// What a consumer's pause is compared with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// As planned.
    Fits,
    /// It delivers, or will before its time.
    Delivers,
    /// It is paused by us, and is not to be.
    IsPaused,
}

pub(super) fn standing(planned: &consumer::Config, found: &consumer::Config) -> Standing {
    match (planned.pause_until, found.pause_until) {
        (Some(wanted), Some(found)) if found >= wanted => Standing::Fits,
        (Some(_), _) => Standing::Delivers,
        (None, Some(found)) if found == end() && found > now() => Standing::IsPaused,
        (None, _) => Standing::Fits,
    }
}

/// Has the consumer of a queue deliver nothing, or deliver again. One that is missing is made as it is planned.
pub(super) async fn request(js: &Context, name: &str, is_paused: bool) -> Result<(), ApiError> {
    let body = if is_paused { json!({ "pause_until": END }) } else { json!({}) };
    match api::call::<Value>(js, format!("CONSUMER.PAUSE.{STREAM_JOBS}.{name}"), &body).await {
        Err(e) if e.is(ErrorCode::CONSUMER_NOT_FOUND) => Ok(()),
        answered => answered.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TopologyConfig, plan};
    use super::*;

    #[test]
    fn only_the_consumers_of_paused_queues_are_paused_and_an_operators_pause_is_left_alone() {
        let mission = Mission::new("dev").unwrap();
        let bulk = Queue::new("bulk").unwrap();
        let mut plan = plan(&TopologyConfig::default(), &mission, std::slice::from_ref(&bulk));
        pause(&mut plan, &mission, &[bulk].into());
        let paused: Vec<_> = plan.consumers.iter().filter(|c| c.config.pause_until.is_some()).collect();
        assert_eq!(paused.len(), 1);
        assert_eq!(paused[0].config.durable_name.as_deref(), Some("worker-dev_bulk"));
        let of = |pause_until| consumer::Config { pause_until, ..Default::default() };
        let hour = now() + std::time::Duration::from_secs(3600);
        for (planned, found, standing_is) in [
            (None, None, Standing::Fits),
            (None, Some(hour), Standing::Fits),
            (None, Some(end()), Standing::IsPaused),
            (Some(end()), Some(end()), Standing::Fits),
            (Some(end()), None, Standing::Delivers),
            (Some(end()), Some(hour), Standing::Delivers),
        ] {
            assert_eq!(standing(&of(planned), &of(found)), standing_is, "{planned:?} {found:?}");
        }
    }
}
