//! Heartbeats, many at once.

use super::text::{clean, maybe_clean};
use crate::model::Agent;
use crate::store::columns::micros;
use crate::store::fault::Fault;
use agentforge_message_id::AgentId;
use sqlx::postgres::PgPool;
use sqlx::query;
use std::collections::BTreeMap;

/// A beat that comes after a later one changes nothing; one that seems a minute late was not: our clock was set back. One row an agent, in order of id: a statement
/// may not touch a row twice, and replicas must not dead-lock.
pub(super) async fn upsert(pool: &PgPool, agents: &[Agent]) -> Result<(), Fault> {
    let mut latest: BTreeMap<&AgentId, &Agent> = BTreeMap::new();
    for agent in agents {
        let kept = latest.entry(&agent.id).or_insert(agent);
        if kept.last_seen_at <= agent.last_seen_at {
            *kept = agent;
        }
    }
    let agents: Vec<&Agent> = latest.into_values().collect();
    let json = |list: &[String]| serde_json::to_string(list).expect("strings are always JSON");
    query(
        "INSERT INTO agents (id, mission, site, host, version, tools, queues, capacity, inflight, interval_us, has_left, \
           first_seen_at, last_seen_at, certificate_expires_at, clock_skew_us, unconfined) \
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
           $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[], $12::bigint[], $13::bigint[], $14::bigint[], \
           $15::bigint[], $16::text[]) \
         ON CONFLICT (id) DO UPDATE SET mission = excluded.mission, site = excluded.site, host = excluded.host, \
           version = excluded.version, tools = excluded.tools, queues = excluded.queues, \
           capacity = excluded.capacity, inflight = excluded.inflight, interval_us = excluded.interval_us, \
           has_left = excluded.has_left, last_seen_at = excluded.last_seen_at, \
           certificate_expires_at = excluded.certificate_expires_at, clock_skew_us = excluded.clock_skew_us, \
           unconfined = excluded.unconfined \
         WHERE excluded.last_seen_at >= agents.last_seen_at \
           OR excluded.last_seen_at < agents.last_seen_at - 60000000",
    )
    .bind(agents.iter().map(|a| a.id.as_str()).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.mission.as_str()).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.site.as_str()).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| clean(&a.host)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| clean(&a.version)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| json(&a.tools)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| json(&a.queues)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| i64::from(a.capacity)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| i64::from(a.inflight)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| micros(a.interval)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.left).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.first_seen_at.0).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.last_seen_at.0).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.certificate_expires_at.map(|m| m.0)).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| a.clock_skew_us).collect::<Vec<_>>())
    .bind(agents.iter().map(|a| maybe_clean(a.unconfined.as_deref())).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}
