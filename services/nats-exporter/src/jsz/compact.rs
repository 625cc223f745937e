//! The compact family: one row for a stream and for a consumer, from its leader, with few labels.
//!
//! Only a leader knows how much is pending; a follower's figures can be hours old. A sum over the family
//! therefore counts each consumer once, in a cluster of any size.

use super::{
    detail::{Account, Head, Server, StreamDetail, age, leadership},
    leaders::{Claimed, Claims},
    plan::Plan,
    wire::Consumer,
};
use crate::{
    duration::{moment, unix_seconds},
    endpoint::{Endpoint, float},
    metrics,
    table::Table,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A new leader has counted after milliseconds; a scrape without the consumer is better than a wrong zero.
const FRESH_SECONDS: f64 = 1.0;

/// The tables as they grow.
pub struct Compact {
    streams: Claimed,
    replicas: Table,
    sources: Table,
    mirrors: Table,
    consumers: Claimed,
    leaders: Table,
}

impl Compact {
    pub fn new(plan: &Plan) -> Self {
        let table = |columns| Table::new(Endpoint::Jsz, columns, plan.rows_max);
        Self {
            streams: Claimed::new(table(metrics::columns(&metrics::STREAMS))),
            replicas: table(metrics::columns(&metrics::REPLICAS)),
            sources: table(metrics::columns(&metrics::SOURCES)),
            mirrors: table(metrics::columns(&metrics::MIRRORS)),
            consumers: Claimed::new(table(metrics::columns(&metrics::CONSUMERS))),
            leaders: table(metrics::columns(&metrics::LEADERS)),
        }
    }

    /// Adds a stream if it is led here, and closes the group of its consumers, which may be led here
    /// although it is not.
    pub fn stream(&mut self, account: &Account, s: &StreamDetail, server: &Server) {
        let labels = [("account", account.name.as_str()), ("stream", s.name.as_str())];
        self.consumers.table.end_group(&labels);
        self.leaders.end_group(&labels);
        let cluster = s.cluster.as_ref().map(|c| [&*c.raft_group, &*c.leader, &*c.leader_since]);
        if !leads(server, cluster) {
            return;
        }
        let limits = s.config.as_ref().map_or([f64::NAN; 2], |config| [config.max_msgs, config.max_bytes]);
        let st = &s.state;
        let counts = [st.messages, st.bytes, st.first_seq, st.last_seq, st.consumer_count, st.num_subjects];
        let [messages, bytes, first, last, consumers, subjects] = counts.map(float);
        let values = [messages, bytes, first, last, consumers, subjects, limits[0], limits[1]];
        self.streams.push(&labels, &values, s.cluster.as_ref().map(|c| c.leader_since.as_str()));
        for peer in s.cluster.iter().filter_map(|c| c.replicas.as_ref()).flatten() {
            let flag = |is| f64::from(u8::from(is));
            let own = [labels[0], labels[1], ("peer", peer.name.as_str())];
            self.replicas.push(&own, &[peer.lag, flag(peer.current), flag(peer.offline)]);
        }
        // Several sources can have one name, from elsewhere or with other subjects: the worst stands for them.
        let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
        for source in s.sources.iter().flatten() {
            let lag = worst.entry(&source.name).or_insert(source.lag);
            *lag = lag.max(source.lag);
        }
        for (name, lag) in worst {
            self.sources.push(&[labels[0], labels[1], ("source", name)], &[lag]);
        }
        if let Some(mirror) = &s.mirror {
            self.mirrors.push(&[labels[0], labels[1], ("source", &mirror.name)], &[mirror.lag]);
        }
    }

    /// Adds a consumer of the stream that is being read, if it is led here.
    pub fn consumer(
        &mut self,
        c: &Consumer<'_>,
        stream: &StreamDetail,
        server: &Server,
        now: Option<Timestamp>,
        plan: &Plan,
    ) {
        let cluster = c.cluster.as_ref().map(|c| [&*c.raft_group, &*c.leader, &*c.leader_since]);
        let is_durable = c.config.as_ref().is_none_or(|config| !config.durable_name.is_empty());
        if !leads(server, cluster) || !(is_durable || plan.has_ephemeral) || is_fresh(c, now) {
            return;
        }
        let config = c.config.as_ref().map_or([f64::NAN; 4], |config| {
            [config.max_ack_pending, config.max_deliver, config.max_waiting, config.ack_wait / 1e9]
        });
        let values = [
            float(c.num_pending),
            float(c.num_ack_pending),
            float(c.num_redelivered),
            float(c.num_waiting),
            float(c.delivered.consumer_seq),
            float(c.delivered.stream_seq),
            float(c.ack_floor.consumer_seq),
            float(c.ack_floor.stream_seq),
            age(now, c.delivered.last_active.as_deref()),
            age(now, c.ack_floor.last_active.as_deref()),
            config[0],
            config[1],
            config[2],
            config[3],
            f64::from(u8::from(c.paused)),
            oldest_pending(c, stream).map_or(f64::NAN, unix_seconds),
        ];
        let own = [("consumer", &*c.name)];
        self.consumers.push(&own, &values, c.cluster.as_ref().map(|cluster| &*cluster.leader_since));
        self.leaders.push(&own, &[1.0]);
    }

    pub fn finish(mut self, head: &Head, server_name: &str, cluster: String) -> Claims {
        let mut plain = Vec::new();
        if !head.is_disabled {
            let values = [
                head.memory,
                head.storage,
                head.reserved_memory,
                head.reserved_storage,
                head.config.max_memory,
                head.config.max_storage,
                head.api.total,
                head.api.errors,
            ];
            let columns = metrics::SERVERS.iter().map(metrics::column).collect();
            plain.push(Table::single(Endpoint::Jsz, columns, &[("server_name", server_name)], &values));
        }
        self.leaders.set_suffix(&[("leader", server_name), ("server_name", server_name)]);
        Claims {
            cluster,
            streams: self.streams,
            replicas: self.replicas,
            sources: self.sources,
            mirrors: self.mirrors,
            consumers: self.consumers,
            leaders: self.leaders,
            plain,
        }
    }
}

/// Whether the server leads what has this cluster (the group's name, its leader, since when), or what has none.
///
/// An elected server names itself at once, but leads only when it has applied what the previous leader stored; then it
/// adds since when. Until then its figures are a follower's: nothing pending, and a stream may lack its last messages.
fn leads(server: &Server, cluster: Option<[&str; 3]>) -> bool {
    let (_, is_leader) = leadership(cluster.map(|[_, leader, _]| leader), &server.name);
    let is_only_elected =
        cluster.is_some_and(|[group, _, since]| server.reports_since && !group.is_empty() && since.is_empty());
    is_leader && !is_only_elected
}

/// Whether the server has led the consumer only for a moment: until it has counted, it reports that nothing is pending.
/// Where nothing is replicated, and by servers before 2.12, that is not reported; these are trusted.
fn is_fresh(c: &Consumer<'_>, now: Option<Timestamp>) -> bool {
    let since = c.cluster.as_ref().map(|cluster| &*cluster.leader_since);
    age(now, since) < FRESH_SECONDS
}

/// When the oldest message that the consumer has not acknowledged was stored, if the answer has it.
///
/// The answer has only the times of a stream's first and last message. The first is the oldest pending one if
/// everything in the stream is pending, or if the consumer takes every subject and has not got past it. The last is if
/// only the last is left. In all other cases the time is unknown.
fn oldest_pending(c: &Consumer<'_>, stream: &StreamDetail) -> Option<Timestamp> {
    let state = &stream.state;
    let pending = c.num_pending.saturating_add(c.num_ack_pending);
    if pending == 0 || state.messages == 0 {
        return None;
    }
    let takes_all = c.config.as_ref().is_some_and(|config| {
        config.deliver_policy == "all"
            && config.filter_subject.is_empty()
            && config.filter_subjects.as_ref().is_none_or(Vec::is_empty)
    });
    let floor = c.ack_floor.stream_seq;
    if pending == state.messages || (takes_all && floor < state.first_seq) {
        return moment(&state.first_ts);
    }
    (takes_all && floor + 1 == state.last_seq).then(|| moment(&state.last_ts)).flatten()
}
