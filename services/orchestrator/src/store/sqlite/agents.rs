//! Heartbeats, many at once.

use super::connection::Writer;
use super::lite::Bind as _;
use super::sql::Batch;
use crate::model::Agent;
use crate::store::columns::micros;
use crate::store::fault::Fault;
use sqlx::Connection as _;
use std::sync::LazyLock;

/// A beat that comes after a later one changes nothing. One that seems a minute late was not late: our clock was set
/// back, and what was noted before would count as the last word until it is caught up.
static UPSERT: LazyLock<Batch> = LazyLock::new(|| {
    let names = [
        "id",
        "mission",
        "site",
        "host",
        "version",
        "tools",
        "queues",
        "capacity",
        "inflight",
        "interval_us",
        "has_left",
        "first_seen_at",
        "last_seen_at",
        "certificate_expires_at",
        "clock_skew_us",
        "unconfined",
    ];
    Batch::insert(
        "agents",
        &names,
        "ON CONFLICT (id) DO UPDATE SET mission = excluded.mission, site = excluded.site, host = excluded.host, \
         version = excluded.version, tools = excluded.tools, queues = excluded.queues, capacity = excluded.capacity, \
         inflight = excluded.inflight, interval_us = excluded.interval_us, has_left = excluded.has_left, \
         last_seen_at = excluded.last_seen_at, certificate_expires_at = excluded.certificate_expires_at, \
         clock_skew_us = excluded.clock_skew_us, unconfined = excluded.unconfined \
         WHERE excluded.last_seen_at >= agents.last_seen_at \
           OR excluded.last_seen_at < agents.last_seen_at - 60000000",
    )
});

pub(super) async fn upsert(w: &mut Writer, agents: &[Agent]) -> Result<(), Fault> {
    let json = |list: &[String]| serde_json::to_string(list).expect("strings are always JSON");
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    UPSERT
        .execute(&mut tx, agents, |a, agent| {
            a.text(agent.id.as_str()).text(agent.mission.as_str()).text(agent.site.as_str());
            a.text(&*agent.host).text(&*agent.version).push(json(&agent.tools)).push(json(&agent.queues));
            a.push(agent.capacity).push(agent.inflight).push(micros(agent.interval)).push(agent.left);
            a.push(agent.first_seen_at.0).push(agent.last_seen_at.0).push(agent.certificate_expires_at.map(|m| m.0));
            a.push(agent.clock_skew_us).text(agent.unconfined.as_deref());
        })
        .await?;
    Ok(tx.commit().await?)
}
